// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! CRC-32C (Castagnoli, reflected, as in RFC 3720), which guards an image.

/// Bytes that are folded at a time.
const SLICE: usize = 8;

/// Of each byte value what it leaves in the checksum when so many zero bytes follow it.
static TABLES: [[u32; 256]; SLICE] = tables();

const fn tables() -> [[u32; 256]; SLICE] {
    let mut tables = [[0; 256]; SLICE];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { 0x82f6_3b78 ^ (value >> 1) } else { value >> 1 };
            bit += 1;
        }
        tables[0][index] = value;
        index += 1;
    }
    let mut after = 1;
    while after < SLICE {
        let mut index = 0;
        while index < 256 {
            let before = tables[after - 1][index];
            tables[after][index] = tables[0][(before & 0xff) as usize] ^ (before >> 8);
            index += 1;
        }
        after += 1;
    }
    tables
}

/// The entry of a table for the lowest byte of a word.
#[inline]
const fn entry(table: &[u32; 256], word: u64) -> u32 {
    // The index is below 256 by construction; the mask lets the compiler see it.
    table[(word & 0xff) as usize]
}

/// The checksum of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    let mut slices = bytes.chunks_exact(SLICE);
    let [t0, t1, t2, t3, t4, t5, t6, t7] = &TABLES;
    for slice in &mut slices {
        // Each has as many bytes as that.
        let slice = <[u8; SLICE]>::try_from(slice).unwrap_or_default();
        let word = u64::from_le_bytes(slice) ^ u64::from(crc);
        crc = entry(t7, word)
            ^ entry(t6, word >> 8)
            ^ entry(t5, word >> 16)
            ^ entry(t4, word >> 24)
            ^ entry(t3, word >> 32)
            ^ entry(t2, word >> 40)
            ^ entry(t1, word >> 48)
            ^ entry(t0, word >> 56);
    }
    for byte in slices.remainder() {
        crc = entry(t0, u64::from(crc ^ u32::from(*byte))) ^ (crc >> 8);
    }
    !crc
}
