// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The reader of images: the bytes as they are, and within a frame that fits.

#![no_main]

use atom_abi::image::{record_bytes, Image, HEADER_BYTES, TRAILER_BYTES};
use atom_fuzz::{budget, frame};
use libfuzzer_sys::fuzz_target;

fn read(bytes: &[u8]) {
    let Ok(image) = budget::within(0, || Image::parse(bytes)) else { return };
    let mut used = HEADER_BYTES + TRAILER_BYTES;
    for record in image.records() {
        used += record_bytes(record.bytes.len());
        assert!(bytes.as_ptr_range().contains(&record.bytes.as_ptr()) || record.bytes.is_empty());
    }
    assert!(used <= bytes.len(), "records of {used} bytes in an image of {}", bytes.len());
    assert!(image.producer().as_str().len() <= atom_abi::text::TEXT_BYTES);
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    if let Some(sealed) = frame::sealed(bytes) {
        read(&sealed);
    }
});
