// SPDX-License-Identifier: GPL-2.0

//! Counting on the I/O path, in the newest schema of this version.
//!
//! Each hardware queue counts in a shard of its own cache lines, so that CPUs do not take lines from
//! each other; with more queues than shards some share one. A reader adds the shards up: the sum is
//! exact whenever no request is being served, as in *freeze*.

#[cfg_attr(payload_schema = "1", path = "shard1.rs")]
#[cfg_attr(payload_schema = "2", path = "shard2.rs")]
#[cfg_attr(
    any(payload_schema = "3", payload_schema = "4", payload_schema = "5"),
    path = "shard3.rs"
)]
mod shard;

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::prelude::*;

use crate::counts::Counts;
#[cfg(not(payload_schema = "1"))]
use crate::{abi::request::op, counts::OpCounts};
use shard::Shard;

/// Shards of a volume.
const SHARDS: usize = 16;

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

#[cfg(payload_ahead)]
fn clear(counter: &AtomicU64) {
    counter.store(0, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// What one hardware queue has counted for one operation.
#[cfg(not(payload_schema = "1"))]
#[derive(Default)]
struct OpShard {
    ios: AtomicU64,
    bytes: AtomicU64,
}

#[cfg(not(payload_schema = "1"))]
impl OpShard {
    #[inline]
    fn count(&self, code: u8, bytes: u32) {
        add(&self.ios, 1);
        if code != op::FLUSH {
            add(&self.bytes, bytes.into());
        }
    }

    #[cfg(payload_ahead)]
    fn clear(&self) {
        clear(&self.ios);
        clear(&self.bytes);
    }

    fn load(&self, counts: OpCounts) {
        add(&self.ios, counts.ios);
        add(&self.bytes, counts.bytes);
    }

    fn add_to(&self, total: &mut OpCounts) {
        total.ios = total.ios.wrapping_add(read(&self.ios));
        total.bytes = total.bytes.wrapping_add(read(&self.bytes));
    }
}

/// The statistics of one volume.
pub(crate) struct Statistics {
    shards: KVec<Shard>,
}

impl Statistics {
    /// All zero. Allocates; may sleep.
    pub(crate) fn new() -> Result<Self> {
        let mut shards = KVec::with_capacity(SHARDS, GFP_KERNEL)?;
        for _ in 0..SHARDS {
            shards.push(Shard::default(), GFP_KERNEL)?;
        }
        Ok(Self { shards })
    }

    /// Takes over what was counted before.
    pub(crate) fn load(&self, counts: Counts) {
        if let Some(shard) = self.shards.first() {
            shard.load(counts);
        }
    }

    /// The same anew, when nothing has been counted since.
    #[cfg(payload_ahead)]
    pub(crate) fn reload(&self, counts: Counts) {
        if let Some(shard) = self.shards.first() {
            shard.clear();
            shard.load(counts);
        }
    }

    /// Counts a request that is about to end. Any context.
    #[inline]
    pub(crate) fn count(&self, hctx: u16, code: u8, bytes: u32, failed: bool) {
        if let Some(shard) = self.shards.get(usize::from(hctx) % SHARDS) {
            shard.count(code, bytes, failed);
        }
    }

    /// What was counted in all shards together.
    pub(crate) fn sum(&self) -> Counts {
        Shard::sum(&self.shards)
    }
}
