// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Records that a version does not know survive the pass through it.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

mod samples;

use atom_abi::image::{record_bytes, Image, ImageError, Record, MANDATORY};
use atom_abi::text::Text;
use atom_abi::version::SchemaRange;
use atom_payload::carried::{bytes_in_image, pack, unpack, Load, MAX_BYTES, MAX_RECORDS};
use atom_payload::counts::Counts;
use atom_payload::shape::Description;
use atom_payload::state::{image_bytes, Export, Import, ImportError, KEY_COUNTS};
use proptest::prelude::*;
use samples::{counts, kept_counts, kept_volumes, volumes, NEXT_SERIAL};

const WIDE: SchemaRange = SchemaRange { read_min: 1, read_max: 3, write_min: 1, write_max: 3 };

type Owned = (u32, u16, u16, Vec<u8>);

fn record((key, version, flags, bytes): &Owned) -> Record<'_> {
    Record { key: *key, version: *version, flags: *flags, bytes }
}

/// The image of some volumes with other records behind them.
fn image(schema: u32, volumes: &[(Description, Counts)], others: &[Record<'_>]) -> Vec<u8> {
    let load = others.iter().fold(Load::default(), Load::with);
    let mut buffer = vec![0; image_bytes(schema, volumes.len()).unwrap() + load.bytes];
    let mut image =
        Export::new(&mut buffer, &Text::new("9.9.9"), schema, volumes.len(), NEXT_SERIAL).unwrap();
    for (volume, counts) in volumes {
        image.volume(volume, *counts).unwrap();
    }
    for record in others {
        image.other(record).unwrap();
    }
    assert_eq!(image.finish().unwrap(), buffer.len(), "the bound is exact");
    buffer
}

/// What a version does between *adopt* and *freeze*: it keeps what it has read, and packs the rest.
fn pass(bytes: &[u8], schema: u32) -> Vec<u8> {
    let import = Import::parse(bytes, &WIDE).unwrap();
    let mut memory = vec![0xa5; import.load.packed_bytes()];
    pack(import.carried(), &mut memory).unwrap();
    assert_eq!(bytes_in_image(&memory), import.load.bytes);
    let volumes: Vec<_> = import.volumes().collect();
    let others: Vec<_> = unpack(&memory).unwrap().collect();
    image(schema, &volumes, &others)
}

fn unknown() -> impl Strategy<Value = Vec<Owned>> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..200);
    let record = (4..u32::MAX, any::<u16>(), any::<u16>(), bytes)
        .prop_map(|(key, version, flags, bytes)| (key, version, flags & !MANDATORY, bytes));
    proptest::collection::vec(record, 0..=MAX_RECORDS)
}

proptest! {
    #[test]
    fn unknown_records_come_back_as_they_were_and_in_their_order(
        sample in volumes(counts()),
        others in unknown(),
        schemas in proptest::collection::vec(1..=3u32, 1..5),
    ) {
        let records: Vec<_> = others.iter().map(record).collect();
        let mut bytes = image(3, &sample, &records);
        for schema in schemas {
            bytes = pass(&bytes, schema);
        }
        let import = Import::parse(&bytes, &WIDE).unwrap();
        prop_assert_eq!(import.carried().collect::<Vec<_>>(), records);
        prop_assert_eq!(import.volumes().count(), sample.len());
    }

    #[test]
    fn a_record_that_the_caller_knows_is_not_carried(
        sample in volumes(counts()),
        others in unknown(),
        flags in 0..=1u16,
    ) {
        let known = (3, vec![1u8, 2, 3]);
        let own = Record { key: 0x7001, version: known.0, flags, bytes: &known.1 };
        let mut records: Vec<_> = others.iter().map(record).filter(|r| r.key != 0x7001).collect();
        let carried = records.clone();
        records.insert(records.len() / 2, own);
        prop_assume!(records.len() <= MAX_RECORDS);
        let bytes = image(2, &sample, &records);
        let import = Import::parse_with(&bytes, &WIDE, &[0x7001]).unwrap();
        prop_assert_eq!(import.carried().collect::<Vec<_>>(), carried);
        prop_assert_eq!(import.extra(0x7001).collect::<Vec<_>>(), [own]);
        let stranger = Import::parse(&bytes, &WIDE).map(|import| import.load.records);
        if flags == MANDATORY {
            prop_assert_eq!(stranger, Err(ImageError::UnknownRecord(0x7001).into()));
        } else {
            prop_assert_eq!(stranger, Ok(records.len()));
        }
    }

    #[test]
    fn hostile_packed_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let records = unpack(&bytes).map(|records| records.count());
        prop_assert_eq!(records.is_ok(), bytes.is_empty());
    }
}

fn refusal(records: &[Record<'_>]) -> Option<ImportError> {
    Import::parse(&image(1, &[], records), &WIDE).err()
}

#[test]
fn more_records_than_are_carried_along_refuse_the_image() {
    let small = Record { key: 9, version: 1, flags: 0, bytes: &[] };
    assert_eq!(refusal(&[small; MAX_RECORDS]), None);
    let too_many = refusal(&[small; MAX_RECORDS + 1]).unwrap();
    let load = Load { records: MAX_RECORDS + 1, bytes: (MAX_RECORDS + 1) * 16 };
    assert_eq!(too_many, ImportError::Unknown(load));
    let text = too_many.to_string();
    assert!(text.contains("65 optional records") && text.contains("at most 64"), "{text}");
}

#[test]
fn more_bytes_than_are_carried_along_refuse_the_image() {
    let content = vec![7; MAX_BYTES];
    let largest = MAX_BYTES - record_bytes(0);
    let record = |bytes: usize| Record { key: 9, version: 1, flags: 0, bytes: &content[..bytes] };
    assert_eq!(refusal(&[record(largest)]), None);
    let load = Load { records: 1, bytes: MAX_BYTES + 8 };
    assert_eq!(refusal(&[record(largest + 1)]), Some(ImportError::Unknown(load)));
}

#[test]
fn what_every_version_knows_is_written_once() {
    for schema in 1..=3 {
        let sample: Vec<_> = kept_volumes().into_iter().zip(kept_counts(schema)).collect();
        let bytes = pass(&pass(&image(schema, &sample, &[]), 3), schema);
        let keys: Vec<_> = Image::parse(&bytes).unwrap().records().map(|r| r.key).collect();
        assert_eq!(keys.iter().filter(|key| **key == KEY_COUNTS).count(), sample.len());
        assert_eq!(keys.len(), 1 + 2 * sample.len());
    }
}

#[test]
fn nothing_to_carry_needs_no_memory() {
    let bytes = image(1, &[], &[]);
    let import = Import::parse(&bytes, &WIDE).unwrap();
    assert_eq!(import.load.packed_bytes(), 0);
    pack(import.carried(), &mut []).unwrap();
    assert_eq!(unpack(&[]).unwrap().count(), 0);
    assert_eq!(bytes_in_image(&[]), 0);
}
