// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The pure parts of failpoints, for the host's tests.
//!
//! The same files are compiled into the modules that are built with failpoints, whose root for them is `failpoint.rs`.
//! They allocate nothing and call nothing of the kernel.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`fault`] | what a point can do |
//! | [`trigger`] | at which of its passes it does so |
//! | [`point`] | a point: how it is armed, met and counted |
//! | [`line`] | the lines that set points |

#![no_std]
#![forbid(unsafe_code)]

pub mod fault;
pub mod line;
pub mod point;
pub mod trigger;
