// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A frame that fits: total length, number of records and checksum of an image are made right, so that what is
//! behind them is reached. Everything else stays as the fuzzer made it.

use atom_abi::crc32c::crc32c;
use atom_abi::image::{record_bytes, HEADER_BYTES, TRAILER_BYTES};

/// Where the total length stands in an image.
const TOTAL: usize = 80;
/// Where the number of records stands in an image.
const RECORDS: usize = 88;
/// Where the length of a record stands in it.
const LENGTH: usize = 8;

/// The image that `bytes` would be with a right frame; `None` when they are shorter than an empty one.
pub fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let body = bytes.len().checked_sub(TRAILER_BYTES)?;
    if body < HEADER_BYTES {
        return None;
    }
    let mut image = bytes.to_vec();
    image[TOTAL..RECORDS].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    image[RECORDS..RECORDS + 4].copy_from_slice(&records(&bytes[HEADER_BYTES..body]).to_le_bytes());
    let crc = crc32c(&image[..body]);
    image[body..body + 4].copy_from_slice(&crc.to_le_bytes());
    Some(image)
}

/// Counts records by their lengths, up to the first that does not fit.
fn records(mut rest: &[u8]) -> u32 {
    let mut count = 0;
    while let Some(length) = rest.get(LENGTH..LENGTH + 8) {
        let length = u64::from_le_bytes(length.try_into().unwrap_or_default());
        count += 1;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        match rest.get(record_bytes(length)..) {
            Some(behind) if length < rest.len() => rest = behind,
            _ => break,
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use atom_abi::image::{Image, Writer};
    use atom_abi::text::Text;

    use super::*;

    #[test]
    fn a_damaged_frame_fits_again_and_what_it_holds_is_as_before() {
        let mut bytes = vec![0; 512];
        let mut writer = Writer::new(&mut bytes, &Text::new("1.0.0"), 2).unwrap();
        writer.record(5, 1, 0, &[b"abc"]).unwrap();
        writer.record(6, 1, 0, &[]).unwrap();
        let length = writer.finish().unwrap();
        bytes.truncate(length);
        let mut damaged = bytes.clone();
        damaged[TOTAL..HEADER_BYTES - 4].fill(0xff);
        damaged[length - TRAILER_BYTES] ^= 1;
        assert!(Image::parse(&damaged).is_err());
        assert_eq!(sealed(&damaged).unwrap(), bytes);
    }

    #[test]
    fn what_is_too_short_for_a_frame_gets_none() {
        assert_eq!(sealed(&[0; HEADER_BYTES + TRAILER_BYTES - 1]), None);
    }
}
