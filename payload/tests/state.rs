// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Export, import and migration of the volumes.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

mod samples;

use atom_abi::image::{record_bytes, ImageError, Writer, MANDATORY};
use atom_abi::text::Text;
use atom_abi::version::SchemaRange;
use atom_payload::carried;
use atom_payload::counts::{
    class, Counts, Counts1, Counts2, Counts3, COUNTS1_BYTES, COUNTS2_BYTES, COUNTS3_BYTES, OPS,
};
use atom_payload::shape::{Description, DESCRIPTION_BYTES, MAX_VOLUMES};
use atom_payload::state::{
    image_bytes, Export, Import, ImportError, KEY_COUNTS, KEY_TABLE, KEY_VOLUME, SCHEMA_MAX,
};
use proptest::prelude::*;
use samples::{by_hand, counts, counts1, counts2, counts3, volumes, Owned, NEXT_SERIAL};

/// What 1.0.0, 1.1.0 and 1.2.0 read and write, and all of it.
const FIRST: SchemaRange = range(1, 1);
const SECOND: SchemaRange = range(1, 2);
const THIRD: SchemaRange = range(2, 3);
const WIDE: SchemaRange = range(1, 3);
const EVERY: SchemaRange = range(1, SCHEMA_MAX);

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

fn three(volumes: &[(Description, Counts3)]) -> Vec<(Description, Counts)> {
    volumes.iter().map(|(v, c)| (*v, Counts::Three(*c))).collect()
}

/// Hands an image from one version to the next, in the schemas of `chain`.
fn through(image: &[u8], chain: &[u32]) -> Vec<u8> {
    chain
        .iter()
        .fold(image.to_vec(), |image, schema| export(*schema, import(&image, &WIDE).into_iter()))
}

proptest! {
    #[test]
    fn what_is_exported_is_imported_in_schema_1(sample in volumes(counts1())) {
        let image = export(1, one(&sample).into_iter());
        prop_assert_eq!(import(&image, &FIRST), one(&sample));
        prop_assert_eq!(import(&image, &SECOND), one(&sample));
        prop_assert_eq!(Import::parse(&image, &THIRD).map(|_| ()), Err(ImportError::Schema(1)));
    }

    #[test]
    fn what_is_exported_is_imported_in_schema_2(sample in volumes(counts2())) {
        let image = export(2, two(&sample).into_iter());
        prop_assert_eq!(import(&image, &SECOND), two(&sample));
        prop_assert_eq!(import(&image, &THIRD), two(&sample));
        prop_assert_eq!(Import::parse(&image, &FIRST).map(|_| ()), Err(ImportError::Schema(2)));
    }

    #[test]
    fn what_is_exported_is_imported_in_schema_3(sample in volumes(counts3())) {
        let image = export(3, three(&sample).into_iter());
        prop_assert_eq!(import(&image, &THIRD), three(&sample));
        prop_assert_eq!(Import::parse(&image, &SECOND).map(|_| ()), Err(ImportError::Schema(3)));
    }

    #[test]
    fn from_schema_1_to_3_and_back_keeps_what_schema_1_has(sample in volumes(counts1())) {
        let first = export(1, one(&sample).into_iter());
        prop_assert_eq!(&through(&first, &[2, 1]), &first);
        prop_assert_eq!(&through(&first, &[2, 3, 2, 1]), &first);
        prop_assert_eq!(&through(&first, &[3, 1]), &first);
    }

    #[test]
    fn from_schema_2_to_3_and_back_keeps_what_schema_2_has(sample in volumes(counts2())) {
        let first = export(2, two(&sample).into_iter());
        prop_assert_eq!(through(&first, &[3, 2]), first);
    }

    #[test]
    fn on_any_way_down_a_schema_keeps_all_that_it_can_say(
        sample in volumes(counts()),
        way in proptest::collection::vec(1..=3u32, 1..8),
    ) {
        // What the lowest schema on the way can say is the same at its end as if it had come there at once.
        let lowest = way.iter().copied().min().unwrap();
        let start = export(3, sample.iter().copied());
        let there = through(&through(&start, &way), &[lowest]);
        prop_assert_eq!(there, through(&start, &[lowest]));
    }

    #[test]
    fn what_has_no_class_in_schema_2_has_none_in_schema_3(counts in counts2()) {
        let new = Counts::Two(counts).as_three();
        for code in OPS {
            prop_assert_eq!(new.total(code), counts.of(code));
            prop_assert_eq!(new.of(code, class::UNKNOWN), counts.of(code));
        }
        for code in [OPS[0], OPS[1]] {
            for known in [class::SHORT, class::MEDIUM, class::LONG] {
                prop_assert_eq!(new.of(code, known), Default::default());
            }
        }
        prop_assert_eq!(new.errors, counts.errors);
    }

    #[test]
    fn from_schema_3_to_2_adds_up_the_classes(counts in counts3()) {
        let old = Counts::Three(counts).as_two();
        for code in [OPS[0], OPS[1]] {
            let sum: u64 = (0..class::COUNT).map(|class| counts.of(code, class).ios).sum();
            let bytes: u64 = (0..class::COUNT).map(|class| counts.of(code, class).bytes).sum();
            prop_assert_eq!((old.of(code).ios, old.of(code).bytes), (sum, bytes));
        }
        for code in &OPS[2..] {
            prop_assert_eq!(old.of(*code), counts.of(*code, class::UNKNOWN));
        }
        prop_assert_eq!(old.errors, counts.errors);
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
        prop_assert!(Import::parse(&bytes, &WIDE).is_err());
    }

    #[test]
    fn hostile_records_in_a_sound_frame_never_panic(
        records in proptest::collection::vec(
            (0..8u32, 0..6u16, 0..2u16, proptest::collection::vec(any::<u8>(), 0..160)),
            0..6,
        ),
        schema in 0..7u32,
    ) {
        let room = 104 + records.iter().map(|r| record_bytes(r.3.len())).sum::<usize>();
        let mut buffer = vec![0; room];
        let mut writer = Writer::new(&mut buffer, &Text::EMPTY, schema).unwrap();
        for (key, version, flags, content) in &records {
            writer.record(*key, *version, *flags, &[content]).unwrap();
        }
        writer.finish().unwrap();
        if let Ok(import) = Import::parse(&buffer, &EVERY) {
            prop_assert_eq!(import.volumes().count(), import.volumes);
        }
    }

    #[test]
    fn a_changed_volume_in_a_sound_frame_is_refused_or_consistent(
        sample in volumes(counts()),
        schema in 1..=3u32,
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut image = export(schema, sample.into_iter());
        let body = image.len() - 8;
        let at = 96 + at.index(body - 96);
        image[at] = value;
        let crc = atom_abi::crc32c::crc32c(&image[..body]);
        image[body..body + 4].copy_from_slice(&crc.to_le_bytes());
        if let Ok(import) = Import::parse(&image, &WIDE) {
            let volumes: Vec<_> = import.volumes().collect();
            prop_assert_eq!(volumes.len(), import.volumes);
            let slots: Vec<_> = volumes.iter().map(|(volume, _)| volume.id.slot()).collect();
            prop_assert!(slots.is_sorted());
            prop_assert!(volumes.iter().all(|(volume, _)| volume.shape.spec().is_valid()));
        }
    }
}

fn table(volumes: u32, next_serial: u32) -> Owned {
    let content = [volumes.to_le_bytes(), next_serial.to_le_bytes()].concat();
    (KEY_TABLE, 1, MANDATORY, content)
}

fn volume(slot: usize, serial: u32) -> Owned {
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

fn verdict(schema: u32, records: &[Owned]) -> Result<usize, ImportError> {
    Import::parse(&by_hand(schema, records), &WIDE).map(|import| import.volumes().count())
}

#[test]
fn an_unknown_mandatory_record_is_refused_and_an_unknown_optional_one_is_not() {
    let unknown = |flags| (77, 1, flags, vec![1, 2, 3]);
    let sound = [table(1, 9), volume(4, 8), unknown(0)];
    assert_eq!(verdict(2, &sound), Ok(1));
    let mandatory = [table(1, 9), volume(4, 8), unknown(MANDATORY)];
    assert_eq!(verdict(2, &mandatory), Err(ImageError::UnknownRecord(77).into()));
}

#[test]
fn a_place_that_is_taken_twice_or_out_of_order_is_refused() {
    let bad = Err(ImageError::BadRecord(KEY_VOLUME).into());
    assert_eq!(verdict(1, &[table(2, 9), volume(4, 7), volume(4, 8)]), bad);
    assert_eq!(verdict(1, &[table(2, 9), volume(4, 7), volume(3, 8)]), bad);
    assert_eq!(verdict(1, &[table(2, 9), volume(3, 7), volume(4, 8)]), Ok(2));
}

#[test]
fn a_volume_of_another_version_or_length_is_refused() {
    let bad = Err(ImageError::BadRecord(KEY_VOLUME).into());
    let (mut newer, mut longer, mut shorter) = (volume(4, 8), volume(4, 8), volume(4, 8));
    newer.1 = 2;
    longer.3.push(0);
    shorter.3.pop();
    for wrong in [newer, longer, shorter] {
        assert_eq!(verdict(1, &[table(1, 9), wrong]), bad);
    }
}

#[test]
fn a_serial_number_that_would_be_given_again_is_refused() {
    let bad = Err(ImageError::BadRecord(KEY_VOLUME).into());
    assert_eq!(verdict(1, &[table(1, 8), volume(4, 8)]), bad);
    assert_eq!(verdict(1, &[table(0, 0)]), Err(ImageError::BadRecord(KEY_TABLE).into()));
}

#[test]
fn a_table_that_is_missing_repeated_or_wrong_is_refused() {
    let bad = Err(ImageError::BadRecord(KEY_TABLE).into());
    assert_eq!(verdict(1, &[]), Err(ImageError::Inconsistent.into()));
    assert_eq!(verdict(1, &[volume(4, 8)]), bad);
    assert_eq!(verdict(1, &[table(0, 9), table(0, 9)]), bad);
    let (mut newer, mut longer) = (table(0, 9), table(0, 9));
    newer.1 = 2;
    longer.3.push(0);
    assert_eq!(verdict(1, &[newer]), bad, "of a version that nobody knows");
    assert_eq!(verdict(1, &[longer]), bad, "with more than it has");
    assert_eq!(verdict(1, &[table(2, 9), volume(4, 8)]), bad);
}

#[test]
fn statistics_of_another_volume_or_schema_are_refused() {
    let bad = Err(ImageError::BadRecord(KEY_COUNTS).into());
    let id = |slot: u64| (8u64 << 16 | slot).to_le_bytes().to_vec();
    let counts =
        |version, slot, bytes: usize| (KEY_COUNTS, version, 0, [id(slot), vec![0; bytes]].concat());
    let with = |schema, counts| verdict(schema, &[table(1, 9), volume(4, 8), counts]);
    assert_eq!(with(1, counts(1, 4, COUNTS1_BYTES)), Ok(1));
    assert_eq!(with(2, counts(2, 4, COUNTS2_BYTES)), Ok(1));
    assert_eq!(with(3, counts(3, 4, COUNTS3_BYTES)), Ok(1));
    assert_eq!(with(3, counts(2, 4, COUNTS2_BYTES)), bad);
    assert_eq!(with(2, counts(1, 4, COUNTS1_BYTES)), bad);
    assert_eq!(with(2, counts(2, 5, COUNTS2_BYTES)), bad);
    assert_eq!(with(2, counts(2, 4, COUNTS2_BYTES - 1)), bad);
}

#[test]
fn a_volume_without_statistics_begins_at_zero() {
    let image = by_hand(2, &[table(1, 9), volume(4, 8)]);
    let import = Import::parse(&image, &WIDE).unwrap();
    let (_, counts) = import.volumes().next().unwrap();
    assert_eq!(counts.as_two(), Counts2::default());
}

#[test]
fn an_image_of_a_schema_outside_the_range_is_refused() {
    assert_eq!(verdict(4, &[table(0, 1)]), Err(ImportError::Schema(4)));
    assert_eq!(verdict(0, &[table(0, 1)]), Err(ImportError::Schema(0)));
}

#[test]
fn the_image_of_a_full_table_fits_into_what_atom_stores() {
    let bytes = image_bytes(SCHEMA_MAX, MAX_VOLUMES).unwrap() + carried::MAX_BYTES;
    assert!(bytes < atom_abi::image::MAX_BYTES, "{bytes}");
    assert_eq!(image_bytes(SCHEMA_MAX + 1, 1), None);
}

#[test]
fn a_buffer_that_is_too_small_is_an_error_and_not_a_panic() {
    for length in 0..image_bytes(1, 0).unwrap() {
        let mut buffer = vec![0; length];
        let written = Export::new(&mut buffer, &Text::EMPTY, 1, 0, 1).and_then(Export::finish);
        assert_eq!(written, Err(ImageError::NoRoom), "{length}");
    }
}

proptest! {
    #[test]
    fn an_image_of_some_volumes_has_as_many_as_were_added(
        all in volumes(counts3()),
        keep in any::<u64>(),
    ) {
        let some: Vec<_> =
            three(&all).into_iter().enumerate().filter(|(at, _)| keep >> (at % 64) & 1 == 1).collect();
        let some: Vec<_> = some.into_iter().map(|(_, one)| one).collect();
        let mut buffer = vec![0xa5; image_bytes(3, some.len()).unwrap()];
        let producer = Text::new("1.2.3");
        let mut export = Export::of_some(&mut buffer, &producer, 3, NEXT_SERIAL).unwrap();
        for (volume, counts) in &some {
            export.volume(volume, *counts).unwrap();
        }
        prop_assert_eq!(export.finish().unwrap(), buffer.len());
        prop_assert_eq!(import(&buffer, &THIRD), some);
    }
}

#[test]
fn counts_grow_with_each_number_that_they_have() {
    let one = |reads, writes| Counts::One(Counts1 { reads, writes }).grown();
    assert!(one(1, 0) > one(0, 0) && one(1, 1) > one(1, 0));
    let mut two = Counts2::default();
    let mut three = Counts3::default();
    let mut last = (0, 0);
    for at in 0..OPS.len() {
        for change in 0..3 {
            match change {
                0 => (two.ops[at].ios, three.cells[at].ios) = (1, 1),
                1 => (two.ops[at].bytes, three.cells[at].bytes) = (512, 512),
                _ => (two.errors, three.errors) = (two.errors + 1, three.errors + 1),
            }
            let now = (Counts::Two(two).grown(), Counts::Three(three).grown());
            assert!(now.0 > last.0 && now.1 > last.1, "{at}, {change}: {now:?} after {last:?}");
            last = now;
        }
    }
}
