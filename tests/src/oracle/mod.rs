// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The write oracle: it knows what may stand in each sector, and names the rule that is broken when something else does.
//!
//! Every sector that it writes says which write it is of ([`stamp`]). The [`model`] is told when each operation is issued and
//! how it ends. A device keeps whole what it calls a logical block; that is the *unit* of all rules.
//!
//! **Who follows whom.** Of two operations on a unit the second follows the first when the first had ended before the second
//! was issued. Operations that are in flight together follow each other in no order, whatever their numbers are. An operation
//! is *settled* when it was acknowledged; one that failed, or is in flight, may have happened or not, but not after its end.
//!
//! **What a read may return.** What an operation left that was issued before the read ended, unless a settled operation
//! follows it that was acknowledged before the read was issued. So a write in flight may be seen or not, and what was
//! acknowledged must be seen. Beside a write in flight a read may return some bytes of one and some of the other.
//!
//! **What outlives the power.** A write is *durable* once it was acknowledged with FUA, or a flush was acknowledged that was
//! issued after the write's acknowledgement. After a cut a unit may have what any operation left that was ever issued, unless a
//! durable operation follows it: between two flushes the order is the device's. An acknowledgement that nobody could write down
//! is proven by anything on the disk that was issued after it.
//!
//! **Zeroes and discards.** Write-zeroes is a write of zeroes. A discard leaves zeroes where the device says so, and elsewhere
//! zeroes or what was there.
//!
//! | rule | broken when |
//! | --- | --- |
//! | [`Lost`](Rule::Lost) | the unit has what was there before a write that must be there |
//! | [`Stale`](Rule::Stale) | it has something older than that, or something older than was seen before |
//! | [`Torn`](Rule::Torn) | its sectors are of different writes, and no write to it is in flight |
//! | [`Misdirected`](Rule::Misdirected) | a sector says that it belongs elsewhere |
//! | [`Reordered`](Rule::Reordered) | after a cut: a flushed write is missing, and one that was issued after the flush is there |
//! | [`Replayed`](Rule::Replayed) | it has zeroes of a discard or of write-zeroes, and a later write is gone |
//! | [`Garbage`](Rule::Garbage) | it has what nobody has written |
//!
//! - [`schedule`]: what a lane does next, as a function of the seed;
//! - [`device`]: direct I/O of all kinds on a device;
//! - [`load`]: lanes on a device, and reads that are judged while upgrades go on;
//! - [`cut`]: lanes whose power is cut, and the judgement in the next boot.

pub mod cut;
pub mod device;
#[cfg(test)]
mod fake;
pub mod load;
pub mod model;
pub mod schedule;
pub mod stamp;
#[cfg(test)]
mod tests;
mod unit;
pub mod verdict;

pub use model::{Extent, Kind, Model, Terms};
pub use verdict::{Finding, Rule};
