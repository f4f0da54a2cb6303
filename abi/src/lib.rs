// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The cargo side of the contract between Atom, its payloads and the tools.
//!
//! Kbuild compiles the same modules into `atom.ko` and into each payload, by the list in `abi.rs`, where each is
//! described. Here they are listed again: tools that look for the files of a crate, as the one for mutations does, find
//! the modules of its root, and not those of a file that is reached by a `path` of its own. A test compares the lists.

#![no_std]
#![forbid(unsafe_code)]

pub mod bio;
pub mod calls;
pub mod control;
pub mod crc32c;
pub mod device;
pub mod image;
pub mod layout;
pub mod lifecycle;
pub mod request;
pub mod stamp;
pub mod sync;
pub mod table;
pub mod text;
pub mod version;
