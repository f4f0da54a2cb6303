// SPDX-License-Identifier: GPL-2.0

//! What one hardware queue has counted, in schema 2.

use core::sync::atomic::AtomicU64;

#[cfg(payload_ahead)]
use super::clear;
use super::{add, read, OpShard};
use crate::counts::{position, Counts, Counts2, OPS};

#[repr(align(128))]
#[derive(Default)]
pub(super) struct Shard {
    ops: [OpShard; OPS.len()],
    errors: AtomicU64,
}

impl Shard {
    #[inline]
    pub(super) fn count(&self, code: u8, bytes: u32, failed: bool) {
        if let Some(op) = position(code).and_then(|at| self.ops.get(at)) {
            op.count(code, bytes);
        }
        if failed {
            add(&self.errors, 1);
        }
    }

    #[cfg(payload_ahead)]
    pub(super) fn clear(&self) {
        self.ops.iter().for_each(OpShard::clear);
        clear(&self.errors);
    }

    pub(super) fn load(&self, counts: Counts) {
        let counts = counts.as_two();
        for (mine, theirs) in self.ops.iter().zip(counts.ops) {
            mine.load(theirs);
        }
        add(&self.errors, counts.errors);
    }

    pub(super) fn sum(shards: &[Self]) -> Counts {
        let mut sum = Counts2::default();
        for shard in shards {
            for (total, op) in sum.ops.iter_mut().zip(&shard.ops) {
                op.add_to(total);
            }
            sum.errors = sum.errors.wrapping_add(read(&shard.errors));
        }
        Counts::Two(sum)
    }
}
