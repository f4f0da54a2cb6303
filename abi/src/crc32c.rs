// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! CRC-32C (Castagnoli, reflected, as in RFC 3720), which guards an image.

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { 0x82f6_3b78 ^ (value >> 1) } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

/// The checksum of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let folded = bytes.iter().fold(u32::MAX, |crc, byte| {
        // The index is below 256 by construction; the mask lets the compiler see it.
        let index = ((crc ^ u32::from(*byte)) & 0xff) as usize;
        TABLE[index & 0xff] ^ (crc >> 8)
    });
    !folded
}
