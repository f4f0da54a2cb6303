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
//! | [`spec`] | what a volume is made of: a layout over targets |
//! | [`layout`] | which sectors of a volume lie where on its targets |
//! | [`limits`] | what the limits of targets make of the device above them |
//! | [`latency`] | how long a target took, in schemas 4 and 5 |
//! | [`history`] | the last errors of a target |
//! | [`nbd`] | the NBD protocol, and what of its targets goes into the image |
//! | [`carried`] | records of an image that this version does not know |
//! | [`protocol`] | the commands that a payload carries out |
//! | [`answers`] | what it answers |
//! | [`shown`] | what it answers to the question about one volume |

#![no_std]
#![forbid(unsafe_code)]

use atom_abi as abi;

pub mod answers;
pub mod carried;
pub mod counts;
pub mod history;
pub mod latency;
pub mod layout;
pub mod limits;
/// The client side of the NBD protocol, as far as it is pure.
pub mod nbd {
    pub mod handshake;
    pub mod record;
    pub mod reply;
    pub mod rules;
    pub mod scheduler;
    pub mod wire;
}
pub mod protocol;
pub mod shape;
pub mod shown;
pub mod spec;
pub mod state;
