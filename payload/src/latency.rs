// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! How long a target took, in the schemas that have targets. Pure.
//!
//! | schema | what is kept for each operation |
//! | --- | --- |
//! | 4 | how many, their time together, the longest |
//! | 5 | as 4, and how many by length of time, in powers of two |
//!
//! Upwards nothing is invented: what was counted without its length of time stays so. Downwards numbers
//! are added up. So going up and down again loses nothing, and going down and up loses the lengths.

use super::abi::image::{Fields, ImageError};

/// Classes of length of time.
pub const BUCKETS: usize = 32;
/// Bytes of an encoded [`OpLatency`] in schema 4.
pub const OP4_BYTES: usize = 24;
/// Bytes of an encoded [`OpLatency`] in schema 5.
pub const OP5_BYTES: usize = 24 + 8 * BUCKETS;

/// The class of a length of time: 0 below 1,024 ns, and then one for each doubling.
pub const fn bucket(ns: u64) -> usize {
    let class = (64 - (ns >> 10).leading_zeros()) as usize;
    if class < BUCKETS {
        class
    } else {
        BUCKETS - 1
    }
}

/// The end of a class, in nanoseconds, not included; `None` for the last one, which has no end.
pub const fn bucket_end_ns(class: usize) -> Option<u64> {
    if class < BUCKETS - 1 {
        Some(1 << (class + 10))
    } else {
        None
    }
}

/// What is kept for one operation of a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpLatency {
    /// Counted without a class.
    pub unplaced: u64,
    /// Time of all together, in nanoseconds.
    pub total_ns: u64,
    /// The longest time, in nanoseconds.
    pub longest_ns: u64,
    /// By [`bucket`].
    pub buckets: [u64; BUCKETS],
}

impl OpLatency {
    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(self.unplaced, |sum, count| sum.saturating_add(*count))
    }

    /// Adds what somebody else has counted.
    pub fn join(&mut self, other: &Self) {
        self.unplaced = self.unplaced.saturating_add(other.unplaced);
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
        self.longest_ns = self.longest_ns.max(other.longest_ns);
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine = mine.saturating_add(theirs);
        }
    }

    /// Hands the numbers to `sink` as they stand in an image of a schema.
    pub fn encode<R>(&self, schema: u32, sink: impl FnOnce(&[u8]) -> R) -> R {
        let mut bytes = [0; OP5_BYTES];
        let first = if schema < 5 { self.count() } else { self.unplaced };
        let numbers = [first, self.total_ns, self.longest_ns].into_iter().chain(self.buckets);
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        sink(bytes.get(..op_bytes(schema)).unwrap_or(&[]))
    }

    /// Reads them again.
    pub fn decode(schema: u32, fields: &mut Fields<'_>) -> Result<Self, ImageError> {
        let mut latency = Self {
            unplaced: fields.u64()?,
            total_ns: fields.u64()?,
            longest_ns: fields.u64()?,
            buckets: [0; BUCKETS],
        };
        if schema >= 5 {
            for bucket in &mut latency.buckets {
                *bucket = fields.u64()?;
            }
        }
        Ok(latency)
    }
}

/// Bytes of an operation in a schema.
pub const fn op_bytes(schema: u32) -> usize {
    match schema < 5 {
        true => OP4_BYTES,
        false => OP5_BYTES,
    }
}
