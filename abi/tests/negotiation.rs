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
fn a_payload_may_need_all_the_scratch_that_there_is_and_no_more() {
    let with = |scratch_bytes| negotiate(&Offer::ATOM, &Offer { scratch_bytes, ..payload() });
    assert!(with(Offer::ATOM.scratch_bytes).is_ok());
    let refusal = with(Offer::ATOM.scratch_bytes + 1).map_err(|refusal| refusal.code);
    assert_eq!(refusal, Err(reason::SCRATCH));
}

#[test]
fn a_capability_that_one_side_needs_has_to_be_offered_by_the_other_whatever_that_one_needs() {
    let offer = |requires, provides| Offer { requires, provides, ..payload() };
    let (one, both) = (caps::REISSUE, caps::REISSUE | caps::EVENTS);
    for (atom, payload, wanted) in [
        (offer(one, 0), offer(0, one), Ok(0)),
        (offer(one, one), offer(one, one), Ok(one)),
        (offer(0, both), offer(one, both), Ok(both)),
        (offer(0, both), offer(one, 0), Ok(one)),
        (offer(one, 0), offer(0, 0), Err(one)),
        (offer(both, 0), offer(0, one), Err(caps::EVENTS)),
        (offer(0, one), offer(both, 0), Err(caps::EVENTS)),
        (offer(one, 0), offer(one, 0), Err(one)),
    ] {
        let result = negotiate(&atom, &payload);
        let wanted = wanted.map_err(|missing| (reason::CAPABILITY, missing));
        let result =
            result.map(|agreed| agreed.caps).map_err(|refusal| (refusal.code, refusal.found));
        assert_eq!(result, wanted, "{atom:?} and {payload:?}");
    }
}

#[test]
fn a_refusal_names_both_sides() {
    let text = refusal(|offer| offer.abi.major = 99).to_string();
    assert!(text.contains("99") && text.contains("1.x"), "{text}");
    let plain = Offer { provides: caps::OFFERED & !caps::REISSUE, ..Offer::ATOM };
    let needy = Offer { requires: caps::DEVICES | caps::REISSUE | 1 << 63, ..payload() };
    let text = negotiate(&plain, &needy).expect_err("two are missing").to_string();
    assert!(text.ends_with("requires: reissue bit 63"), "these two and no other: {text}");
}

#[test]
fn every_capability_that_is_offered_has_a_name_of_its_own() {
    let bits = (0..64).map(|shift| 1u64 << shift).filter(|bit| caps::OFFERED & bit != 0);
    let names: Vec<_> = bits.map(caps::name).collect();
    assert_eq!(names.len(), 12);
    assert!(!names.contains(&"unknown"), "{names:?}");
    let different: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(different.len(), names.len());
}

#[test]
fn a_client_is_refused_by_an_atom_of_1_1_for_its_minor_and_not_only_for_what_it_lacks() {
    let client_abi = AbiRange { minor_min: 2, ..AbiRange::CURRENT };
    let needs = caps::SLEEPING_DISPATCH | caps::BIO_ENDS | caps::EVENTS;
    let client = Offer { abi: client_abi, requires: needs, ..payload() };
    let minor_with = |minor_max| {
        let atom = Offer { abi: AbiRange { minor_max, ..AbiRange::CURRENT }, ..Offer::ATOM };
        negotiate(&atom, &client).map(|agreement| agreement.minor)
    };
    assert_eq!((minor_with(2), minor_with(3)), (Ok(2), Ok(3)));
    let before = AbiRange { minor_max: 1, ..AbiRange::CURRENT };
    let old = Offer { abi: before, provides: caps::OFFERED & !needs, ..Offer::ATOM };
    let refused = negotiate(&old, &client);
    assert_eq!(refused.map_err(|refusal| refusal.code), Err(reason::ABI_MINOR));
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

#[test]
fn two_payloads_meet_at_the_newest_schema_that_one_writes_and_the_other_reads_or_not_at_all() {
    let ranges = || (1..=4u32).flat_map(|min| (min..=4).map(move |max| (min, max)));
    let (mut met, mut refused) = (0, 0);
    for written in ranges() {
        for read in ranges() {
            // What the one reads and the other writes is of no matter, and would change the result.
            let (from, to) = (schemas((9, 9), written), schemas(read, (1, 1)));
            let both = |schema: &u32| {
                (written.0..=written.1).contains(schema) && (read.0..=read.1).contains(schema)
            };
            let wanted = (1..=4).rev().find(both);
            assert_eq!(common_schema(&from, &to).ok(), wanted, "{written:?} and {read:?}");
            *if wanted.is_some() { &mut met } else { &mut refused } += 1;
        }
    }
    assert_eq!((met, refused), (70, 30));
}

#[test]
fn a_payload_reads_the_schemas_of_its_range_and_names_it_when_it_refuses_another() {
    let range = schemas((3, 5), (1, 9));
    for schema in 0..8 {
        let wanted = match schema {
            3..=5 => Ok(()),
            _ => Err(Refusal::new(reason::SCHEMA, schema.into(), 5 << 32 | 3)),
        };
        assert_eq!(range.reads(schema), wanted, "{schema}");
    }
    let text = range.refuses(8).to_string();
    assert!(text.contains("schema 8") && text.contains("reads 3 to 5"), "{text}");
}

/// What a side that knows the minors from `min` to `max` brings; each minor has one capability of its own.
fn minors(min: u16, max: u16) -> Offer {
    let abi = AbiRange { minor_min: min, minor_max: max, ..AbiRange::CURRENT };
    Offer { abi, requires: 0, provides: (1 << (max + 1)) - 1, ..Offer::ATOM }
}

#[test]
fn two_sides_meet_at_the_newest_minor_that_both_know_or_not_at_all() {
    let ranges = || (0..=3u16).flat_map(|min| (min..=3).map(move |max| (min, max)));
    let (mut met, mut refused) = (0, 0);
    for (atom_min, atom_max) in ranges() {
        for (min, max) in ranges() {
            let common = (0..=3)
                .rev()
                .find(|minor| (atom_min..=atom_max).contains(minor) && (min..=max).contains(minor));
            let pair = format!("Atom {atom_min} to {atom_max}, payload {min} to {max}");
            match (negotiate(&minors(atom_min, atom_max), &minors(min, max)), common) {
                (Ok(agreement), Some(minor)) => {
                    assert_eq!(agreement.minor, minor, "{pair}");
                    let known = (1 << (atom_max.min(max) + 1)) - 1;
                    assert_eq!(agreement.caps, known, "{pair}");
                    met += 1;
                }
                (Err(refusal), None) => {
                    let wanted = Refusal::new(reason::ABI_MINOR, atom_max.into(), min.into());
                    assert_eq!(refusal, wanted, "{pair}");
                    refused += 1;
                }
                (result, _) => panic!("{pair}: {result:?}"),
            }
        }
    }
    // Of the 100 pairs of ranges in 0..=3, 30 have nothing in common.
    assert_eq!((met, refused), (70, 30));
}

#[test]
fn every_reason_has_words_of_its_own() {
    let texts: std::collections::BTreeSet<String> =
        (0..=24).map(|code| Refusal::new(code, 4, 5).to_string()).collect();
    assert_eq!(texts.len(), 25);
    let unknown = |code| Refusal::new(code, 4, 5).to_string().contains("refused with code");
    assert!((0..=23).all(|code| !unknown(code)), "each code is known");
    assert!(unknown(24), "and there is no other");
}

#[test]
fn the_reasons_of_a_deadline_say_what_is_owed_and_what_the_payload_said() {
    let text = |code, expected, found| Refusal::new(code, expected, found).to_string();
    let without = text(reason::NO_PROMISE, 3, 0);
    assert!(without.contains("3 requests") && without.contains("does not offer"), "{without}");
    let failed = text(reason::NO_PROMISE, 3, 16);
    assert!(failed.contains("3 requests") && failed.contains("error 16"), "{failed}");
    assert_ne!(without, failed);
    assert!(text(reason::DIED, 0, 7).contains("payload 7"));
    assert!(text(reason::DEAD, 0, 7).contains("payload 7"));
    assert!(text(reason::NO_CHECKPOINT, 0, 0).contains("checkpoint"));
    assert!(text(reason::NOBODY, 0, 0).contains("nobody"));
}
