// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Volumes and statistics of all shapes, for the property tests.

// Each test uses its own part.
#![allow(dead_code)]

use atom_abi::image::{Image, Writer};
use atom_abi::text::Text;
use atom_payload::counts::{Counts, Counts1, Counts2, Counts3, OpCounts};
use atom_payload::history::{Failure, History};
use atom_payload::latency::OpLatency;
use atom_payload::limits::{Facts, Limits};
use atom_payload::protocol::Output;
use atom_payload::shape::{new_name, Description, Kind, Shape, VolumeId, MAX_VOLUMES};
use atom_payload::spec::{
    Address, Layout, Made, Nbd, OnFailure, Source, Target, Terms, MAX_MADE_BYTES,
};
use atom_payload::state::Export;
use proptest::prelude::*;

/// The serial number behind those of all sampled volumes.
pub const NEXT_SERIAL: u32 = 1_000_000;

pub fn names() -> impl Strategy<Value = Text> {
    let text = "[A-Za-z0-9._-]{1,63}".prop_filter("a folder", |text| text != "." && text != "..");
    text.prop_map(|text| new_name(&text).unwrap())
}

pub fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Null), Just(Kind::Ram)]
}

pub fn shapes() -> impl Strategy<Value = Shape> {
    let geometry = (1..1u64 << 40, 9..=12u32);
    let queues = (0..=256u16, 0..=10240u16);
    (kinds(), geometry, queues).prop_map(|(kind, (blocks, shift), (hw_queues, queue_depth))| {
        Shape::new(kind, blocks << shift, 1 << shift, hw_queues, queue_depth).unwrap()
    })
}

pub fn counts1() -> impl Strategy<Value = Counts1> + Clone {
    // Sums of them do not saturate.
    (0..u64::MAX >> 2, 0..u64::MAX >> 2).prop_map(|(reads, writes)| Counts1 { reads, writes })
}

pub fn counts2() -> impl Strategy<Value = Counts2> + Clone {
    let op = (0..u64::MAX >> 2, any::<u64>()).prop_map(|(ios, bytes)| OpCounts { ios, bytes });
    ([op.clone(), op.clone(), op.clone(), op.clone(), op], any::<u64>())
        .prop_map(|(ops, errors)| Counts2 { ops, errors })
}

pub fn counts3() -> impl Strategy<Value = Counts3> + Clone {
    // Sums of them do not saturate.
    let cell =
        (0..u64::MAX >> 4, 0..u64::MAX >> 4).prop_map(|(ios, bytes)| OpCounts { ios, bytes });
    (prop::array::uniform11(cell), any::<u64>())
        .prop_map(|(cells, errors)| Counts3 { cells, errors })
}

/// Statistics in any schema.
pub fn counts() -> impl Strategy<Value = Counts> + Clone {
    prop_oneof![
        counts1().prop_map(Counts::One),
        counts2().prop_map(Counts::Two),
        counts3().prop_map(Counts::Three),
    ]
}

pub fn descriptions(slot: usize) -> impl Strategy<Value = Description> {
    (1..NEXT_SERIAL, any::<u32>(), shapes(), any::<u64>(), names()).prop_map(
        move |(serial, device, shape, pages, name)| Description {
            id: VolumeId::new(slot, serial).unwrap(),
            device,
            shape,
            pages,
            name,
        },
    )
}

/// Up to eight volumes with what they have counted, in ascending order of their places.
pub fn volumes<C: Strategy + Clone + 'static>(
    counts: C,
) -> impl Strategy<Value = Vec<(Description, C::Value)>> {
    proptest::collection::btree_set(0..MAX_VOLUMES, 0..8).prop_flat_map(move |slots| {
        let each: Vec<_> =
            slots.into_iter().map(|slot| (descriptions(slot), counts.clone())).collect();
        each
    })
}

/// A description with every field set, and what it has counted, for an image that is kept.
fn kept(slot: usize, device: u32, kind: Kind, label: &str) -> Description {
    let (bytes, block) = if kind == Kind::Ram { (3 << 30, 4096) } else { (1 << 20, 512) };
    Description {
        id: VolumeId::new(slot, device + 41).unwrap(),
        device,
        shape: Shape::new(kind, bytes, block, 2, 64).unwrap(),
        pages: if kind == Kind::Ram { 7919 } else { 0 },
        name: new_name(label).unwrap(),
    }
}

/// The volumes of the images that are kept.
pub fn kept_volumes() -> [Description; 3] {
    [
        kept(0, 5, Kind::Ram, "db-0"),
        kept(3, 2, Kind::Null, "scratch.A_1"),
        kept(MAX_VOLUMES - 1, 17, Kind::Ram, &"x".repeat(63)),
    ]
}

/// What each of them has counted, in a schema.
pub fn kept_counts(schema: u32) -> [Counts; 3] {
    let cell = |at: u64| OpCounts { ios: 1000 + at, bytes: (1000 + at) << 12 };
    let one = Counts1 { reads: 11, writes: 22 };
    let two = Counts2 {
        ops: [cell(0), cell(1), OpCounts { ios: 3, bytes: 0 }, cell(3), cell(4)],
        errors: 6,
    };
    let three = Counts3 { cells: std::array::from_fn(|at| cell(at as u64)), errors: u64::MAX };
    match schema {
        1 => [
            Counts::One(one),
            Counts::One(Counts1::default()),
            Counts::One(Counts1 { reads: u64::MAX, writes: 1 }),
        ],
        2 => [
            Counts::Two(two),
            Counts::Two(Counts2::default()),
            Counts::Two(Counts2 { errors: 1, ..two }),
        ],
        _ => [
            Counts::Three(three),
            Counts::Three(Counts3::default()),
            Counts::Three(Counts3 { errors: 2, ..three }),
        ],
    }
}

/// What the volume over targets of the images that are kept is made of.
pub fn made_bytes() -> Vec<u8> {
    let target = |source, sectors| Target { source, sectors, terms: Terms::DEFAULT };
    let terms = Terms {
        on_failure: OnFailure::Error,
        deadline_ms: 1,
        answer_ms: 2,
        retry_ms: 300,
        retries: 4,
    };
    let address = Address::V4 { address: [192, 0, 2, 7], port: 10809, host: "store-7.example" };
    let nbd = Nbd { address, export: "disk", connections: 4, keepalive_s: 30 };
    let targets = [
        target(Source::Null, 4096),
        target(Source::Ram, 8192),
        target(Source::Bdev("/dev/disk/by-id/one"), 1 << 30),
        Target { source: Source::Nbd(nbd), sectors: 8, terms },
    ];
    let mut bytes = vec![0; MAX_MADE_BYTES];
    let mut out = Output::new(&mut bytes);
    Made::encode(Layout::Linear, targets.into_iter(), &mut out).unwrap();
    let length = out.len();
    bytes.truncate(length);
    bytes
}

pub fn kept_made(bytes: &[u8]) -> Made<'_> {
    Made::decode(bytes).unwrap()
}

/// The record of the NBD target, of which only its owner knows what it says.
pub const KEPT_NBD: &[u8] = b"what nbd left";

pub fn kept_limits() -> Limits {
    let disk = Facts { logical_block_bytes: 4096, features: 1, ..Facts::of_memory(1 << 31) };
    Limits::over(Layout::Linear, 0, [Facts::of_memory(8192), disk].into_iter()).unwrap()
}

/// The volume over targets of the images that are kept.
pub fn kept_composed() -> Description {
    let limits = kept_limits();
    let shape = Shape {
        kind: Kind::Linear,
        capacity_sectors: 4096 + 8192 + (1 << 30) + 8,
        block_bytes: limits.logical_block_bytes,
        features: limits.features,
        max_discard_sectors: limits.max_discard_sectors,
        max_write_zeroes_sectors: limits.max_write_zeroes_sectors,
        hw_queues: 3,
        queue_depth: 32,
    };
    let id = VolumeId::new(7, 99).unwrap();
    Description { id, device: 11, shape, pages: 101, name: new_name("over").unwrap() }
}

/// Ten failures, of which eight are remembered.
pub fn kept_failures() -> History {
    let history = History::default();
    for at in 0..10 {
        history.add(&Failure { when_ns: 1000 + at, sector: at << 40, op: 1, status: 10 });
    }
    history
}

pub fn kept_latency(op: usize) -> OpLatency {
    let op = op as u64;
    OpLatency {
        unplaced: op,
        total_ns: 1_000_000 * op,
        longest_ns: 77 + op,
        buckets: std::array::from_fn(|at| at as u64 * (op + 1)),
    }
}

/// Adds what the volume over targets is made of to an image.
pub fn export_composed(image: &mut Export<'_>, volume: &Description) {
    let made = made_bytes();
    image.made(volume.id, &kept_limits(), &kept_made(&made)).unwrap();
    for at in 0..4 {
        image.target(volume.id, at, 100 + at as u64, &kept_failures(), kept_latency).unwrap();
    }
    image.nbd(volume.id, 3, KEPT_NBD).unwrap();
}

/// A record as it stands in an image: key, version, flags, content.
pub type Owned = (u32, u16, u16, Vec<u8>);

/// An image that is put together by hand.
pub fn by_hand(schema: u32, records: &[Owned]) -> Vec<u8> {
    let mut buffer = vec![0; 64 << 10];
    let mut writer = Writer::new(&mut buffer, &Text::EMPTY, schema).unwrap();
    for (key, version, flags, content) in records {
        writer.record(*key, *version, *flags, &[content]).unwrap();
    }
    writer.finish().unwrap();
    buffer
}

/// The records of an image.
pub fn records(image: &[u8]) -> Vec<Owned> {
    let image = Image::parse(image).unwrap();
    image.records().map(|r| (r.key, r.version, r.flags, r.bytes.to_vec())).collect()
}
