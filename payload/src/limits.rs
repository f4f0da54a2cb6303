// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What the limits of targets make of the device above them. Pure.

use super::abi::device::{feature, DeviceSpec};
use super::abi::image::{Fields, ImageError};
use super::shape::{MAX_CLEAR_SECTORS, MAX_TRANSFER_SECTORS, PAGE_BYTES};
use super::spec::Layout;

/// Bytes of encoded [`Facts`] and of encoded [`Limits`].
pub const FACTS_BYTES: usize = 48;
/// Bytes of encoded [`Limits`].
pub const LIMITS_BYTES: usize = 48;
/// Longest discard and write-zeroes of any device, in sectors: a request counts its bytes in 32 bits.
pub const MAX_RANGE_SECTORS: u32 = (u32::MAX >> 9) & !2047;

/// What a target can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Sectors of 512 bytes that it has.
    pub sectors: u64,
    /// Its smallest unit of addressing, in bytes.
    pub logical_block_bytes: u32,
    /// Its smallest unit of writing without reading first, in bytes.
    pub physical_block_bytes: u32,
    /// Its smallest I/O that is not slow, in bytes; 0: unknown.
    pub io_min_bytes: u32,
    /// Its best length of I/O, in bytes; 0: unknown.
    pub io_opt_bytes: u32,
    /// Its longest I/O, in sectors; 0: any.
    pub max_sectors: u32,
    /// Granularity of its discard, in bytes; 0: it has none.
    pub discard_granularity_bytes: u32,
    /// Its longest discard, in sectors.
    pub max_discard_sectors: u32,
    /// Its longest write-zeroes, in sectors; 0: it has none.
    pub max_write_zeroes_sectors: u32,
    /// The bits of an address that must be zero.
    pub dma_alignment_mask: u32,
    /// Bits of [`feature`].
    pub features: u32,
}

impl Facts {
    /// Those of a target that keeps `sectors` in memory, or nothing at all.
    pub const fn of_memory(sectors: u64) -> Self {
        Self {
            sectors,
            logical_block_bytes: 512,
            physical_block_bytes: PAGE_BYTES,
            io_min_bytes: 0,
            io_opt_bytes: 0,
            max_sectors: 0,
            discard_granularity_bytes: PAGE_BYTES,
            max_discard_sectors: MAX_CLEAR_SECTORS,
            max_write_zeroes_sectors: MAX_CLEAR_SECTORS,
            dma_alignment_mask: 0,
            features: feature::FUA,
        }
    }

    /// Their bytes in answers.
    pub fn to_bytes(self) -> [u8; FACTS_BYTES] {
        numbers(
            self.sectors,
            [
                self.logical_block_bytes,
                self.physical_block_bytes,
                self.io_min_bytes,
                self.io_opt_bytes,
                self.max_sectors,
                self.discard_granularity_bytes,
                self.max_discard_sectors,
                self.max_write_zeroes_sectors,
                self.dma_alignment_mask,
                self.features,
            ],
        )
    }

    /// Reads them.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Self, ImageError> {
        Ok(Self {
            sectors: fields.u64()?,
            logical_block_bytes: fields.u32()?,
            physical_block_bytes: fields.u32()?,
            io_min_bytes: fields.u32()?,
            io_opt_bytes: fields.u32()?,
            max_sectors: fields.u32()?,
            discard_granularity_bytes: fields.u32()?,
            max_discard_sectors: fields.u32()?,
            max_write_zeroes_sectors: fields.u32()?,
            dma_alignment_mask: fields.u32()?,
            features: fields.u32()?,
        })
    }
}

fn numbers(first: u64, rest: [u32; 10]) -> [u8; 48] {
    let mut bytes = [0; 48];
    let (start, end) = bytes.split_at_mut(8);
    start.copy_from_slice(&first.to_le_bytes());
    for (place, number) in end.chunks_exact_mut(4).zip(rest) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// The limits of a device over targets, apart from its capacity and queues. They are part of the image,
/// because the block layer keeps to those that the device was made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Smallest unit of addressing, in bytes.
    pub logical_block_bytes: u32,
    /// Smallest unit of writing without reading first, in bytes.
    pub physical_block_bytes: u32,
    /// Smallest I/O that is not slow, in bytes; 0: unknown.
    pub io_min_bytes: u32,
    /// Best length of I/O, in bytes; 0: unknown.
    pub io_opt_bytes: u32,
    /// Longest read and write, in sectors.
    pub max_sectors: u32,
    /// Granularity of discard, in bytes; 0: there is none.
    pub discard_granularity_bytes: u32,
    /// Longest discard, in sectors.
    pub max_discard_sectors: u32,
    /// Longest write-zeroes, in sectors; 0: there is none.
    pub max_write_zeroes_sectors: u32,
    /// The bits of an address that must be zero; 0: the kernel's default.
    pub dma_alignment_mask: u32,
    /// No read or write crosses a multiple of it, in sectors; 0: it may.
    pub chunk_sectors: u32,
    /// Bits of [`feature`].
    pub features: u32,
}

impl Limits {
    /// The limits of a layout over targets. `block_bytes` is the smallest unit of addressing, or 0 for the
    /// largest of the targets. `Err` with the index of the target that does not fit.
    pub fn over(
        layout: Layout,
        block_bytes: u32,
        targets: impl Iterator<Item = Facts> + Clone,
    ) -> Result<Self, usize> {
        let chunk_sectors = match layout {
            Layout::Linear => 0,
            Layout::Stripe { chunk_sectors } => chunk_sectors,
        };
        let largest = |of: fn(&Facts) -> u32| targets.clone().map(|facts| of(&facts)).max();
        // What a limit of zero does not bind is left out.
        let smallest = |of: fn(&Facts) -> u32| {
            targets.clone().map(|facts| of(&facts)).filter(|limit| *limit != 0).min()
        };
        let all = |has: fn(&Facts) -> bool| targets.clone().all(|facts| has(&facts));
        let any = |has: fn(&Facts) -> bool| targets.clone().any(|facts| has(&facts));

        let needed = largest(|facts| facts.logical_block_bytes).unwrap_or(512).max(512);
        let logical_block_bytes = if block_bytes == 0 { needed } else { block_bytes };
        let too_large = |facts: Facts| facts.logical_block_bytes > logical_block_bytes;
        if let Some(target) = targets.clone().position(too_large) {
            return Err(target);
        }
        let physical = largest(|facts| facts.physical_block_bytes).unwrap_or(0);
        let discards =
            all(|facts| facts.discard_granularity_bytes != 0 && facts.max_discard_sectors != 0);
        let write_cache = any(|facts| facts.features & feature::WRITE_CACHE != 0);
        // A target without a cache has written whatever it says it has.
        let fua = all(|facts| {
            facts.features & feature::FUA != 0 || facts.features & feature::WRITE_CACHE == 0
        });
        let flag = |set: bool, bit: u32| if set { bit } else { 0 };
        let optimal = largest(|facts| facts.io_opt_bytes).unwrap_or(0);
        let max_sectors = smallest(|facts| facts.max_sectors).unwrap_or(MAX_TRANSFER_SECTORS);
        let in_blocks = |bytes: u32| whole(bytes, logical_block_bytes);
        let count = u32::try_from(targets.clone().count()).unwrap_or(1);
        Ok(Self {
            logical_block_bytes,
            physical_block_bytes: power_of_two(physical.max(logical_block_bytes)).min(1 << 20),
            io_min_bytes: match chunk_sectors {
                0 => in_blocks(largest(|facts| facts.io_min_bytes).unwrap_or(0)),
                chunk => chunk.saturating_mul(512),
            },
            io_opt_bytes: match chunk_sectors {
                0 => in_blocks(optimal),
                chunk => chunk.saturating_mul(512).checked_mul(count).unwrap_or(0),
            },
            max_sectors: max_sectors.clamp(8, MAX_TRANSFER_SECTORS),
            discard_granularity_bytes: match discards {
                true => {
                    let granularity = largest(|facts| facts.discard_granularity_bytes).unwrap_or(0);
                    granularity.checked_next_multiple_of(logical_block_bytes).unwrap_or(0)
                }
                false => 0,
            },
            max_discard_sectors: match discards {
                true => range(smallest(|facts| facts.max_discard_sectors), logical_block_bytes),
                false => 0,
            },
            max_write_zeroes_sectors: match all(|facts| facts.max_write_zeroes_sectors != 0) {
                true => {
                    range(smallest(|facts| facts.max_write_zeroes_sectors), logical_block_bytes)
                }
                false => 0,
            },
            // Only a power of two less one is a mask.
            dma_alignment_mask: match largest(|facts| facts.dma_alignment_mask).unwrap_or(0) {
                0 => 0,
                mask => power_of_two(mask.min(4095).saturating_add(1)).saturating_sub(1),
            }
            .min(4095),
            chunk_sectors,
            features: flag(write_cache, feature::WRITE_CACHE)
                | flag(write_cache && fua, feature::FUA)
                | flag(any(|facts| facts.features & feature::ROTATIONAL != 0), feature::ROTATIONAL)
                | flag(any(|facts| facts.features & feature::READ_ONLY != 0), feature::READ_ONLY),
        })
    }

    /// Their bytes in an image.
    pub fn to_bytes(self) -> [u8; LIMITS_BYTES] {
        numbers(
            u64::from(self.chunk_sectors) << 32 | u64::from(self.features),
            [
                self.logical_block_bytes,
                self.physical_block_bytes,
                self.io_min_bytes,
                self.io_opt_bytes,
                self.max_sectors,
                self.discard_granularity_bytes,
                self.max_discard_sectors,
                self.max_write_zeroes_sectors,
                self.dma_alignment_mask,
                0,
            ],
        )
    }

    /// Reads them. `Ok(None)` when a place that must be zero is not.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Option<Self>, ImageError> {
        let features = fields.u32()?;
        let chunk_sectors = fields.u32()?;
        let limits = Self {
            logical_block_bytes: fields.u32()?,
            physical_block_bytes: fields.u32()?,
            io_min_bytes: fields.u32()?,
            io_opt_bytes: fields.u32()?,
            max_sectors: fields.u32()?,
            discard_granularity_bytes: fields.u32()?,
            max_discard_sectors: fields.u32()?,
            max_write_zeroes_sectors: fields.u32()?,
            dma_alignment_mask: fields.u32()?,
            chunk_sectors,
            features,
        };
        Ok((fields.u32()? == 0).then_some(limits))
    }

    /// The device that they ask Atom for.
    pub fn spec(&self, capacity_sectors: u64, hw_queues: u16, queue_depth: u16) -> DeviceSpec {
        DeviceSpec {
            features: self.features,
            logical_block_bytes: self.logical_block_bytes,
            physical_block_bytes: self.physical_block_bytes,
            max_sectors: self.max_sectors,
            discard_granularity_bytes: self.discard_granularity_bytes,
            max_discard_sectors: self.max_discard_sectors,
            max_write_zeroes_sectors: self.max_write_zeroes_sectors,
            io_min_bytes: self.io_min_bytes,
            io_opt_bytes: self.io_opt_bytes,
            chunk_sectors: self.chunk_sectors,
            dma_alignment_mask: self.dma_alignment_mask,
            hw_queues,
            queue_depth,
            ..DeviceSpec::new(capacity_sectors)
        }
    }
}

/// The longest range, in whole blocks and no longer than a request can be.
fn range(smallest: Option<u32>, block_bytes: u32) -> u32 {
    let block_sectors = (block_bytes / 512).max(1);
    let most = smallest.unwrap_or(0).min(MAX_RANGE_SECTORS);
    whole(most, block_sectors).max(block_sectors)
}

/// The power of two that is not smaller.
fn power_of_two(number: u32) -> u32 {
    number.checked_next_power_of_two().unwrap_or(1 << 31)
}

/// As much of a length as is a multiple of a unit.
fn whole(length: u32, unit: u32) -> u32 {
    length.saturating_sub(length.checked_rem(unit).unwrap_or(0))
}
