// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The stamp of a payload's file, and the judgement of what it says.

#![no_main]

use atom_abi::stamp::{Stamp, STAMP_BYTES};
use atom_abi::version::{common_schema, negotiate, Offer, SchemaRange};
use atom_fuzz::budget;
use libfuzzer_sys::fuzz_target;

const LIVE: SchemaRange = SchemaRange { read_min: 1, read_max: 2, write_min: 1, write_max: 2 };

fuzz_target!(|bytes: &[u8]| {
    let Ok(stamp) = budget::within(0, || Stamp::parse(bytes)) else { return };
    // The reserved word is written as zero, whatever it was.
    let mut kept = stamp;
    kept.offer.abi.reserved = 0;
    assert_eq!(Stamp::parse(&stamp.to_bytes()), Ok(kept), "a stamp is written as it was read");
    assert!(bytes.len() >= STAMP_BYTES);
    match budget::within(0, || negotiate(&Offer::ATOM, &stamp.offer)) {
        Ok(agreement) => {
            assert!(agreement.minor <= Offer::ATOM.abi.minor_max);
            assert!(agreement.minor >= stamp.offer.abi.minor_min);
            assert_eq!(stamp.offer.requires & !agreement.caps, 0, "what is required is agreed");
        }
        Err(refusal) => assert!(!refusal.to_string().is_empty(), "a refusal has a reason"),
    }
    if let Ok(schema) = common_schema(&LIVE, &stamp.schema) {
        assert!(stamp.schema.reads(schema).is_ok(), "a common schema is one that is read");
        assert!((LIVE.write_min..=LIVE.write_max).contains(&schema));
    }
});
