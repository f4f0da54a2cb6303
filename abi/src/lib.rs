// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The cargo side of the contract between Atom, its payloads and the tools.
//!
//! This file only carries the crate attributes. All content is in [`abi`], which Kbuild compiles
//! into `atom.ko` and into each payload as an ordinary module.

#![no_std]
#![forbid(unsafe_code)]

#[path = "abi.rs"]
mod abi;

pub use abi::*;
