// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Who can work with whom.

use atom_abi::version::{
    caps, common_schema, negotiate, reason, AbiRange, Offer, Refusal, SchemaRange,
};

fn payload() -> Offer {
    Offer { provides: 0, requires: caps::DEVICES, scratch_bytes: 64, ..Offer::ATOM }
}

fn refusal(change: impl FnOnce(&mut Offer)) -> Refusal {
    let mut offer = payload();
    change(&mut offer);
    match negotiate(&Offer::ATOM, &offer) {
        Ok(agreement) => panic!("{offer:?} must not fit, and led to {agreement:?}"),
        Err(refusal) => refusal,
    }
}

fn schemas(read: (u32, u32), write: (u32, u32)) -> SchemaRange {
    SchemaRange { read_min: read.0, read_max: read.1, write_min: write.0, write_max: write.1 }
}

#[test]
fn a_payload_of_the_same_tree_is_admitted() {
    let agreement = negotiate(&Offer::ATOM, &payload()).expect("the offer fits");
    assert_eq!(agreement.minor, atom_abi::version::ABI_MINOR);
    assert_eq!(agreement.caps, caps::DEVICES);
}

#[test]
fn a_newer_payload_that_still_knows_our_minor_is_admitted_at_ours() {
    let mut offer = payload();
    offer.abi.minor_max = atom_abi::version::ABI_MINOR + 5;
    let agreement = negotiate(&Offer::ATOM, &offer).expect("the ranges meet");
    assert_eq!(agreement.minor, atom_abi::version::ABI_MINOR);
}

#[test]
fn each_thing_that_does_not_fit_has_a_reason_of_its_own() {
    assert_eq!(refusal(|offer| offer.abi.major = 99).code, reason::ABI_MAJOR);
    assert_eq!(
        refusal(|offer| {
            offer.abi = AbiRange { minor_min: 7, minor_max: 9, ..AbiRange::CURRENT }
        })
        .code,
        reason::ABI_MINOR
    );
    assert_eq!(refusal(|offer| offer.layout_hash ^= 1).code, reason::LAYOUT);
    assert_eq!(refusal(|offer| offer.requires |= 1 << 63).code, reason::CAPABILITY);
    assert_eq!(refusal(|offer| offer.scratch_bytes = 4096).code, reason::SCRATCH);
}

#[test]
fn a_refusal_names_both_sides() {
    let text = refusal(|offer| offer.abi.major = 99).to_string();
    assert!(text.contains("99") && text.contains("1.x"), "{text}");
    let text = refusal(|offer| offer.requires |= caps::REISSUE | 1 << 63).to_string();
    assert!(text.contains("reissue") && text.contains("bit 63"), "{text}");
}

#[test]
fn the_newest_schema_that_both_know_is_chosen() {
    let old = schemas((1, 1), (1, 1));
    let new = schemas((1, 2), (1, 2));
    assert_eq!(common_schema(&old, &new), Ok(1));
    assert_eq!(common_schema(&new, &old), Ok(1));
    assert_eq!(common_schema(&new, &new), Ok(2));
}

#[test]
fn payloads_without_a_common_schema_are_refused() {
    let old = schemas((1, 2), (1, 2));
    let far = schemas((9, 9), (9, 9));
    for (from, to) in [(&old, &far), (&far, &old)] {
        let refusal = common_schema(from, to).expect_err("the ranges do not meet");
        assert_eq!(refusal.code, reason::SCHEMA);
        let text = refusal.to_string();
        assert!(text.contains('2') && text.contains('9'), "{text}");
    }
}
