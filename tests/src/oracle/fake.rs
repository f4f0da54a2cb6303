// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A disk with a volatile cache that does everything right, or one thing wrong.
//!
//! Operations take effect unit by unit, at any time between their issue and their end. A flush puts what took effect before it
//! onto the medium; at a cut each unit keeps what any of its later writes has left, or none.

use super::model::{Extent, Kind, Terms};
use super::stamp::{Stamp, SECTOR};
use crate::random::Random;

/// What the disk does wrong, once and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    None,
    /// It acknowledges a unit of a write and does not write it.
    Loses,
    /// It writes half of a unit.
    Tears,
    /// It carries a write out a second time, after a later one.
    ReplaysWrite,
    /// It carries a discard out a second time, after a later write.
    ReplaysDiscard,
    /// It writes to another place.
    Misdirects,
    /// It changes a bit.
    Flips,
    /// It acknowledges flushes and does nothing.
    IgnoresFlush,
    /// It takes a write with FUA for one without.
    IgnoresFua,
}

/// An operation in flight, with what it leaves in each unit.
#[derive(Clone, Debug)]
pub struct Pending {
    kind: Kind,
    extent: Extent,
    waiting: Vec<(u64, Vec<u8>)>,
}

pub struct Disk {
    terms: Terms,
    defect: Defect,
    medium: Vec<Vec<u8>>,
    /// What took effect and is not on the medium, in order.
    cache: Vec<(u64, Vec<u8>)>,
    /// Operations that were carried out, to be carried out again.
    old: Vec<(u64, Vec<u8>)>,
    /// How often it did something wrong.
    pub struck: u32,
}

impl Disk {
    pub fn new(terms: Terms, defect: Defect) -> Self {
        let medium = vec![vec![0; terms.unit_bytes()]; terms.units as usize];
        Self { terms, defect, medium, cache: Vec::new(), old: Vec::new(), struck: 0 }
    }

    /// Takes an operation on.
    pub fn issue(&self, kind: Kind, extent: Extent, sequence: u64, generation: u64) -> Pending {
        let content = |unit: u64| {
            let mut bytes = vec![0; self.terms.unit_bytes()];
            if matches!(kind, Kind::Write { .. }) {
                let first = unit * self.terms.unit_sectors;
                for (sector, place) in (first..).zip(bytes.chunks_mut(SECTOR)) {
                    let volume = self.terms.volume;
                    Stamp { volume, sector, sequence, generation }.write(place);
                }
            }
            (unit, bytes)
        };
        Pending { kind, extent, waiting: extent.units().map(content).collect() }
    }

    /// One unit of it takes effect, if there is one left.
    pub fn work(&mut self, pending: &mut Pending, random: &mut Random) {
        if pending.waiting.is_empty() {
            return;
        }
        let at = random.below(pending.waiting.len() as u64) as usize;
        let (unit, mut bytes) = pending.waiting.remove(at);
        let strikes = random.below(12) == 0;
        let is_write = matches!(pending.kind, Kind::Write { .. });
        let mut place = unit;
        match self.defect {
            Defect::Loses if strikes && is_write => {
                self.struck += 1;
                return;
            }
            Defect::Tears if strikes && is_write => {
                let half = bytes.len() / 2;
                let before = self.unit(unit);
                if before != bytes {
                    self.struck += 1;
                    bytes[half..].copy_from_slice(&before[half..]);
                }
            }
            Defect::Misdirects if strikes && is_write => {
                self.struck += 1;
                place = (unit + 1) % self.terms.units;
            }
            Defect::Flips if strikes => {
                self.struck += 1;
                bytes[random.below(self.terms.unit_bytes() as u64) as usize] ^= 4;
            }
            _ => {}
        }
        match (self.defect, pending.kind) {
            (Defect::ReplaysWrite, Kind::Write { .. })
            | (Defect::ReplaysDiscard, Kind::Discard) => {
                self.old.push((place, bytes.clone()));
            }
            _ => {}
        }
        self.cache.push((place, bytes));
    }

    /// All of it takes effect: it can be acknowledged.
    pub fn finish(&mut self, mut pending: Pending, random: &mut Random) {
        while !pending.waiting.is_empty() {
            self.work(&mut pending, random);
        }
        if pending.kind == (Kind::Write { durable: true }) {
            if self.defect == Defect::IgnoresFua {
                self.struck += 1;
            } else {
                self.destage(|unit| pending.extent.has(unit));
            }
        }
        if !self.old.is_empty() && random.below(8) == 0 {
            let (unit, bytes) = self.old.swap_remove(random.below(self.old.len() as u64) as usize);
            if self.unit(unit) != bytes {
                self.struck += 1;
                self.cache.push((unit, bytes));
            }
        }
    }

    /// Puts everything that took effect onto the medium.
    pub fn flush(&mut self) {
        if self.defect == Defect::IgnoresFlush {
            self.struck += u32::from(!self.cache.is_empty());
        } else {
            self.destage(|_| true);
        }
    }

    /// What a unit has.
    pub fn unit(&self, unit: u64) -> Vec<u8> {
        let cached = self.cache.iter().rev().find(|(place, _)| *place == unit);
        cached.map_or_else(|| self.medium[unit as usize].clone(), |(_, bytes)| bytes.clone())
    }

    pub fn read(&self, extent: Extent) -> Vec<u8> {
        extent.units().flat_map(|unit| self.unit(unit)).collect()
    }

    /// The power goes: of each unit's writes in the cache the last ones may be gone, and the others may have been passed over.
    pub fn cut(&mut self, random: &mut Random) {
        for unit in 0..self.terms.units {
            let theirs: Vec<Vec<u8>> =
                self.cache.iter().filter(|(at, _)| *at == unit).map(|(_, b)| b.clone()).collect();
            let kept = random.below(theirs.len() as u64 + 1) as usize;
            if let Some(bytes) = kept.checked_sub(1).and_then(|at| theirs.get(at)) {
                self.medium[unit as usize].clone_from(bytes);
            }
        }
        self.cache.clear();
    }

    fn destage(&mut self, which: impl Fn(u64) -> bool) {
        for (unit, bytes) in std::mem::take(&mut self.cache) {
            if which(unit) {
                self.medium[unit as usize] = bytes;
            } else {
                self.cache.push((unit, bytes));
            }
        }
    }
}
