// SPDX-License-Identifier: GPL-2.0

//! What one hardware queue has counted, in schema 1.

use core::sync::atomic::AtomicU64;

#[cfg(payload_ahead)]
use super::clear;
use super::{add, read};
use crate::abi::request::op;
use crate::counts::{Counts, Counts1};

#[repr(align(128))]
#[derive(Default)]
pub(super) struct Shard {
    reads: AtomicU64,
    writes: AtomicU64,
}

impl Shard {
    #[inline]
    pub(super) fn count(&self, code: u8, _bytes: u32, _failed: bool) {
        match code {
            op::READ => add(&self.reads, 1),
            op::WRITE | op::DISCARD | op::WRITE_ZEROES => add(&self.writes, 1),
            _ => {}
        }
    }

    #[cfg(payload_ahead)]
    pub(super) fn clear(&self) {
        clear(&self.reads);
        clear(&self.writes);
    }

    pub(super) fn load(&self, counts: Counts) {
        let counts = counts.as_one();
        add(&self.reads, counts.reads);
        add(&self.writes, counts.writes);
    }

    pub(super) fn sum(shards: &[Self]) -> Counts {
        let mut sum = Counts1::default();
        for shard in shards {
            sum.reads = sum.reads.wrapping_add(read(&shard.reads));
            sum.writes = sum.writes.wrapping_add(read(&shard.writes));
        }
        Counts::One(sum)
    }
}
