// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The statistics of a volume in every schema, and the way from one to the next. Pure.
//!
//! | schema | what is counted |
//! | --- | --- |
//! | 1 | reads, and together whatever changes data |
//! | 2 | requests and bytes for each operation, and failures |
//! | 3 | as 2, and reads and writes by length class |
//!
//! Downwards, numbers are added up. Upwards, nothing is invented: what schema 1 cannot tell apart is
//! counted as writes, and what it does not have begins at zero; reads and writes of schema 2 keep their
//! numbers in a class of their own, that of requests whose length nobody has noted. So going up and
//! down again loses nothing.

use super::abi::image::{Fields, ImageError};
use super::abi::request::op;

/// The operations that are counted, in the order in which they stand in [`Counts2::ops`].
pub const OPS: [u8; 5] = [op::READ, op::WRITE, op::FLUSH, op::DISCARD, op::WRITE_ZEROES];

/// Bytes of the encoded [`Counts1`].
pub const COUNTS1_BYTES: usize = 16;
/// Bytes of the encoded [`Counts2`].
pub const COUNTS2_BYTES: usize = 88;
/// Bytes of the encoded [`Counts3`].
pub const COUNTS3_BYTES: usize = CELLS * 16 + 8;

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

/// Classes of length of a read or write.
pub mod class {
    /// Up to 4 KiB.
    pub const SHORT: usize = 0;
    /// Up to 64 KiB.
    pub const MEDIUM: usize = 1;
    /// More.
    pub const LONG: usize = 2;
    /// Counted in a schema without classes.
    pub const UNKNOWN: usize = 3;
    /// Number of classes.
    pub const COUNT: usize = 4;

    /// The class of a length in bytes.
    pub const fn of(bytes: u32) -> usize {
        match bytes {
            0..=0x1000 => SHORT,
            0x1001..=0x1_0000 => MEDIUM,
            _ => LONG,
        }
    }
}

/// Cells of [`Counts3`].
pub const CELLS: usize = 2 * class::COUNT + 3;

/// The cell of an operation and a [`class`]; all classes of an operation without any have the same one.
pub const fn cell(code: u8, class: usize) -> Option<usize> {
    match code {
        op::READ if class < class::COUNT => Some(class),
        op::WRITE if class < class::COUNT => Some(class::COUNT + class),
        op::FLUSH => Some(2 * class::COUNT),
        op::DISCARD => Some(2 * class::COUNT + 1),
        op::WRITE_ZEROES => Some(2 * class::COUNT + 2),
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

/// What is counted for one operation in schema 2, and in one cell in schema 3.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpCounts {
    /// Requests that ended.
    pub ios: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl OpCounts {
    fn plus(self, other: Self) -> Self {
        Self {
            ios: self.ios.saturating_add(other.ios),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// Statistics in schema 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts2 {
    /// By operation, in the order of [`OPS`].
    pub ops: [OpCounts; OPS.len()],
    /// Requests that ended with an error, of whatever operation.
    pub errors: u64,
}

/// Statistics in schema 3.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts3 {
    /// By operation and length: reads by [`class`], writes by class, then flushes, discards and
    /// write-zeroes. See [`cell`].
    pub cells: [OpCounts; CELLS],
    /// Requests that ended with an error, of whatever operation.
    pub errors: u64,
}

/// Hands numbers to `sink` as they stand in an image.
fn encode<R, const N: usize>(counts: &[OpCounts], errors: u64, sink: impl FnOnce(&[u8]) -> R) -> R {
    let mut bytes = [0; N];
    let numbers = counts.iter().flat_map(|op| [op.ios, op.bytes]);
    for (place, number) in bytes.chunks_exact_mut(8).zip(numbers.chain([errors])) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    sink(&bytes)
}

/// Reads them again. Returns the failures.
fn decode(fields: &mut Fields<'_>, counts: &mut [OpCounts]) -> Result<u64, ImageError> {
    for op in counts {
        op.ios = fields.u64()?;
        op.bytes = fields.u64()?;
    }
    fields.u64()
}

impl Counts2 {
    /// The counts of one operation; zero for one that is not counted.
    pub fn of(&self, code: u8) -> OpCounts {
        position(code).and_then(|at| self.ops.get(at)).copied().unwrap_or_default()
    }

    /// Hands the encoded counts to `sink`.
    pub fn encode<R>(&self, sink: impl FnOnce(&[u8]) -> R) -> R {
        encode::<R, COUNTS2_BYTES>(&self.ops, self.errors, sink)
    }

    /// Reads the counts.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Self, ImageError> {
        let mut counts = Self::default();
        counts.errors = decode(fields, &mut counts.ops)?;
        Ok(counts)
    }
}

impl Counts3 {
    /// The counts of one operation in one [`class`]; zero for what is not counted.
    pub fn of(&self, code: u8, class: usize) -> OpCounts {
        cell(code, class).and_then(|at| self.cells.get(at)).copied().unwrap_or_default()
    }

    /// The counts of one operation, of whatever length.
    pub fn total(&self, code: u8) -> OpCounts {
        match code {
            op::READ | op::WRITE => (0..class::COUNT)
                .fold(OpCounts::default(), |sum, class| sum.plus(self.of(code, class))),
            _ => self.of(code, class::UNKNOWN),
        }
    }

    /// Hands the encoded counts to `sink`.
    pub fn encode<R>(&self, sink: impl FnOnce(&[u8]) -> R) -> R {
        encode::<R, COUNTS3_BYTES>(&self.cells, self.errors, sink)
    }

    /// Reads the counts.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Self, ImageError> {
        let mut counts = Self::default();
        counts.errors = decode(fields, &mut counts.cells)?;
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

impl From<Counts2> for Counts3 {
    fn from(old: Counts2) -> Self {
        let mut new = Self { errors: old.errors, ..Self::default() };
        for (code, counts) in OPS.into_iter().zip(old.ops) {
            if let Some(place) = cell(code, class::UNKNOWN).and_then(|at| new.cells.get_mut(at)) {
                *place = counts;
            }
        }
        new
    }
}

impl From<Counts3> for Counts2 {
    fn from(new: Counts3) -> Self {
        Self { ops: OPS.map(|code| new.total(code)), errors: new.errors }
    }
}

/// Statistics in the schema of whoever has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counts {
    /// Schema 1.
    One(Counts1),
    /// Schema 2.
    Two(Counts2),
    /// Schema 3.
    Three(Counts3),
}

impl Counts {
    /// Those of a volume that has served nothing.
    pub fn none() -> Self {
        Self::One(Counts1::default())
    }

    /// All of them together: a number that grows with each request, and so is the same only if none was counted.
    pub fn grown(&self) -> u64 {
        let sum = |ops: &[OpCounts], errors: u64| {
            ops.iter().fold(errors, |sum, op| sum.wrapping_add(op.ios).wrapping_add(op.bytes))
        };
        match self {
            Self::One(counts) => counts.reads.wrapping_add(counts.writes),
            Self::Two(counts) => sum(&counts.ops, counts.errors),
            Self::Three(counts) => sum(&counts.cells, counts.errors),
        }
    }

    /// As schema 1 has them.
    pub fn as_one(self) -> Counts1 {
        match self {
            Self::One(counts) => counts,
            _ => self.as_two().into(),
        }
    }

    /// As schema 2 has them.
    pub fn as_two(self) -> Counts2 {
        match self {
            Self::One(counts) => counts.into(),
            Self::Two(counts) => counts,
            Self::Three(counts) => counts.into(),
        }
    }

    /// As schema 3 has them.
    pub fn as_three(self) -> Counts3 {
        match self {
            Self::Three(counts) => counts,
            _ => self.as_two().into(),
        }
    }
}
