// SPDX-License-Identifier: GPL-2.0

//! Counting on the I/O path, in the schema of this version.
//!
//! Each hardware queue counts in a shard of its own cache lines, so that CPUs do not take lines from
//! each other; with more queues than shards some share one. A reader adds the shards up: the sum is
//! exact whenever no request is being served, as in *freeze*.

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::prelude::*;

use crate::abi::request::op;
use crate::counts::Counts;
#[cfg(payload_schema = "1")]
use crate::counts::Counts1;
#[cfg(payload_schema = "2")]
use crate::counts::{position, Counts2, OPS};

/// Shards of a volume.
const SHARDS: usize = 16;

/// What one hardware queue has counted, in schema 1.
#[cfg(payload_schema = "1")]
#[repr(align(128))]
#[derive(Default)]
struct Shard {
    reads: AtomicU64,
    writes: AtomicU64,
}

#[cfg(payload_schema = "1")]
impl Shard {
    fn count(&self, code: u8, _bytes: u32, _failed: bool) {
        match code {
            op::READ => add(&self.reads, 1),
            op::WRITE | op::DISCARD | op::WRITE_ZEROES => add(&self.writes, 1),
            _ => {}
        }
    }

    fn load(&self, counts: Counts) {
        let counts = counts.as_one();
        add(&self.reads, counts.reads);
        add(&self.writes, counts.writes);
    }
}

/// What one hardware queue has counted for one operation, in schema 2.
#[cfg(payload_schema = "2")]
#[derive(Default)]
struct OpShard {
    ios: AtomicU64,
    bytes: AtomicU64,
}

/// What one hardware queue has counted, in schema 2.
#[cfg(payload_schema = "2")]
#[repr(align(128))]
#[derive(Default)]
struct Shard {
    ops: [OpShard; OPS.len()],
    errors: AtomicU64,
}

#[cfg(payload_schema = "2")]
impl Shard {
    fn count(&self, code: u8, bytes: u32, failed: bool) {
        if let Some(op) = position(code).and_then(|at| self.ops.get(at)) {
            add(&op.ios, 1);
            if code != op::FLUSH {
                add(&op.bytes, bytes.into());
            }
        }
        if failed {
            add(&self.errors, 1);
        }
    }

    fn load(&self, counts: Counts) {
        let counts = counts.as_two();
        for (mine, theirs) in self.ops.iter().zip(counts.ops) {
            add(&mine.ios, theirs.ios);
            add(&mine.bytes, theirs.bytes);
        }
        add(&self.errors, counts.errors);
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
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

    /// Counts a request that is about to end. Any context.
    #[inline]
    pub(crate) fn count(&self, hctx: u16, code: u8, bytes: u32, failed: bool) {
        if let Some(shard) = self.shards.get(usize::from(hctx) % SHARDS) {
            shard.count(code, bytes, failed);
        }
    }

    /// What was counted in all shards together.
    #[cfg(payload_schema = "1")]
    pub(crate) fn sum(&self) -> Counts {
        let mut sum = Counts1::default();
        for shard in &self.shards {
            sum.reads = sum.reads.wrapping_add(read(&shard.reads));
            sum.writes = sum.writes.wrapping_add(read(&shard.writes));
        }
        Counts::One(sum)
    }

    /// What was counted in all shards together.
    #[cfg(payload_schema = "2")]
    pub(crate) fn sum(&self) -> Counts {
        let mut sum = Counts2::default();
        for shard in &self.shards {
            for (total, op) in sum.ops.iter_mut().zip(&shard.ops) {
                total.ios = total.ios.wrapping_add(read(&op.ios));
                total.bytes = total.bytes.wrapping_add(read(&op.bytes));
            }
            sum.errors = sum.errors.wrapping_add(read(&shard.errors));
        }
        Counts::Two(sum)
    }
}
