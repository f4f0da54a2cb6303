// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The last errors of a target. Pure.

use core::sync::atomic::{AtomicU64, Ordering};

use super::abi::image::{Fields, ImageError};

/// Errors that are remembered.
pub const KEPT: usize = 8;
/// Bytes of an encoded [`Failure`].
pub const FAILURE_BYTES: usize = 24;

/// A part of a request that a target has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Failure {
    /// When, in nanoseconds since the machine has started (`CLOCK_BOOTTIME`).
    pub when_ns: u64,
    /// First sector on the target.
    pub sector: u64,
    /// One of [`super::abi::request::op`].
    pub op: u8,
    /// One of [`super::abi::request::status`].
    pub status: u32,
}

impl Failure {
    fn words(&self) -> [u64; 3] {
        [self.when_ns, self.sector, (u64::from(self.op) << 32) | u64::from(self.status)]
    }

    fn from_words([when_ns, sector, word]: [u64; 3]) -> Option<Self> {
        Some(Self { when_ns, sector, op: u8::try_from(word >> 32).ok()?, status: word as u32 })
    }

    /// Its bytes in images and answers.
    pub fn to_bytes(self) -> [u8; FAILURE_BYTES] {
        let mut bytes = [0; FAILURE_BYTES];
        for (place, word) in bytes.chunks_exact_mut(8).zip(self.words()) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads it. `Ok(None)` when it makes no sense.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Option<Self>, ImageError> {
        Ok(Self::from_words([fields.u64()?, fields.u64()?, fields.u64()?]))
    }
}

/// The last errors, and how many there were. Written on the I/O path from any context, so without a lock:
/// a reader can find one that is half written, but in *freeze*, when nothing is being served.
#[derive(Debug, Default)]
pub struct History {
    total: AtomicU64,
    places: [[AtomicU64; 3]; KEPT],
}

impl History {
    /// Remembers one more.
    pub fn add(&self, failure: &Failure) {
        let number = self.total.fetch_add(1, Ordering::Relaxed);
        self.put(number, failure);
    }

    fn put(&self, number: u64, failure: &Failure) {
        if let Some(place) = self.places.get((number % KEPT as u64) as usize) {
            for (word, value) in place.iter().zip(failure.words()) {
                word.store(value, Ordering::Relaxed);
            }
        }
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Those that are remembered, the oldest first.
    pub fn failures(&self) -> impl Iterator<Item = Failure> + '_ {
        let total = self.total();
        (total.saturating_sub(KEPT as u64)..total).filter_map(|number| {
            let [when, sector, word] = self.places.get((number % KEPT as u64) as usize)?;
            let read = |word: &AtomicU64| word.load(Ordering::Relaxed);
            Failure::from_words([read(when), read(sector), read(word)])
        })
    }

    /// Takes over what was remembered before: of so many the last ones, the oldest first. Only while nobody
    /// adds any.
    pub fn load(&self, total: u64, last: impl ExactSizeIterator<Item = Failure>) {
        let first = total.saturating_sub(last.len() as u64);
        for (number, failure) in (first..total).zip(last) {
            self.put(number, &failure);
        }
        self.total.store(total, Ordering::Relaxed);
    }
}
