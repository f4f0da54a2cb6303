// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Export, import and migration of the volumes.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

mod samples;

use atom_abi::image::{record_bytes, ImageError, Writer, MANDATORY};
use atom_abi::text::Text;
use atom_abi::version::SchemaRange;
use atom_payload::counts::{Counts, Counts1, Counts2, COUNTS1_BYTES, COUNTS2_BYTES};
use atom_payload::shape::{Description, DESCRIPTION_BYTES, MAX_VOLUMES};
use atom_payload::state::{image_bytes, Export, Import, KEY_COUNTS, KEY_TABLE, KEY_VOLUME};
use proptest::prelude::*;
use samples::{counts1, counts2, volumes, NEXT_SERIAL};

const OLD: SchemaRange = range(1, 1);
const NEW: SchemaRange = range(1, 2);

const fn range(min: u32, max: u32) -> SchemaRange {
    SchemaRange { read_min: min, read_max: max, write_min: min, write_max: max }
}

fn export(schema: u32, volumes: impl ExactSizeIterator<Item = (Description, Counts)>) -> Vec<u8> {
    let mut buffer = vec![0xa5; image_bytes(schema, volumes.len()).unwrap()];
    let producer = Text::new("1.2.3");
    let count = volumes.len();
    let mut export = Export::new(&mut buffer, &producer, schema, count, NEXT_SERIAL).unwrap();
    for (volume, counts) in volumes {
        export.volume(&volume, counts).unwrap();
    }
    let used = export.finish().unwrap();
    assert_eq!(used, buffer.len(), "the bound is exact");
    buffer
}

fn import(bytes: &[u8], range: &SchemaRange) -> Vec<(Description, Counts)> {
    let import = Import::parse(bytes, range).unwrap();
    assert_eq!(import.next_serial, NEXT_SERIAL);
    let volumes: Vec<_> = import.volumes().collect();
    assert_eq!(volumes.len(), import.volumes);
    volumes
}

fn one(volumes: &[(Description, Counts1)]) -> Vec<(Description, Counts)> {
    volumes.iter().map(|(v, c)| (*v, Counts::One(*c))).collect()
}

fn two(volumes: &[(Description, Counts2)]) -> Vec<(Description, Counts)> {
    volumes.iter().map(|(v, c)| (*v, Counts::Two(*c))).collect()
}

proptest! {
    #[test]
    fn what_is_exported_is_imported_in_schema_1(sample in volumes(counts1())) {
        let image = export(1, one(&sample).into_iter());
        prop_assert_eq!(import(&image, &OLD), one(&sample));
        prop_assert_eq!(import(&image, &NEW), one(&sample));
    }

    #[test]
    fn what_is_exported_is_imported_in_schema_2(sample in volumes(counts2())) {
        let image = export(2, two(&sample).into_iter());
        prop_assert_eq!(import(&image, &NEW), two(&sample));
        prop_assert_eq!(
            Import::parse(&image, &OLD).map(|_| ()),
            Err(ImageError::Format(2))
        );
    }

    #[test]
    fn from_schema_1_to_2_and_back_keeps_what_schema_1_has(sample in volumes(counts1())) {
        let first = export(1, one(&sample).into_iter());
        let second = export(2, import(&first, &NEW).into_iter());
        let third = export(1, import(&second, &NEW).into_iter());
        prop_assert_eq!(first, third);
    }

    #[test]
    fn from_schema_2_to_1_adds_up_what_changes_data(counts in counts2()) {
        let old = Counts::Two(counts).as_one();
        prop_assert_eq!(old.reads, counts.ops[0].ios);
        let sum = u128::from(counts.ops[1].ios)
            + u128::from(counts.ops[3].ios)
            + u128::from(counts.ops[4].ios);
        prop_assert_eq!(old.writes, u64::try_from(sum).unwrap_or(u64::MAX));
    }

    #[test]
    fn hostile_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(Import::parse(&bytes, &NEW).is_err());
    }

    #[test]
    fn hostile_records_in_a_sound_frame_never_panic(
        records in proptest::collection::vec(
            (0..5u32, 0..4u16, 0..2u16, proptest::collection::vec(any::<u8>(), 0..160)),
            0..6,
        ),
        schema in 0..4u32,
    ) {
        let room = 104 + records.iter().map(|r| record_bytes(r.3.len())).sum::<usize>();
        let mut buffer = vec![0; room];
        let mut writer = Writer::new(&mut buffer, &Text::EMPTY, schema).unwrap();
        for (key, version, flags, content) in &records {
            writer.record(*key, *version, *flags, &[content]).unwrap();
        }
        writer.finish().unwrap();
        if let Ok(import) = Import::parse(&buffer, &NEW) {
            prop_assert_eq!(import.volumes().count(), import.volumes);
        }
    }

    #[test]
    fn a_changed_volume_in_a_sound_frame_is_refused_or_consistent(
        sample in volumes(counts2()),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut image = export(2, two(&sample).into_iter());
        let body = image.len() - 8;
        let at = 96 + at.index(body - 96);
        image[at] = value;
        let crc = atom_abi::crc32c::crc32c(&image[..body]);
        image[body..body + 4].copy_from_slice(&crc.to_le_bytes());
        if let Ok(import) = Import::parse(&image, &NEW) {
            let volumes: Vec<_> = import.volumes().collect();
            prop_assert_eq!(volumes.len(), import.volumes);
            let slots: Vec<_> = volumes.iter().map(|(volume, _)| volume.id.slot()).collect();
            prop_assert!(slots.is_sorted());
            prop_assert!(volumes.iter().all(|(volume, _)| volume.shape.spec().is_valid()));
        }
    }
}

/// An image that is put together by hand.
fn by_hand(schema: u32, records: &[(u32, u16, u16, Vec<u8>)]) -> Vec<u8> {
    let mut buffer = vec![0; 64 << 10];
    let mut writer = Writer::new(&mut buffer, &Text::EMPTY, schema).unwrap();
    for (key, version, flags, content) in records {
        writer.record(*key, *version, *flags, &[content]).unwrap();
    }
    writer.finish().unwrap();
    buffer
}

fn table(volumes: u32, next_serial: u32) -> (u32, u16, u16, Vec<u8>) {
    let content = [volumes.to_le_bytes(), next_serial.to_le_bytes()].concat();
    (KEY_TABLE, 1, MANDATORY, content)
}

fn volume(slot: usize, serial: u32) -> (u32, u16, u16, Vec<u8>) {
    let id = atom_payload::shape::VolumeId::new(slot, serial).unwrap();
    let shape = atom_payload::shape::Shape::new(atom_payload::shape::Kind::Ram, 1 << 20, 512, 0, 0);
    let volume = Description {
        id,
        device: 3,
        shape: shape.unwrap(),
        pages: 0,
        name: atom_payload::shape::name("disk").unwrap(),
    };
    let content = volume.encode(|parts| parts.concat());
    assert_eq!(content.len(), DESCRIPTION_BYTES);
    (KEY_VOLUME, 1, MANDATORY, content)
}

fn verdict(schema: u32, records: &[(u32, u16, u16, Vec<u8>)]) -> Result<usize, ImageError> {
    Import::parse(&by_hand(schema, records), &NEW).map(|import| import.volumes().count())
}

#[test]
fn an_unknown_mandatory_record_is_refused_and_an_unknown_optional_one_is_not() {
    let unknown = |flags| (77, 1, flags, vec![1, 2, 3]);
    let sound = [table(1, 9), volume(4, 8), unknown(0)];
    assert_eq!(verdict(2, &sound), Ok(1));
    let mandatory = [table(1, 9), volume(4, 8), unknown(MANDATORY)];
    assert_eq!(verdict(2, &mandatory), Err(ImageError::UnknownRecord(77)));
}

#[test]
fn a_place_that_is_taken_twice_or_out_of_order_is_refused() {
    let bad = Err(ImageError::BadRecord(KEY_VOLUME));
    assert_eq!(verdict(1, &[table(2, 9), volume(4, 7), volume(4, 8)]), bad);
    assert_eq!(verdict(1, &[table(2, 9), volume(4, 7), volume(3, 8)]), bad);
    assert_eq!(verdict(1, &[table(2, 9), volume(3, 7), volume(4, 8)]), Ok(2));
}

#[test]
fn a_serial_number_that_would_be_given_again_is_refused() {
    let bad = Err(ImageError::BadRecord(KEY_VOLUME));
    assert_eq!(verdict(1, &[table(1, 8), volume(4, 8)]), bad);
    assert_eq!(verdict(1, &[table(0, 0)]), Err(ImageError::BadRecord(KEY_TABLE)));
}

#[test]
fn a_table_that_is_missing_repeated_or_wrong_is_refused() {
    let bad = Err(ImageError::BadRecord(KEY_TABLE));
    assert_eq!(verdict(1, &[]), Err(ImageError::Inconsistent));
    assert_eq!(verdict(1, &[volume(4, 8)]), bad);
    assert_eq!(verdict(1, &[table(0, 9), table(0, 9)]), bad);
    assert_eq!(verdict(1, &[table(2, 9), volume(4, 8)]), bad);
}

#[test]
fn statistics_of_another_volume_or_schema_are_refused() {
    let bad = Err(ImageError::BadRecord(KEY_COUNTS));
    let id = |slot: u64| (8u64 << 16 | slot).to_le_bytes().to_vec();
    let counts =
        |version, slot, bytes: usize| (KEY_COUNTS, version, 0, [id(slot), vec![0; bytes]].concat());
    let with = |schema, counts| verdict(schema, &[table(1, 9), volume(4, 8), counts]);
    assert_eq!(with(1, counts(1, 4, COUNTS1_BYTES)), Ok(1));
    assert_eq!(with(2, counts(2, 4, COUNTS2_BYTES)), Ok(1));
    assert_eq!(with(2, counts(1, 4, COUNTS1_BYTES)), bad);
    assert_eq!(with(2, counts(2, 5, COUNTS2_BYTES)), bad);
    assert_eq!(with(2, counts(2, 4, COUNTS2_BYTES - 1)), bad);
}

#[test]
fn a_volume_without_statistics_begins_at_zero() {
    let image = by_hand(2, &[table(1, 9), volume(4, 8)]);
    let import = Import::parse(&image, &NEW).unwrap();
    let (_, counts) = import.volumes().next().unwrap();
    assert_eq!(counts.as_two(), Counts2::default());
}

#[test]
fn an_image_of_a_schema_outside_the_range_is_refused() {
    assert_eq!(verdict(3, &[table(0, 1)]), Err(ImageError::Format(3)));
    assert_eq!(verdict(0, &[table(0, 1)]), Err(ImageError::Format(0)));
}

#[test]
fn the_image_of_a_full_table_fits_into_what_atom_stores() {
    let bytes = image_bytes(2, MAX_VOLUMES).unwrap();
    assert!(bytes < atom_abi::image::MAX_BYTES, "{bytes}");
    assert_eq!(image_bytes(3, 1), None);
}

#[test]
fn a_buffer_that_is_too_small_is_an_error_and_not_a_panic() {
    for length in 0..image_bytes(1, 0).unwrap() {
        let mut buffer = vec![0; length];
        let written = Export::new(&mut buffer, &Text::EMPTY, 1, 0, 1).and_then(Export::finish);
        assert_eq!(written, Err(ImageError::NoRoom), "{length}");
    }
}
