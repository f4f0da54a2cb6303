// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The journal: what was attempted on this machine, and what became of it.
//!
//! A record says that something *began*, durably, before anything changes. One says how it *ended*, with the whole
//! report. Where the second is missing the tool was killed, or the machine lost its power; `recover` then writes what it
//! found: the attempt is *settled*.
//!
//! | file | what it is |
//! | --- | --- |
//! | `/var/lib/atom/journal` | the records, one a line, see the `line` module; nothing in it is ever changed |
//! | `/var/lib/atom/journal.1` to `.4` | older ones |
//! | `/run/atom/spool` | records that are not on the disk yet. It lies in memory |
//! | `/run/atom/attempt` | number of the last attempt |
//! | `/run/atom/journal.lock`, `spool.lock` | who writes |
//!
//! Any disk may be one that Atom holds, also the one with the journal. So a record goes to the spool first, which needs no
//! disk, and from there to the disk when I/O flows: by the same process, or by the next one that runs. A disk that fails
//! or does not answer costs an attempt a warning and a few seconds, never its success.

mod atoms_own;
mod attempt;
mod beneath;
#[cfg(test)]
mod crash_tests;
#[cfg(feature = "failpoints")]
mod failing;
#[cfg(test)]
mod fake;
mod flow;
mod line;
mod log;
mod medium;
mod patience;
mod record;
mod store;
#[cfg(test)]
pub(crate) mod test_records;
#[cfg(test)]
mod tests;
mod verdict;
mod who;

pub use attempt::Attempt;
pub(crate) use flow::disk_is_there;
pub use record::{Began, Ended, Identity, Kind, Moment, Origin, Process, Record, Settled};
pub(crate) use store::{beside, read_beside};
pub use store::{Found, Journal};
pub use verdict::{Recorded, Verdict};

/// The kernel's name for the time since this machine was started.
pub fn boot() -> String {
    who::boot()
}

/// The version that the last attempt without an end, whose tool is gone, was to make live.
pub fn wanted() -> Option<String> {
    // No attempt has this number: those of tools that are there are passed over anyway.
    let nobody = Identity { attempt: u64::MAX, boot: boot() };
    let open = attempt::without_end(&read(), &nobody);
    open.into_iter().map(|(_, to)| to).rfind(|to| !to.is_empty())
}

/// The records of this machine, oldest first.
pub fn read() -> Vec<Record> {
    Journal::standard().read().records
}
