// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Sequences of ioctls that follow from a seed: valid ones, ones that are wrong in one thing, and random bytes, from several
//! threads with files of their own.
//!
//! - [`call`]: what is asked, and what the answer may be; pure;
//! - [`memory`]: arguments that end where nothing is mapped;
//! - [`caller`]: a thread that opens, asks, polls and closes.

pub mod call;
pub mod caller;
mod memory;
