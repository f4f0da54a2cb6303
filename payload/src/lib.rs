// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The pure parts of the payload, for the host tests and the tools.
//!
//! The same files are compiled into each payload module, whose crate root is `payload_main.rs`. They
//! allocate nothing, call nothing of the kernel, and treat every byte that they decode as hostile.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`shape`] | what a volume is: identity, kind, geometry, name |
//! | [`counts`] | the statistics of every schema, and the way from one to the next |
//! | [`state`] | the image of all volumes: export and import |
//! | [`carried`] | records of an image that this version does not know |
//! | [`protocol`] | the commands that a payload carries out |
//! | [`answers`] | what it answers |

#![no_std]
#![forbid(unsafe_code)]

use atom_abi as abi;

pub mod answers;
pub mod carried;
pub mod counts;
pub mod protocol;
pub mod shape;
pub mod state;
