// SPDX-License-Identifier: GPL-2.0

//! The payload: the half of the driver that is replaced while the devices stay.
//!
//! It knows what a volume is; Atom does not. The contract between the two is the [`abi`]. The pure
//! files are those of the host crate in `lib.rs`; everything else exists in the kernel only.
//!
//! | file | one reason to exist |
//! | --- | --- |
//! | `table.rs` | the operations table, and what Atom calls through it |
//! | `sys.rs` | the calls of Atom, and the places of the table of volumes |
//! | `pages.rs` | the data of requests and the pages of volumes |
//! | `identity.rs`, `level.rs` | what this version says about itself; the minor versions of the interface |
//! | `ops.rs` | the operations of the lifecycle |
//! | `commands.rs` | the commands that Atom forwards |
//! | `volumes.rs` | the table of volumes |
//! | `volume.rs` | one volume: what all kinds have in common |
//! | `null.rs`, `ram.rs` | the kinds without targets |
//! | `composed.rs`, `flight.rs` | a volume over targets; a request on its way through them. These and the following ones are in a client only |
//! | `target.rs`, `bdev.rs`, `nbd/` | one target; block devices; exports of NBD servers |
//! | `bios.rs` | I/O of other block devices |
//! | `meter.rs` | measuring how long a target takes |
//! | `clients.rs`, `no_clients.rs` | volumes over targets in the lifecycle; and in a version that has none |
//! | `compose.rs`, `why.rs` | the commands about them; reasons of a refusal |
//! | `statistics.rs`, `shard1.rs` to `shard3.rs` | counting on the I/O path; in the newest schema of this version |
//! | `fault.rs` | the points at which a test variant differs from a release |
//! | `points.rs` | the failpoints; in no release |
//! | `broken.rs`, `inject.rs`, `stuck.rs`, `keeper.rs`, `change.rs`, `extra.rs` | the test variants; in no release |
//! | `shape.rs`, `counts.rs`, `state.rs`, `carried.rs`, `protocol.rs`, `answers.rs`, `spec.rs`, `shown.rs` | pure: what crosses as bytes |
//! | `layout.rs`, `limits.rs`, `latency.rs`, `history.rs` | pure: what a volume makes of its targets; what is remembered of them |
//!
//! `table.rs`, `sys.rs` and `pages.rs` hold all `unsafe` code of a release, and in a client `flight.rs`, `bios.rs`,
//! `nbd/socket.rs` and `nbd/poller.rs`.
//!
//! Lock order, outermost first:
//!
//! 1. Atom's turn, which the caller of every operation but `queue_rq` and `timeout` has;
//! 2. `table::TABLE_OWNER`, held over one of these operations;
//! 3. Atom's innermost lock, taken within the calls of Atom;
//! 4. the lock of a page store, a spinlock, held for one insertion or removal.
//!
//! `queue_rq` takes nothing but the last one, and that only to add or remove a page, and in a client what
//! `nbd` says.

#[path = "abi/abi.rs"]
mod abi;
// What the host has as well is public there, and each version uses its own part of it.
#[cfg(payload_ahead)]
mod ahead;
#[allow(dead_code, unreachable_pub)]
mod answers;
#[cfg(payload_client)]
#[allow(clippy::result_large_err, reason = "it has its text; only commands meet it")]
mod bdev;
#[cfg(payload_client)]
mod bios;
#[cfg(payload_fault = "broken")]
mod broken;
#[allow(dead_code, unreachable_pub)]
mod carried;
#[cfg(payload_fault = "change")]
mod change;
#[cfg(payload_client)]
mod clients;
#[cfg(not(payload_client))]
#[path = "no_clients.rs"]
mod clients;
mod commands;
#[cfg(payload_client)]
#[allow(clippy::result_large_err, reason = "it has its text; only commands meet it")]
mod compose;
#[cfg(payload_client)]
mod composed;
#[allow(dead_code, unreachable_pub)]
mod counts;
#[cfg(payload_fault = "extra")]
mod extra;
#[path = "failpoint/failpoint.rs"]
mod failpoint;
mod fault;
#[cfg(payload_client)]
mod flight;
#[cfg(payload_client)]
mod held;
#[allow(dead_code, unreachable_pub)]
mod history;
mod identity;
#[cfg(payload_fault = "fault")]
mod inject;
#[cfg(payload_fault = "keeper")]
mod keeper;
#[cfg(payload_fault = "large")]
mod large;
#[allow(dead_code, unreachable_pub)]
mod latency;
#[allow(dead_code, unreachable_pub)]
mod layout;
mod level;
#[allow(dead_code, unreachable_pub)]
mod limits;
#[cfg(payload_client)]
mod meter;
#[cfg(payload_client)]
mod nbd;
mod null;
mod ops;
mod pages;
#[allow(dead_code, reason = "1.0 has fewer operations")]
mod points;
#[allow(dead_code, unreachable_pub)]
mod protocol;
mod ram;
#[allow(dead_code, unreachable_pub)]
mod shape;
#[allow(dead_code, unreachable_pub)]
mod shown;
#[allow(dead_code, unreachable_pub)]
mod spec;
#[allow(dead_code, unreachable_pub)]
mod state;
mod statistics;
#[cfg(payload_fault = "stuck")]
mod stuck;
mod sys;
mod table;
#[cfg(payload_client)]
#[allow(clippy::result_large_err, reason = "it has its text; only commands meet it")]
mod target;
mod volume;
mod volumes;
#[cfg(payload_client)]
mod why;

use kernel::prelude::*;

#[cfg(not(payload_fault = "fault"))]
module! {
    type: Payload,
    name: "atom_payload",
    authors: ["The Atom authors"],
    description: "Serves the block devices that Atom holds",
    license: "GPL",
}

#[cfg(payload_fault = "fault")]
module! {
    type: Payload,
    name: "atom_payload",
    authors: ["The Atom authors"],
    description: "Serves the block devices that Atom holds",
    license: "GPL",
    params: {
        fault_step: i64 {
            default: 0,
            description: "The operation with the fault, see inject.rs",
        },
        fault_kind: i64 {
            default: 0,
            description: "What it does",
        },
        fault_value: i64 {
            default: 0,
            description: "An errno, milliseconds, a place or a number, by the kind",
        },
        fault_times: i64 {
            default: 0,
            description: "How often; 0 for always",
        },
    },
}

/// The module. Registered with Atom for as long as it is loaded.
struct Payload {
    /// Before the registration, so that nobody hangs in one of them when Atom is told.
    _failpoints: failpoint::Shown,
    _registration: sys::Registration,
    /// Behind the registration.
    _exit: fault::Exit,
}

impl kernel::Module for Payload {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let failpoints = failpoint::Shown::begin(points::ALL)?;
        let registration = table::register()?;
        pr_info!(
            "{} loaded, schemas {} to {}\n",
            identity::VERSION,
            identity::SCHEMA.read_min,
            identity::SCHEMA.read_max
        );
        Ok(Self { _failpoints: failpoints, _registration: registration, _exit: fault::Exit })
    }
}
