// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The image: what is written is read, and nothing else is.

use atom_abi::crc32c::crc32c;
use atom_abi::image::{
    record_bytes, Image, ImageError, Record, Writer, HEADER_BYTES, MANDATORY, TRAILER_BYTES,
};
use atom_abi::text::Text;
use proptest::collection::vec;
use proptest::prelude::*;

type Owned = (u32, u16, Vec<u8>);

fn write(records: &[Owned], buffer: &mut [u8]) -> Result<usize, ImageError> {
    let mut writer = Writer::new(buffer, &Text::new("1.0.0"), 7)?;
    for (key, version, bytes) in records {
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        writer.record(*key, *version, MANDATORY, &[head, tail])?;
    }
    writer.finish()
}

fn image_of(records: &[Owned]) -> Vec<u8> {
    let exact = HEADER_BYTES
        + records.iter().map(|(_, _, bytes)| record_bytes(bytes.len())).sum::<usize>()
        + TRAILER_BYTES;
    let mut buffer = vec![0xa5; exact];
    assert_eq!(write(records, &mut buffer), Ok(exact));
    buffer
}

fn records() -> impl Strategy<Value = Vec<Owned>> {
    vec((any::<u32>(), any::<u16>(), vec(any::<u8>(), 0..200)), 0..12)
}

#[test]
fn the_checksum_is_the_castagnoli_one() {
    // RFC 3720, B.4: the check value of "123456789", and 32 bytes of zeroes.
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
}

/// The polynomial bit by bit, as the RFC defines it.
fn bit_by_bit(bytes: &[u8]) -> u32 {
    let folded = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                0x82f6_3b78 ^ (crc >> 1)
            } else {
                crc >> 1
            }
        })
    });
    !folded
}

#[test]
fn an_image_of_another_format_is_refused_by_its_number() {
    let mut image = image_of(&[]);
    image[8] = 9;
    assert_eq!(Image::parse(&image).err(), Some(ImageError::Format(9)));
}

#[test]
fn a_record_that_claims_more_than_there_is_is_refused_even_with_a_valid_checksum() {
    let mut image = image_of(&[(1, 1, vec![1, 2, 3])]);
    image[HEADER_BYTES + 8..HEADER_BYTES + 16].copy_from_slice(&u64::MAX.to_le_bytes());
    let body = image.len() - TRAILER_BYTES;
    let crc = crc32c(&image[..body]).to_le_bytes();
    image[body..body + 4].copy_from_slice(&crc);
    assert!(Image::parse(&image).is_err());
}

#[test]
fn a_record_count_that_lies_is_refused_even_with_a_valid_checksum() {
    let mut image = image_of(&[(1, 1, vec![])]);
    image[88] = 2;
    let body = image.len() - TRAILER_BYTES;
    let crc = crc32c(&image[..body]).to_le_bytes();
    image[body..body + 4].copy_from_slice(&crc);
    assert_eq!(Image::parse(&image).err(), Some(ImageError::Inconsistent));
}

#[test]
fn what_follows_an_image_is_not_looked_at() {
    let mut bytes = image_of(&[(1, 2, vec![3; 5])]);
    bytes.extend([0xa5; 100]);
    let image = Image::parse(&bytes).expect("the image is whole");
    let wanted = Record { key: 1, version: 2, flags: MANDATORY, bytes: &[3; 5] };
    assert_eq!(image.records().collect::<Vec<_>>(), [wanted]);
}

#[test]
fn an_image_is_at_least_its_header_and_its_trailer() {
    let empty = image_of(&[]);
    assert_eq!(empty.len(), HEADER_BYTES + TRAILER_BYTES);
    assert!(Image::parse(&empty).is_ok(), "one without records is whole");
    for total in 0..empty.len() {
        let mut short = empty.clone();
        short[80..88].copy_from_slice(&(total as u64).to_le_bytes());
        // A valid checksum, where it does not lie on what is looked at before.
        if let Some(body) = total.checked_sub(TRAILER_BYTES).filter(|body| *body >= 92) {
            let crc = crc32c(&short[..body]).to_le_bytes();
            short[body..body + 4].copy_from_slice(&crc);
        }
        let error = Image::parse(&short).err();
        assert_eq!(error, Some(ImageError::Inconsistent), "{total} bytes");
    }
}

#[test]
fn a_record_is_as_long_as_what_it_holds_up_to_the_next_eight_bytes() {
    for (length, bytes) in [(0, 16), (1, 24), (7, 24), (8, 24), (9, 32), (16, 32), (17, 40)] {
        assert_eq!(record_bytes(length), bytes, "{length}");
    }
    assert!(record_bytes(usize::MAX) >= usize::MAX - 7, "it is never too short for what there is");
}

proptest! {
    #[test]
    fn the_checksum_is_that_of_the_polynomial_whatever_the_length(bytes in vec(any::<u8>(), 0..70)) {
        prop_assert_eq!(crc32c(&bytes), bit_by_bit(&bytes));
    }

    #[test]
    fn what_is_written_is_read(records in records()) {
        let bytes = image_of(&records);
        let image = Image::parse(&bytes).expect("a fresh image is whole");
        prop_assert_eq!(image.schema(), 7);
        prop_assert_eq!(image.producer().as_str(), "1.0.0");
        let read: Vec<Owned> =
            image.records().map(|r| (r.key, r.version, r.bytes.to_vec())).collect();
        prop_assert_eq!(read, records);
    }

    #[test]
    fn one_byte_too_few_is_no_room_and_never_a_short_image(records in records()) {
        let exact = image_of(&records).len();
        let mut buffer = vec![0; exact - 1];
        prop_assert_eq!(write(&records, &mut buffer), Err(ImageError::NoRoom));
    }

    #[test]
    fn an_image_cut_short_anywhere_is_refused(records in records(), cut in any::<prop::sample::Index>()) {
        let bytes = image_of(&records);
        let cut = cut.index(bytes.len());
        prop_assert!(Image::parse(&bytes[..cut]).is_err());
    }

    #[test]
    fn any_flipped_bit_is_noticed(records in records(), at in any::<prop::sample::Index>(), bit in 0..8u32) {
        let mut bytes = image_of(&records);
        // The zero word behind the checksum is the only thing that carries nothing.
        let at = at.index(bytes.len() - 4);
        bytes[at] ^= 1 << bit;
        prop_assert!(Image::parse(&bytes).is_err());
    }

    #[test]
    fn noise_never_panics(bytes in vec(any::<u8>(), 0..400)) {
        if let Ok(image) = Image::parse(&bytes) {
            image.records().count();
        }
    }
}
