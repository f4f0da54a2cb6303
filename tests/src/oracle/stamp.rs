// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What stands in a sector: which write it is of, and whether it is whole.
//!
//! A header names volume, sector, sequence and generation, with a CRC-32C over it. The rest of the sector follows from the
//! header, so that a wrong byte anywhere is noticed, and no two stamps look alike.

use atom_abi::crc32c;

use crate::random::Random;

/// Bytes of a sector, as the block layer counts.
pub const SECTOR: usize = 512;
/// "ATOMORCL".
const MAGIC: u64 = u64::from_le_bytes(*b"ATOMORCL");
/// Bytes that the checksum covers, and of the header with it.
const COVERED: usize = 40;
const HEADER: usize = 48;

/// What a sector says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// The run of the oracle that wrote it.
    pub volume: u64,
    /// Where it was to be written, in sectors.
    pub sector: u64,
    /// The write, a number of its own in the volume.
    pub sequence: u64,
    /// The boot or the upgrade in which it was issued.
    pub generation: u64,
}

/// What was found in a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeroes.
    Zeroes,
    /// A whole sector that somebody has stamped.
    Stamped(Stamp),
    /// Neither.
    Garbage,
}

impl Stamp {
    /// Fills a sector.
    pub fn write(&self, sector: &mut [u8]) {
        let mut random = Random::mixed(&[self.volume, self.sector, self.sequence, self.generation]);
        for (at, place) in sector.chunks_exact_mut(8).enumerate() {
            let word = match at {
                0 => MAGIC,
                1 => self.volume,
                2 => self.sector,
                3 => self.sequence,
                4 => self.generation,
                _ => random.number(),
            };
            place.copy_from_slice(&word.to_le_bytes());
        }
        if let Some((covered, rest)) = sector.split_at_mut_checked(COVERED) {
            let crc = u64::from(crc32c::crc32c(covered));
            if let Some(place) = rest.get_mut(..HEADER - COVERED) {
                place.copy_from_slice(&crc.to_le_bytes());
            }
        }
    }

    /// What stands in a sector.
    pub fn read(sector: &[u8]) -> Content {
        if sector.iter().all(|byte| *byte == 0) {
            return Content::Zeroes;
        }
        let word = |at: usize| {
            let bytes = sector.get(at * 8..at * 8 + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u64::from_le_bytes)
        };
        let (Some(MAGIC), Some(volume), Some(place), Some(sequence), Some(generation)) =
            (word(0), word(1), word(2), word(3), word(4))
        else {
            return Content::Garbage;
        };
        let stamp = Self { volume, sector: place, sequence, generation };
        let mut wanted = vec![0; sector.len()];
        stamp.write(&mut wanted);
        match wanted == sector {
            true => Content::Stamped(stamp),
            false => Content::Garbage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { volume: 7, sector: 8, sequence: 9, generation: 10 };

    #[test]
    fn a_stamp_is_read_as_it_was_written_and_no_wrong_bit_is_passed_over() {
        let mut sector = [0; SECTOR];
        assert_eq!(Stamp::read(&sector), Content::Zeroes);
        STAMP.write(&mut sector);
        assert_eq!(Stamp::read(&sector), Content::Stamped(STAMP));
        for bit in 0..SECTOR * 8 {
            sector[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Stamp::read(&sector), Content::Garbage, "bit {bit}");
            sector[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(Stamp::read(&sector[..20]), Content::Garbage, "a short one");
    }

    #[test]
    fn stamps_differ_in_their_whole_length() {
        let bytes = |stamp: Stamp| {
            let mut sector = [0; SECTOR];
            stamp.write(&mut sector);
            sector
        };
        let one = bytes(STAMP);
        for other in [
            Stamp { volume: 1, ..STAMP },
            Stamp { sector: 1, ..STAMP },
            Stamp { sequence: 1, ..STAMP },
            Stamp { generation: 1, ..STAMP },
        ] {
            let other = bytes(other);
            assert!(one[HEADER..].chunks(8).zip(other[HEADER..].chunks(8)).all(|(a, b)| a != b));
        }
    }
}
