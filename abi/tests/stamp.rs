// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What a module file says of itself, byte for byte: tools of other versions read it.

use atom_abi::image::ImageError;
use atom_abi::stamp::{Stamp, MAGIC, STAMP_BYTES};
use atom_abi::text::Text;
use atom_abi::version::{AbiRange, Offer, SchemaRange};

/// Every number is one that none of the others has a byte of.
fn stamp() -> Stamp {
    let abi = AbiRange { major: 0x0201, minor_min: 0x0403, minor_max: 0x0605, reserved: 0 };
    let offer = Offer {
        abi,
        layout_hash: 0x1817_1615_1413_1211,
        provides: 0x2827_2625_2423_2221,
        requires: 0x3837_3635_3433_3231,
        scratch_bytes: 0x4443_4241,
    };
    let schema = SchemaRange {
        read_min: 0x5453_5251,
        read_max: 0x5857_5655,
        write_min: 0x6463_6261,
        write_max: 0x6867_6665,
    };
    Stamp { offer, schema, version: Text::new("1.2.0") }
}

/// The same as it stands in a module file.
fn bytes() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 2, 3, 4, 5, 6, 0, 0]);
    for number in [0x11, 0x21, 0x31] {
        bytes.extend(number..number + 8);
    }
    bytes.extend([0x41, 0x42, 0x43, 0x44, 0, 0, 0, 0]);
    bytes.extend(0x51..0x59);
    bytes.extend(0x61..0x69);
    bytes.extend(b"1.2.0");
    bytes.resize(8 + 8 + 24 + 8 + 16 + 64, 0);
    bytes
}

#[test]
fn a_stamp_is_written_as_every_tool_reads_it() {
    assert_eq!(stamp().to_bytes().to_vec(), bytes());
    assert_eq!(STAMP_BYTES, 128);
}

#[test]
fn what_is_written_is_read_whatever_follows_in_the_section() {
    assert_eq!(Stamp::parse(&bytes()), Ok(stamp()));
    let mut longer = bytes();
    longer.extend([0xa5; 40]);
    assert_eq!(Stamp::parse(&longer), Ok(stamp()));
}

#[test]
fn a_section_that_ends_early_is_refused_wherever_it_ends() {
    for length in 0..STAMP_BYTES {
        assert_eq!(Stamp::parse(&bytes()[..length]), Err(ImageError::Truncated), "{length}");
    }
}

#[test]
fn what_does_not_begin_as_a_stamp_is_none() {
    for at in 0..MAGIC.len() {
        let mut other = bytes();
        other[at] ^= 1;
        assert_eq!(Stamp::parse(&other), Err(ImageError::NotAnImage), "byte {at}");
    }
}
