// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Which sectors lie where, what targets give, and what their limits make of a device.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

use atom_abi::device::feature;
use atom_abi::request::op;
use atom_payload::layout::{share, Map, Misfit, Share};
use atom_payload::limits::{Facts, Limits};
use atom_payload::spec::{Layout, MAX_TARGETS};
use proptest::prelude::*;

fn layouts() -> impl Strategy<Value = Layout> {
    prop_oneof![
        Just(Layout::Linear),
        (3..12u32).prop_map(|shift| Layout::Stripe { chunk_sectors: 1 << shift }),
    ]
}

/// A layout and what each of its targets gives.
fn maps() -> impl Strategy<Value = (Layout, Vec<u64>)> {
    (layouts(), 1..=MAX_TARGETS).prop_flat_map(|(layout, count)| {
        let sectors = match layout {
            Layout::Linear => proptest::collection::vec(1..5000u64, count).boxed(),
            Layout::Stripe { chunk_sectors } => (1..20u64)
                .prop_map(move |chunks| vec![chunks * u64::from(chunk_sectors); count])
                .boxed(),
        };
        sectors.prop_map(move |sectors| (layout, sectors))
    })
}

fn map(layout: Layout, sectors: &[u64]) -> Map {
    Map::new(layout, sectors.iter().copied()).unwrap()
}

/// Every sector that the parts of a request touch: target, sector on it, and for data the sector of the request.
fn touched(map: &Map, code: u8, sector: u64, sectors: u64) -> Vec<(usize, u64, u64)> {
    let (mut at, mut all) = (0, Vec::new());
    while let Some(part) = map.part(code, sector, sectors, at) {
        assert!(part.next > at, "it goes on");
        assert!(part.sectors > 0, "no part is empty");
        all.extend((0..part.sectors).map(|n| (part.target, part.sector + n, part.skip + n)));
        at = part.next;
    }
    all
}

proptest! {
    #[test]
    fn every_sector_lies_in_one_place_and_no_two_in_the_same((layout, sectors) in maps()) {
        let map = map(layout, &sectors);
        prop_assert_eq!(map.capacity(), sectors.iter().sum::<u64>());
        let mut seen: Vec<Vec<bool>> =
            sectors.iter().map(|count| vec![false; *count as usize]).collect();
        for sector in 0..map.capacity() {
            let (target, there, room) = map.place(sector).unwrap();
            prop_assert!(!std::mem::replace(&mut seen[target][there as usize], true));
            prop_assert_eq!(map.inverse(target, there), Some(sector));
            // What follows lies behind it.
            if room > 1 {
                prop_assert_eq!(map.place(sector + 1).map(|(t, s, _)| (t, s)), Some((target, there + 1)));
            }
        }
        prop_assert!(seen.iter().flatten().all(|seen| *seen));
        prop_assert_eq!(map.place(map.capacity()), None);
        prop_assert_eq!(map.inverse(0, sectors[0]), None);
    }

    #[test]
    fn the_parts_of_a_request_are_its_sectors_each_once(
        (layout, sectors) in maps(),
        (from, length) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        code in prop_oneof![Just(op::READ), Just(op::WRITE), Just(op::DISCARD), Just(op::WRITE_ZEROES)],
    ) {
        let map = map(layout, &sectors);
        let from = from.index(map.capacity() as usize) as u64;
        let length = 1 + length.index((map.capacity() - from) as usize) as u64;
        let mut found = touched(&map, code, from, length);
        if matches!(code, op::READ | op::WRITE) {
            // Data lies in its order.
            prop_assert!(found.iter().map(|(_, _, data)| *data).eq(0..length));
        }
        found.sort_unstable();
        let places = found.iter().map(|(target, sector, _)| (*target, *sector));
        let mut wanted: Vec<_> = (from..from + length)
            .map(|sector| map.place(sector).map(|(t, s, _)| (t, s)).unwrap())
            .collect();
        wanted.sort_unstable();
        prop_assert!(places.eq(wanted));
    }

    #[test]
    fn a_discard_of_a_stripe_is_one_range_for_each_target(
        shift in 3..8u32,
        count in 1..=MAX_TARGETS,
        from in 0..4000u64,
        length in 1..4000u64,
    ) {
        let chunk_sectors = 1 << shift;
        let each = 8192 / u64::from(chunk_sectors) * u64::from(chunk_sectors);
        let map = map(Layout::Stripe { chunk_sectors }, &vec![each; count]);
        let (mut at, mut parts) = (0, Vec::new());
        while let Some(part) = map.part(op::DISCARD, from, length, at) {
            parts.push(part.target);
            at = part.next;
        }
        let mut once = parts.clone();
        once.dedup();
        prop_assert_eq!(parts, once);
    }

    #[test]
    fn a_flush_goes_to_each_target_once((layout, sectors) in maps()) {
        let map = map(layout, &sectors);
        let (mut at, mut targets) = (0, Vec::new());
        while let Some(part) = map.part(op::FLUSH, 0, 0, at) {
            prop_assert_eq!((part.sector, part.sectors), (0, 0));
            targets.push(part.target);
            at = part.next;
        }
        prop_assert!(targets.into_iter().eq(0..sectors.len()));
    }

    #[test]
    fn what_targets_give_is_a_map_and_no_more_than_they_have(
        layout in layouts(),
        has in proptest::collection::vec(0..1u64 << 24, 1..=MAX_TARGETS),
        asked in 0..1u64 << 24,
        block_bytes in prop_oneof![Just(512), Just(4096)],
    ) {
        let shares: Vec<_> = has
            .iter()
            .enumerate()
            .map(|(at, has)| Share { asked: if at % 2 == 0 { asked } else { 0 }, has: *has })
            .collect();
        match share(layout, block_bytes, &shares) {
            Ok(given) => {
                let given = &given[..shares.len()];
                let map = Map::new(layout, given.iter().copied());
                prop_assert_eq!(map.map(|map| map.capacity()), Some(given.iter().sum()));
                for (given, share) in given.iter().zip(&shares) {
                    prop_assert!(*given <= share.has && given % u64::from(block_bytes / 512) == 0);
                    prop_assert!(share.asked == 0 || share.asked == *given);
                }
            }
            Err((at, _)) => prop_assert!(at < shares.len()),
        }
    }

    #[test]
    fn the_limits_over_any_targets_are_those_of_a_device_that_can_be(
        layout in layouts(),
        all in proptest::collection::vec(facts(), 1..=MAX_TARGETS),
    ) {
        let limits = Limits::over(layout, 0, all.iter().copied()).unwrap();
        prop_assert!(limits.spec(1 << 20, 0, 0).is_valid(), "{:?}", limits);
        let has = |bit: u32| limits.features & bit != 0;
        let any = |bit: u32| all.iter().any(|facts| facts.features & bit != 0);
        prop_assert_eq!(has(feature::WRITE_CACHE), any(feature::WRITE_CACHE));
        prop_assert_eq!(has(feature::READ_ONLY), any(feature::READ_ONLY));
        for facts in &all {
            prop_assert!(limits.logical_block_bytes >= facts.logical_block_bytes);
            prop_assert!(limits.max_sectors <= facts.max_sectors.max(8) || facts.max_sectors == 0);
            prop_assert!(limits.max_write_zeroes_sectors == 0 || facts.max_write_zeroes_sectors != 0);
            prop_assert!(limits.max_discard_sectors == 0 || facts.max_discard_sectors != 0);
            let lies = facts.features & (feature::WRITE_CACHE | feature::FUA) == feature::WRITE_CACHE;
            prop_assert!(!(has(feature::FUA) && lies));
        }
        let bytes = limits.to_bytes();
        let read = Limits::decode(&mut atom_abi::image::Fields::new(&bytes));
        prop_assert_eq!(read, Ok(Some(limits)));
    }
}

fn facts() -> impl Strategy<Value = Facts> {
    let blocks =
        (9..=12u32, 0..6u32).prop_map(|(logical, more)| (1 << logical, 1 << (logical + more)));
    let io = (0..1u32 << 20, 0..1u32 << 22, 0..1u32 << 16);
    let ranges = (0..1u32 << 16, any::<u32>(), any::<u32>());
    (blocks, io, ranges, 0..16384u32, 0..8u32).prop_map(|(blocks, io, ranges, mask, features)| {
        Facts {
            sectors: 1 << 30,
            logical_block_bytes: blocks.0,
            physical_block_bytes: blocks.1,
            io_min_bytes: io.0,
            io_opt_bytes: io.1,
            max_sectors: io.2,
            discard_granularity_bytes: ranges.0,
            max_discard_sectors: ranges.1,
            max_write_zeroes_sectors: ranges.2,
            dma_alignment_mask: mask,
            features,
        }
    })
}

#[test]
fn a_block_that_is_smaller_than_those_of_a_target_names_the_target() {
    let disk = Facts { logical_block_bytes: 4096, ..Facts::of_memory(1 << 20) };
    let all = [Facts::of_memory(1 << 20), disk];
    assert_eq!(Limits::over(Layout::Linear, 512, all.into_iter()), Err(1));
    assert!(Limits::over(Layout::Linear, 4096, all.into_iter()).is_ok());
}

#[test]
fn a_target_that_does_not_fit_is_named_with_the_reason() {
    let stripe = Layout::Stripe { chunk_sectors: 128 };
    let all = |has| Share { asked: 0, has };
    let some = |asked, has| Share { asked, has };
    let judge = |layout, shares: &[Share]| share(layout, 4096, shares).map(|given| given[0]);
    assert_eq!(judge(Layout::Linear, &[all(100), some(8, 7)]), Err((1, Misfit::TooSmall)));
    assert_eq!(judge(Layout::Linear, &[some(9, 100)]), Err((0, Misfit::NotWhole(8))));
    assert_eq!(judge(Layout::Linear, &[all(100), all(7)]), Err((1, Misfit::Empty)));
    assert_eq!(judge(Layout::Linear, &[all(100)]), Ok(96));
    assert_eq!(judge(stripe, &[all(1000), all(300)]), Ok(256));
    assert_eq!(judge(stripe, &[some(128, 1000), some(256, 300)]), Err((1, Misfit::Unequal)));
    assert_eq!(judge(stripe, &[some(512, 1000), all(300)]), Err((1, Misfit::TooSmall)));
    assert_eq!(judge(stripe, &[all(1000), all(100)]), Err((0, Misfit::Empty)));
}

#[test]
fn a_map_of_no_targets_of_none_or_of_unequal_chunks_cannot_be() {
    let stripe = Layout::Stripe { chunk_sectors: 8 };
    let made = |layout, sectors: &[u64]| Map::new(layout, sectors.iter().copied()).is_some();
    assert!(!made(Layout::Linear, &[]));
    assert!(!made(Layout::Linear, &[8, 0]));
    assert!(!made(Layout::Linear, &[u64::MAX, 1]));
    assert!(!made(Layout::Linear, &[i64::MAX as u64]));
    assert!(!made(Layout::Linear, &[8; MAX_TARGETS + 1]));
    assert!(!made(stripe, &[8, 16]));
    assert!(!made(stripe, &[12, 12]));
    assert!(made(stripe, &[16, 16]));
}
