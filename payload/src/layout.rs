// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Which sectors of a volume lie where on its targets. Pure.

use super::abi::request::op;
use super::spec::{Layout, MAX_TARGETS};

/// A layout over targets whose sizes are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Map {
    layout: Layout,
    count: usize,
    /// Linear: the sector of the volume behind the last one of each target. Stripe: the capacity.
    ends: [u64; MAX_TARGETS],
}

/// What is asked of a target, and what it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Share {
    /// Sectors that it is to give; 0: as many as it can.
    pub asked: u64,
    /// Sectors that it has.
    pub has: u64,
}

/// Why a target cannot give its share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misfit {
    /// It has fewer sectors than it is to give.
    TooSmall,
    /// It is to give a number of sectors that is no multiple of this.
    NotWhole(u64),
    /// It is to give another number of sectors than the target before it, in a stripe.
    Unequal,
    /// It has not even one block or chunk.
    Empty,
}

/// The sectors that each target gives. `Err` with the index of the target that does not fit.
///
/// `block_bytes` is the smallest unit of addressing of the volume.
pub fn share(
    layout: Layout,
    block_bytes: u32,
    shares: &[Share],
) -> Result<[u64; MAX_TARGETS], (usize, Misfit)> {
    let unit = match layout {
        Layout::Linear => u64::from(block_bytes / 512).max(1),
        Layout::Stripe { chunk_sectors } => u64::from(chunk_sectors).max(1),
    };
    let whole = |sectors: u64| sectors.saturating_sub(sectors.checked_rem(unit).unwrap_or(0));
    let mut given = [0; MAX_TARGETS];
    let wanted = shares.iter().map(|share| share.asked).find(|asked| *asked != 0);
    let least = shares.iter().map(|share| share.has).min().unwrap_or(0);
    for (at, (place, share)) in given.iter_mut().zip(shares).enumerate() {
        let sectors = match (share.asked, layout) {
            (0, Layout::Linear) => whole(share.has),
            (0, Layout::Stripe { .. }) => wanted.unwrap_or(whole(least)),
            (asked, Layout::Stripe { .. }) if wanted != Some(asked) => {
                return Err((at, Misfit::Unequal));
            }
            (asked, _) => asked,
        };
        match sectors {
            0 => return Err((at, Misfit::Empty)),
            _ if whole(sectors) != sectors => return Err((at, Misfit::NotWhole(unit))),
            _ if sectors > share.has => return Err((at, Misfit::TooSmall)),
            _ => *place = sectors,
        }
    }
    Ok(given)
}

/// A part of a request that one target carries out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Index of the target.
    pub target: usize,
    /// First sector on the target.
    pub sector: u64,
    /// How many sectors; 0 for a flush.
    pub sectors: u64,
    /// Sectors of the request before its data; 0 for a request without data.
    pub skip: u64,
    /// Where to go on.
    pub next: u64,
}

impl Map {
    /// A layout over targets that give so many sectors each. `None` when there are too few or too many
    /// targets, when one gives nothing, when those of a stripe do not give the same number of whole
    /// chunks, or when the capacity is more than a device can have.
    pub fn new(layout: Layout, sectors: impl ExactSizeIterator<Item = u64>) -> Option<Self> {
        let count = sectors.len();
        if !(1..=MAX_TARGETS).contains(&count) {
            return None;
        }
        let mut ends = [0; MAX_TARGETS];
        let mut end = 0u64;
        let mut first = None;
        for (place, sectors) in ends.iter_mut().zip(sectors) {
            let whole = match layout {
                Layout::Linear => sectors != 0,
                Layout::Stripe { chunk_sectors } => {
                    sectors != 0
                        && sectors.checked_rem(chunk_sectors.into()) == Some(0)
                        && *first.get_or_insert(sectors) == sectors
                }
            };
            end = end.checked_add(sectors).filter(|_| whole)?;
            *place = end;
        }
        (end <= i64::MAX as u64 / 512).then_some(Self { layout, count, ends })
    }

    /// How many targets there are.
    pub fn targets(&self) -> usize {
        self.count
    }

    /// Sectors of the volume.
    pub fn capacity(&self) -> u64 {
        self.count.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or(0)
    }

    /// The part with which a request begins (`at` 0) or goes on ([`Part::next`] of the one before).
    /// `None` behind the last one. Where several targets have a write cache, a flush goes to each: the
    /// caller leaves out those that have none.
    #[inline]
    pub fn part(&self, code: u8, sector: u64, sectors: u64, at: u64) -> Option<Part> {
        match (code, self.layout) {
            (op::FLUSH, _) => {
                let target = usize::try_from(at).ok().filter(|target| *target < self.count)?;
                let next = at.checked_add(1)?;
                Some(Part { target, sector: 0, sectors: 0, skip: 0, next })
            }
            (op::DISCARD | op::WRITE_ZEROES, Layout::Stripe { chunk_sectors }) => {
                self.clear(chunk_sectors, sector, sectors, at)
            }
            _ => self.transfer(sector, sectors, at),
        }
    }

    fn transfer(&self, sector: u64, sectors: u64, at: u64) -> Option<Part> {
        let left = sectors.checked_sub(at).filter(|left| *left != 0)?;
        let from = sector.checked_add(at)?;
        let (target, on_target, room) = self.place(from)?;
        let sectors = left.min(room);
        Some(Part { target, sector: on_target, sectors, skip: at, next: at.checked_add(sectors)? })
    }

    /// Target and sector of a sector of the volume, and how many follow it there.
    pub fn place(&self, sector: u64) -> Option<(usize, u64, u64)> {
        if sector >= self.capacity() {
            return None;
        }
        match self.layout {
            Layout::Linear => {
                let ends = self.ends.get(..self.count)?;
                let target = ends.iter().position(|end| sector < *end)?;
                let start = match target.checked_sub(1) {
                    Some(before) => *ends.get(before)?,
                    None => 0,
                };
                let room = ends.get(target)?.checked_sub(sector)?;
                Some((target, sector.checked_sub(start)?, room))
            }
            Layout::Stripe { chunk_sectors } => {
                let chunk = u64::from(chunk_sectors);
                let (number, within) = (sector.checked_div(chunk)?, sector.checked_rem(chunk)?);
                let count = self.count as u64;
                let (row, target) = (number.checked_div(count)?, number.checked_rem(count)?);
                let on_target = row.checked_mul(chunk)?.checked_add(within)?;
                Some((target as usize, on_target, chunk.checked_sub(within)?))
            }
        }
    }

    /// The range on one target of a range of a stripe: its chunks lie there one behind the other.
    fn clear(&self, chunk_sectors: u32, sector: u64, sectors: u64, at: u64) -> Option<Part> {
        let end = sector.checked_add(sectors)?;
        for target in at..self.count as u64 {
            let from = self.before(chunk_sectors, sector, target)?;
            let to = self.before(chunk_sectors, end, target)?;
            if from < to {
                let next = target.checked_add(1)?;
                let sectors = to.checked_sub(from)?;
                return Some(Part {
                    target: target as usize,
                    sector: from,
                    sectors,
                    skip: 0,
                    next,
                });
            }
        }
        None
    }

    /// How many sectors of a target belong to the sectors of a stripe before `sector`.
    fn before(&self, chunk_sectors: u32, sector: u64, target: u64) -> Option<u64> {
        let chunk = u64::from(chunk_sectors);
        let row = chunk.checked_mul(self.count as u64)?;
        let (rows, rest) = (sector.checked_div(row)?, sector.checked_rem(row)?);
        let within = rest.saturating_sub(target.checked_mul(chunk)?).min(chunk);
        rows.checked_mul(chunk)?.checked_add(within)
    }

    /// The sector of the volume that lies at a sector of a target.
    pub fn inverse(&self, target: usize, sector: u64) -> Option<u64> {
        let found = match self.layout {
            Layout::Linear => {
                let start = match target.checked_sub(1) {
                    Some(before) => *self.ends.get(before)?,
                    None => 0,
                };
                start.checked_add(sector)?
            }
            Layout::Stripe { chunk_sectors } => {
                let chunk = u64::from(chunk_sectors);
                let row = sector.checked_div(chunk)?.checked_mul(self.count as u64)?;
                let number = row.checked_add(target as u64)?;
                number.checked_mul(chunk)?.checked_add(sector.checked_rem(chunk)?)?
            }
        };
        match self.place(found)? {
            (same, at, _) if (same, at) == (target, sector) => Some(found),
            _ => None,
        }
    }
}
