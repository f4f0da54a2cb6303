// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The statistics of a volume in both schemas, and the way from one to the other. Pure.
//!
//! Schema 1 counts reads, and together whatever changes data. Schema 2 counts requests and bytes for
//! each operation, and failures. Upwards, what schema 1 cannot tell apart is counted as writes, and
//! what it does not have begins at zero; downwards, operations are added up. So 1 to 2 to 1 loses
//! nothing.

use super::abi::image::{Fields, ImageError};
use super::abi::request::op;

/// The operations that are counted, in the order in which they stand in [`Counts2::ops`].
pub const OPS: [u8; 5] = [op::READ, op::WRITE, op::FLUSH, op::DISCARD, op::WRITE_ZEROES];

/// Bytes of the encoded [`Counts1`].
pub const COUNTS1_BYTES: usize = 16;
/// Bytes of the encoded [`Counts2`].
pub const COUNTS2_BYTES: usize = 88;

/// The position of an operation in [`OPS`].
pub const fn position(code: u8) -> Option<usize> {
    match code {
        op::READ => Some(0),
        op::WRITE => Some(1),
        op::FLUSH => Some(2),
        op::DISCARD => Some(3),
        op::WRITE_ZEROES => Some(4),
        _ => None,
    }
}

/// Statistics in schema 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts1 {
    /// Reads that ended.
    pub reads: u64,
    /// Writes, discards and write-zeroes that ended.
    pub writes: u64,
}

/// What is counted for one operation in schema 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpCounts {
    /// Requests that ended.
    pub ios: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Statistics in schema 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts2 {
    /// By operation, in the order of [`OPS`].
    pub ops: [OpCounts; OPS.len()],
    /// Requests that ended with an error, of whatever operation.
    pub errors: u64,
}

impl Counts2 {
    /// The counts of one operation; zero for one that is not counted.
    pub fn of(&self, code: u8) -> OpCounts {
        position(code).and_then(|at| self.ops.get(at)).copied().unwrap_or_default()
    }

    /// Hands the encoded counts to `sink`.
    pub fn encode<R>(&self, sink: impl FnOnce(&[u8]) -> R) -> R {
        let mut bytes = [0; COUNTS2_BYTES];
        let numbers = self.ops.iter().flat_map(|op| [op.ios, op.bytes]);
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers.chain([self.errors])) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        sink(&bytes)
    }

    /// Reads the counts.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Self, ImageError> {
        let mut counts = Self::default();
        for op in &mut counts.ops {
            op.ios = fields.u64()?;
            op.bytes = fields.u64()?;
        }
        counts.errors = fields.u64()?;
        Ok(counts)
    }
}

impl From<Counts1> for Counts2 {
    fn from(old: Counts1) -> Self {
        let ios = |ios| OpCounts { ios, bytes: 0 };
        let none = OpCounts::default();
        Self { ops: [ios(old.reads), ios(old.writes), none, none, none], errors: 0 }
    }
}

impl From<Counts2> for Counts1 {
    fn from(new: Counts2) -> Self {
        Self {
            reads: new.of(op::READ).ios,
            writes: [op::WRITE, op::DISCARD, op::WRITE_ZEROES]
                .into_iter()
                .fold(0, |sum: u64, code| sum.saturating_add(new.of(code).ios)),
        }
    }
}

/// Statistics in the schema of whoever has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counts {
    /// Schema 1.
    One(Counts1),
    /// Schema 2.
    Two(Counts2),
}

impl Counts {
    /// As schema 1 has them.
    pub fn as_one(self) -> Counts1 {
        match self {
            Self::One(counts) => counts,
            Self::Two(counts) => counts.into(),
        }
    }

    /// As schema 2 has them.
    pub fn as_two(self) -> Counts2 {
        match self {
            Self::One(counts) => counts.into(),
            Self::Two(counts) => counts,
        }
    }
}
