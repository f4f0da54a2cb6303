// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Volumes and statistics of all shapes, for the property tests.

// Each test uses its own part.
#![allow(dead_code)]

use atom_abi::text::Text;
use atom_payload::counts::{Counts1, Counts2, OpCounts};
use atom_payload::shape::{name, Description, Kind, Shape, VolumeId, MAX_VOLUMES};
use proptest::prelude::*;

/// The serial number behind those of all sampled volumes.
pub const NEXT_SERIAL: u32 = 1_000_000;

pub fn names() -> impl Strategy<Value = Text> {
    "[A-Za-z0-9._-]{1,63}".prop_map(|text| name(&text).unwrap())
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
