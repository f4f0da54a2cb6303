// SPDX-License-Identifier: GPL-2.0

//! The payload: the half of the driver that is replaced while the devices stay.
//!
//! It knows what a volume is; Atom does not. The contract between the two is the [`abi`]. The pure
//! files are those of the host crate in `lib.rs`; everything else exists in the kernel only.
//!
//! | file | one reason to exist |
//! | --- | --- |
//! | `sys.rs` | the calls into and from Atom, and the places of the table of volumes |
//! | `pages.rs` | the data of requests and the pages of volumes |
//! | `identity.rs` | what this version says about itself |
//! | `ops.rs` | the operations of the lifecycle |
//! | `commands.rs` | the commands that Atom forwards |
//! | `volumes.rs` | the table of volumes |
//! | `volume.rs` | one volume: what all kinds have in common |
//! | `null.rs`, `ram.rs` | the kinds |
//! | `statistics.rs` | counting on the I/O path, in the schema of this version |
//! | `fault.rs`, `stuck.rs` | the one fault of a test variant; nothing in a release |
//! | `shape.rs`, `counts.rs`, `state.rs`, `protocol.rs`, `answers.rs` | pure: what crosses as bytes |
//!
//! `sys.rs` and `pages.rs` hold all `unsafe` code of a release.
//!
//! Lock order, outermost first:
//!
//! 1. `CONTROL` of Atom, which the caller of every operation but `queue_rq` holds;
//! 2. `sys::TABLE_OWNER`, held over one of these operations;
//! 3. Atom's innermost lock, taken within the calls of Atom;
//! 4. the lock of a page store, a spinlock, held for one insertion or removal.
//!
//! `queue_rq` takes nothing but the last one, and that only to add or remove a page.

#[path = "abi/abi.rs"]
mod abi;
// What the host has as well is public there, and each version uses its own part of it.
#[allow(dead_code, unreachable_pub)]
mod answers;
mod commands;
#[allow(dead_code, unreachable_pub)]
mod counts;
mod fault;
mod identity;
mod null;
mod ops;
mod pages;
#[allow(dead_code, unreachable_pub)]
mod protocol;
mod ram;
#[allow(dead_code, unreachable_pub)]
mod shape;
#[allow(dead_code, unreachable_pub)]
mod state;
mod statistics;
#[cfg(payload_fault = "stuck")]
mod stuck;
mod sys;
mod volume;
mod volumes;

use kernel::prelude::*;

module! {
    type: Payload,
    name: "atom_payload",
    authors: ["The Atom authors"],
    description: "Serves the block devices that Atom holds",
    license: "GPL",
}

/// The module. Registered with Atom for as long as it is loaded.
struct Payload {
    _registration: sys::Registration,
}

impl kernel::Module for Payload {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let registration = sys::register()?;
        pr_info!(
            "{} loaded, schemas {} to {}\n",
            identity::VERSION,
            identity::SCHEMA.read_min,
            identity::SCHEMA.read_max
        );
        Ok(Self { _registration: registration })
    }
}
