// SPDX-License-Identifier: GPL-2.0

//! Measuring on the I/O path how long a target takes, in the schema of this version.
//!
//! Each hardware queue has a shard of its own, as in `statistics.rs`.

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::prelude::*;

use crate::counts::{position, OPS};
use crate::latency::OpLatency;
#[cfg(payload_schema = "5")]
use crate::latency::{bucket, BUCKETS};
use crate::sys;

/// Most shards of a target.
const MAX_SHARDS: u32 = 16;

/// What one hardware queue has measured for one operation.
struct OpShard {
    unplaced: AtomicU64,
    total_ns: AtomicU64,
    longest_ns: AtomicU64,
    #[cfg(payload_schema = "5")]
    buckets: [AtomicU64; BUCKETS],
}

#[repr(align(128))]
struct Shard {
    /// Parts that were issued, and parts that have ended, since the payload has the target.
    issued: AtomicU64,
    ended: AtomicU64,
    ops: [OpShard; OPS.len()],
}

/// How long the parts that one target carried out took.
pub(crate) struct Meter {
    shards: KVec<Shard>,
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl OpShard {
    const fn new() -> Self {
        Self {
            unplaced: AtomicU64::new(0),
            total_ns: AtomicU64::new(0),
            longest_ns: AtomicU64::new(0),
            #[cfg(payload_schema = "5")]
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }

    #[inline]
    fn count(&self, ns: u64) {
        #[cfg(payload_schema = "4")]
        add(&self.unplaced, 1);
        #[cfg(payload_schema = "5")]
        if let Some(place) = self.buckets.get(bucket(ns)) {
            add(place, 1);
        }
        add(&self.total_ns, ns);
        // Mostly it is no new longest one, and then nothing is written.
        if ns > read(&self.longest_ns) {
            self.longest_ns.fetch_max(ns, Ordering::Relaxed);
        }
    }

    fn load(&self, latency: &OpLatency) {
        #[cfg(payload_schema = "4")]
        add(&self.unplaced, latency.count());
        #[cfg(payload_schema = "5")]
        {
            add(&self.unplaced, latency.unplaced);
            for (mine, theirs) in self.buckets.iter().zip(latency.buckets) {
                add(mine, theirs);
            }
        }
        add(&self.total_ns, latency.total_ns);
        self.longest_ns.fetch_max(latency.longest_ns, Ordering::Relaxed);
    }

    fn add_to(&self, sum: &mut OpLatency) {
        sum.unplaced = sum.unplaced.wrapping_add(read(&self.unplaced));
        sum.total_ns = sum.total_ns.wrapping_add(read(&self.total_ns));
        sum.longest_ns = sum.longest_ns.max(read(&self.longest_ns));
        #[cfg(payload_schema = "5")]
        for (mine, theirs) in sum.buckets.iter_mut().zip(&self.buckets) {
            *mine = mine.wrapping_add(read(theirs));
        }
    }
}

impl Meter {
    /// Nothing measured. Allocates; may sleep.
    pub(crate) fn new() -> Result<Self> {
        let count = sys::processors().clamp(1, MAX_SHARDS);
        let mut shards = KVec::with_capacity(count as usize, GFP_KERNEL)?;
        for _ in 0..count {
            let shard = Shard {
                issued: AtomicU64::new(0),
                ended: AtomicU64::new(0),
                ops: [const { OpShard::new() }; OPS.len()],
            };
            shards.push(shard, GFP_KERNEL)?;
        }
        Ok(Self { shards })
    }

    /// Takes over what was measured before for the operation at a place of [`OPS`].
    pub(crate) fn load(&self, at: usize, latency: &OpLatency) {
        if let Some(op) = self.shards.first().and_then(|shard| shard.ops.get(at)) {
            op.load(latency);
        }
    }

    fn shard(&self, hctx: u16) -> Option<&Shard> {
        let shard = usize::from(hctx).checked_rem(self.shards.len())?;
        self.shards.get(shard)
    }

    /// Counts a part that is issued. Any context.
    #[inline]
    pub(crate) fn begin(&self, hctx: u16) {
        if let Some(shard) = self.shard(hctx) {
            add(&shard.issued, 1);
        }
    }

    /// Counts a part that has ended. Any context.
    #[inline]
    pub(crate) fn count(&self, hctx: u16, code: u8, ns: u64) {
        if let Some(shard) = self.shard(hctx) {
            if let Some(op) = position(code).and_then(|at| shard.ops.get(at)) {
                op.count(ns);
            }
            add(&shard.ended, 1);
        }
    }

    /// Counts a part that was issued as one that has ended, because it was not taken. Any context.
    pub(crate) fn give_back(&self, hctx: u16) {
        if let Some(shard) = self.shard(hctx) {
            add(&shard.ended, 1);
        }
    }

    /// Parts that were issued, and those of them that have ended. Each number by itself only grows.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let sum = |of: fn(&Shard) -> &AtomicU64| {
            self.shards.iter().fold(0u64, |sum, shard| sum.wrapping_add(read(of(shard))))
        };
        let ended = sum(|shard| &shard.ended);
        (sum(|shard| &shard.issued), ended)
    }

    /// What was measured for the operation at a place of [`OPS`].
    pub(crate) fn sum(&self, at: usize) -> OpLatency {
        let mut sum = OpLatency::default();
        for op in self.shards.iter().filter_map(|shard| shard.ops.get(at)) {
            op.add_to(&mut sum);
        }
        sum
    }
}
