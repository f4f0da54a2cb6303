// SPDX-License-Identifier: GPL-2.0

//! What one hardware queue has counted, in schema 3.

use core::sync::atomic::AtomicU64;

#[cfg(payload_ahead)]
use super::clear;
use super::{add, read, OpShard};
use crate::counts::{cell, class, Counts, Counts3, CELLS};

#[repr(align(128))]
#[derive(Default)]
pub(super) struct Shard {
    cells: [OpShard; CELLS],
    errors: AtomicU64,
}

impl Shard {
    #[inline]
    pub(super) fn count(&self, code: u8, bytes: u32, failed: bool) {
        if let Some(op) = cell(code, class::of(bytes)).and_then(|at| self.cells.get(at)) {
            op.count(code, bytes);
        }
        if failed {
            add(&self.errors, 1);
        }
    }

    #[cfg(payload_ahead)]
    pub(super) fn clear(&self) {
        self.cells.iter().for_each(OpShard::clear);
        clear(&self.errors);
    }

    pub(super) fn load(&self, counts: Counts) {
        let counts = counts.as_three();
        for (mine, theirs) in self.cells.iter().zip(counts.cells) {
            mine.load(theirs);
        }
        add(&self.errors, counts.errors);
    }

    pub(super) fn sum(shards: &[Self]) -> Counts {
        let mut sum = Counts3::default();
        for shard in shards {
            for (total, op) in sum.cells.iter_mut().zip(&shard.cells) {
                op.add_to(total);
            }
            sum.errors = sum.errors.wrapping_add(read(&shard.errors));
        }
        Counts::Three(sum)
    }
}
