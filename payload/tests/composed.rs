// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Volumes over targets in the image: what is written is read, and nothing that contradicts itself is.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

mod samples;

use atom_abi::image::ImageError;
use atom_abi::text::Text;
use atom_abi::version::SchemaRange;
use atom_payload::counts::Counts;
use atom_payload::history::{History, FAILURE_BYTES, KEPT};
use atom_payload::latency::OpLatency;
use atom_payload::limits::{Facts, Limits, LIMITS_BYTES};
use atom_payload::protocol::Output;
use atom_payload::shape::{Description, Kind};
use atom_payload::spec::{Address, Layout, Made, Nbd, Source, Target, Terms, MAX_MADE_BYTES};
use atom_payload::state::{
    composed_bytes, image_bytes, Export, Import, ImportError, KEY_COUNTS, KEY_MADE, KEY_NBD,
    KEY_TABLE, KEY_TARGET, KEY_VOLUME, SCHEMA_MAX,
};
use proptest::prelude::*;
use samples::{
    by_hand, export_composed, kept_composed, kept_limits, kept_made, made_bytes, records, Owned,
    KEPT_NBD,
};

const EVERY: SchemaRange =
    SchemaRange { read_min: 1, read_max: SCHEMA_MAX, write_min: 1, write_max: SCHEMA_MAX };

/// The image of one volume over targets.
fn composed(schema: u32) -> Vec<u8> {
    let made = made_bytes();
    let more = composed_bytes(&kept_made(&made), KEPT_NBD.len());
    let mut buffer = vec![0; image_bytes(schema, 1).unwrap() + more];
    let mut image = Export::new(&mut buffer, &Text::EMPTY, schema, 1, 100).unwrap();
    let volume = kept_composed();
    image.volume(&volume, Counts::none()).unwrap();
    export_composed(&mut image, &volume);
    let used = image.finish().unwrap();
    assert!(used <= buffer.len(), "the bound holds");
    assert!(schema < SCHEMA_MAX || used == buffer.len(), "and is exact where there is most to say");
    buffer.truncate(used);
    buffer
}

#[test]
fn a_volume_over_targets_is_in_no_schema_that_has_none() {
    for schema in 1..=3 {
        let mut buffer = vec![0; 64 << 10];
        let mut image = Export::new(&mut buffer, &Text::EMPTY, schema, 1, 100).unwrap();
        let (volume, made) = (kept_composed(), made_bytes());
        image.volume(&volume, Counts::none()).unwrap();
        let limits = kept_limits();
        let outcome = image.made(volume.id, &limits, &kept_made(&made));
        assert_eq!(outcome, Err(ImageError::Inconsistent));
        let latency = |_| OpLatency::default();
        let outcome = image.target(volume.id, 0, 0, &History::default(), latency);
        assert_eq!(outcome, Err(ImageError::Inconsistent));
    }
}

#[test]
fn a_volume_over_targets_with_a_record_missing_twice_or_of_another_is_refused() {
    for schema in 4..=SCHEMA_MAX {
        let sound = records(&composed(schema));
        assert_eq!(judge(schema, &sound), Ok(1));
        let other = if schema == 4 { 5 } else { 4 };
        assert!(judge(other, &sound).is_err(), "latency of another schema");
        assert!(judge(3, &sound).is_err(), "a schema without targets");
        for at in 0..sound.len() {
            let key = sound[at].0;
            if matches!(key, KEY_TABLE | KEY_VOLUME | KEY_COUNTS) {
                continue;
            }
            assert!(matches!(key, KEY_MADE | KEY_TARGET | KEY_NBD));
            let mut without = sound.clone();
            without.remove(at);
            assert!(judge(schema, &without).is_err(), "without record {at}");
            let mut twice = sound.clone();
            twice.insert(at, sound[at].clone());
            assert!(judge(schema, &twice).is_err(), "with record {at} twice");
            let mut longer = sound.clone();
            longer[at].3.push(0);
            assert!(judge(schema, &longer).is_err(), "record {at} longer");
            let mut another = sound.clone();
            another[at].3[0] ^= 1;
            assert!(judge(schema, &another).is_err(), "record {at} of another volume");
        }
    }
}

proptest! {
    #[test]
    fn a_changed_volume_over_targets_is_refused_or_consistent(
        schema in 4..=SCHEMA_MAX,
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut image = composed(schema);
        let body = image.len() - 8;
        let at = 96 + at.index(body - 96);
        image[at] = value;
        let crc = atom_abi::crc32c::crc32c(&image[..body]);
        image[body..body + 4].copy_from_slice(&crc.to_le_bytes());
        if let Ok(import) = Import::parse(&image, &EVERY) {
            let mut volumes = import.volumes();
            let (volume, _) = volumes.next().unwrap();
            let past = volumes.past().unwrap();
            prop_assert_eq!(past.map.capacity(), volume.shape.capacity_sectors);
            prop_assert_eq!(past.targets().len(), past.made.len());
            prop_assert!(past.limits.spec(past.map.capacity(), 0, 0).is_valid());
        }
    }
}

fn judge(schema: u32, records: &[Owned]) -> Result<usize, ImportError> {
    Import::parse(&by_hand(schema, records), &EVERY).map(|import| import.volumes)
}

/// The image of the kept volume as it is after `change`, with `limits`.
fn changed(limits: &Limits, change: impl FnOnce(&mut Description)) -> Result<usize, ImportError> {
    let mut buffer = vec![0; 64 << 10];
    let mut image = Export::new(&mut buffer, &Text::EMPTY, 5, 1, 100).unwrap();
    let mut volume = kept_composed();
    change(&mut volume);
    image.volume(&volume, Counts::none()).unwrap();
    let made = made_bytes();
    image.made(volume.id, limits, &kept_made(&made)).unwrap();
    for at in 0..4 {
        image.target(volume.id, at, 0, &History::default(), |_| OpLatency::default()).unwrap();
    }
    image.nbd(volume.id, 3, &[]).unwrap();
    image.finish().unwrap();
    Import::parse(&buffer, &EVERY).map(|import| import.volumes)
}

#[test]
fn a_volume_that_is_not_what_its_targets_make_of_it_is_refused() {
    let limits = kept_limits();
    let bad = Err(ImageError::BadRecord(KEY_MADE).into());
    assert_eq!(changed(&limits, |_| {}), Ok(1));
    assert_eq!(changed(&limits, |volume| volume.shape.kind = Kind::Stripe), bad, "another layout");
    assert_eq!(changed(&limits, |volume| volume.shape.capacity_sectors -= 8), bad, "smaller");
    assert_eq!(changed(&limits, |volume| volume.shape.max_discard_sectors -= 8), bad);
    // Of these the volume knows nothing, and no device can have them.
    assert_eq!(changed(&Limits { dma_alignment_mask: 8, ..limits }, |_| {}), bad, "no mask");
    assert_eq!(changed(&Limits { chunk_sectors: 7, ..limits }, |_| {}), bad, "no whole blocks");
}

/// The records of the kept volume in which `change` was made to the first with that key.
fn with(schema: u32, key: u32, change: impl FnOnce(&mut Vec<u8>)) -> Vec<Owned> {
    let mut records = records(&composed(schema));
    change(&mut records.iter_mut().find(|record| record.0 == key).unwrap().3);
    records
}

/// Puts a number into the content of a record.
fn put(content: &mut [u8], at: usize, number: &[u8]) {
    content[at..at + number.len()].copy_from_slice(number);
}

#[test]
fn a_target_that_is_not_the_next_one_or_remembers_more_than_there_was_is_refused() {
    // What stands where in a record about a target: see `state.rs`.
    let (target, kept, total, failures) = (8, 12, 24, 32);
    let bad = Err(ImageError::BadRecord(KEY_TARGET).into());
    for schema in 4..=SCHEMA_MAX {
        let judge =
            |change: &dyn Fn(&mut Vec<u8>)| judge(schema, &with(schema, KEY_TARGET, change));
        assert_eq!(judge(&|_| {}), Ok(1));
        assert_eq!(
            judge(&|content| put(content, target, &1u32.to_le_bytes())),
            bad,
            "not the first"
        );
        let all = KEPT as u64;
        assert_eq!(
            judge(&|content| put(content, total, &all.to_le_bytes())),
            Ok(1),
            "all there were"
        );
        assert_eq!(judge(&|content| put(content, total, &(all - 1).to_le_bytes())), bad, "too few");
        let one_more = |content: &mut Vec<u8>| {
            put(content, kept, &(KEPT as u32 + 1).to_le_bytes());
            let failure = content[failures..failures + FAILURE_BYTES].to_vec();
            content.splice(failures..failures, failure);
        };
        assert_eq!(judge(&one_more), bad, "more than are remembered");
        // The operation is a byte of the third word.
        assert_eq!(judge(&|content| content[failures + 21] = 1), bad, "no operation");
    }
}

#[test]
fn what_a_connection_left_belongs_to_the_target_before_it_and_is_as_long_as_it_says() {
    let bad = Err(ImageError::BadRecord(KEY_NBD).into());
    let judge = |change: &dyn Fn(&mut Vec<u8>)| judge(5, &with(5, KEY_NBD, change));
    assert_eq!(judge(&|_| {}), Ok(1));
    assert_eq!(judge(&|content| put(content, 8, &2u32.to_le_bytes())), bad, "of another target");
    let length = KEPT_NBD.len() as u32;
    assert_eq!(judge(&|content| put(content, 12, &(length - 1).to_le_bytes())), bad, "shorter");
    let longer = judge(&|content| put(content, 12, &(length + 1).to_le_bytes()));
    assert_eq!(longer, Err(ImageError::Truncated.into()), "longer");
}

#[test]
fn a_record_of_another_version_is_refused_whatever_it_holds() {
    for schema in 4..=SCHEMA_MAX {
        for key in [KEY_MADE, KEY_TARGET, KEY_NBD] {
            for later in [false, true] {
                let mut records = records(&composed(schema));
                let version = &mut records.iter_mut().find(|record| record.0 == key).unwrap().1;
                *version = if later { *version + 1 } else { *version - 1 };
                let bad = Err(ImageError::BadRecord(key).into());
                assert_eq!(judge(schema, &records), bad, "key {key}, later: {later}");
            }
        }
    }
}

#[test]
fn limits_have_no_bits_that_nobody_knows() {
    // Behind the volume's identity; the last number of the limits is zero.
    let unknown = with(5, KEY_MADE, |content| content[8 + LIMITS_BYTES - 1] = 1);
    assert_eq!(judge(5, &unknown), Err(ImageError::BadRecord(KEY_MADE).into()));
}

#[test]
fn the_largest_volume_that_can_be_described_goes_through_the_image() {
    let text = "x".repeat(255);
    let address = Address::V6 { address: [0x20; 16], port: 1, scope: 2, host: &text };
    let nbd = Nbd { address, export: &text, connections: 8, keepalive_s: 9 };
    let target = Target { source: Source::Nbd(nbd), sectors: 8, terms: Terms::DEFAULT };
    let mut bytes = vec![0; MAX_MADE_BYTES];
    let mut out = Output::new(&mut bytes);
    Made::encode(Layout::Linear, [target; 16].into_iter(), &mut out).unwrap();
    assert_eq!(out.len(), MAX_MADE_BYTES, "the bound is exact");
    let made = Made::decode(&bytes).unwrap();

    let facts = Facts::of_memory(8);
    let limits = Limits::over(Layout::Linear, 0, [facts; 16].into_iter()).unwrap();
    let mut volume = kept_composed();
    volume.shape.capacity_sectors = 16 * 8;
    volume.shape.block_bytes = limits.logical_block_bytes;
    volume.shape.features = limits.features;
    volume.shape.max_discard_sectors = limits.max_discard_sectors;
    volume.shape.max_write_zeroes_sectors = limits.max_write_zeroes_sectors;
    let mut buffer = vec![0; image_bytes(5, 1).unwrap() + composed_bytes(&made, KEPT_NBD.len())];
    let mut image = Export::new(&mut buffer, &Text::EMPTY, 5, 1, 100).unwrap();
    image.volume(&volume, Counts::none()).unwrap();
    image.made(volume.id, &limits, &made).unwrap();
    for at in 0..16 {
        let latency = |_| OpLatency::default();
        image.target(volume.id, at, 0, &samples::kept_failures(), latency).unwrap();
        image.nbd(volume.id, at, KEPT_NBD).unwrap();
    }
    assert_eq!(image.finish(), Ok(buffer.len()), "the bound is exact");
    let import = Import::parse(&buffer, &EVERY).unwrap();
    let mut volumes = import.volumes();
    assert_eq!(volumes.next().map(|(read, _)| read), Some(volume));
    assert_eq!(volumes.past().map(|past| past.made), Some(made));
}
