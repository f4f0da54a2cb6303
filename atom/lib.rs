// SPDX-License-Identifier: GPL-2.0

//! The pure parts of Atom, for the host tests and the model checker.
//!
//! The same files are compiled into the module, whose crate root is `atom_main.rs`. They call nothing of the
//! kernel and allocate nothing.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`asked`] | what a caller of an ioctl may ask for |
//! | [`slot`] | what a device has of the live payload |
//! | [`handles`] | how often a device is open, and the end of that |
//! | [`awaited`] | whether somebody waits for requests to end |
//! | [`watch_rules`] | what Atom does by itself, and when it looks again |

#![no_std]
#![forbid(unsafe_code)]

use atom_abi as abi;

pub mod asked;
pub mod awaited;
pub mod handles;
pub mod slot;
pub mod watch_rules;
