// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What the limits of targets make of the device above them, limit by limit.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

use atom_abi::device::{feature, DeviceSpec};
use atom_abi::image::{Fields, ImageError};
use atom_payload::limits::{Facts, Limits, FACTS_BYTES, LIMITS_BYTES, MAX_RANGE_SECTORS};
use atom_payload::shape::{MAX_CLEAR_SECTORS, MAX_TRANSFER_SECTORS};
use atom_payload::spec::Layout;

const STRIPE: Layout = Layout::Stripe { chunk_sectors: 64 };

/// A disk with every limit set, each to a number of its own.
fn disk() -> Facts {
    Facts {
        sectors: 1 << 20,
        logical_block_bytes: 1024,
        physical_block_bytes: 4096,
        io_min_bytes: 8192,
        io_opt_bytes: 65_536,
        max_sectors: 512,
        discard_granularity_bytes: 4096,
        max_discard_sectors: 2048,
        max_write_zeroes_sectors: 4096,
        dma_alignment_mask: 3,
        features: feature::FUA,
    }
}

/// The limits of two disks, of which the second is otherwise.
fn with(layout: Layout, change: impl FnOnce(&mut Facts)) -> Limits {
    let mut other = disk();
    change(&mut other);
    Limits::over(layout, 0, [disk(), other].into_iter()).unwrap()
}

#[test]
fn a_disk_alone_gives_its_limits_to_the_volume() {
    let limits = Limits::over(Layout::Linear, 0, [disk()].into_iter()).unwrap();
    let wanted = Limits {
        logical_block_bytes: 1024,
        physical_block_bytes: 4096,
        io_min_bytes: 8192,
        io_opt_bytes: 65_536,
        max_sectors: 512,
        discard_granularity_bytes: 4096,
        max_discard_sectors: 2048,
        max_write_zeroes_sectors: 4096,
        dma_alignment_mask: 3,
        chunk_sectors: 0,
        features: 0,
    };
    assert_eq!(limits, wanted);
}

#[test]
fn of_two_disks_the_one_that_can_do_less_counts() {
    let linear = |change: fn(&mut Facts)| with(Layout::Linear, change);
    assert_eq!(linear(|disk| disk.logical_block_bytes = 2048).logical_block_bytes, 2048);
    assert_eq!(linear(|disk| disk.logical_block_bytes = 512).logical_block_bytes, 1024);
    assert_eq!(linear(|disk| disk.physical_block_bytes = 8192).physical_block_bytes, 8192);
    assert_eq!(linear(|disk| disk.io_min_bytes = 16_384).io_min_bytes, 16_384);
    assert_eq!(linear(|disk| disk.io_opt_bytes = 131_072).io_opt_bytes, 131_072);
    assert_eq!(linear(|disk| disk.max_sectors = 128).max_sectors, 128);
    assert_eq!(linear(|disk| disk.max_sectors = 0).max_sectors, 512, "0 binds nothing");
    assert_eq!(
        linear(|disk| disk.discard_granularity_bytes = 8192).discard_granularity_bytes,
        8192
    );
    assert_eq!(linear(|disk| disk.max_discard_sectors = 1024).max_discard_sectors, 1024);
    assert_eq!(linear(|disk| disk.max_write_zeroes_sectors = 64).max_write_zeroes_sectors, 64);
    assert_eq!(linear(|disk| disk.dma_alignment_mask = 511).dma_alignment_mask, 511);
}

#[test]
fn what_one_disk_cannot_do_at_all_the_volume_cannot() {
    let discards = |limits: Limits| (limits.discard_granularity_bytes, limits.max_discard_sectors);
    let linear = |change: fn(&mut Facts)| with(Layout::Linear, change);
    assert_eq!(discards(linear(|disk| disk.discard_granularity_bytes = 0)), (0, 0));
    assert_eq!(discards(linear(|disk| disk.max_discard_sectors = 0)), (0, 0));
    assert_eq!(linear(|disk| disk.max_write_zeroes_sectors = 0).max_write_zeroes_sectors, 0);
}

#[test]
fn a_write_cache_of_one_is_one_of_all_and_fua_needs_every_disk() {
    let cache = feature::WRITE_CACHE;
    let features = |one: u32, other: u32| {
        let disks = [one, other].map(|features| Facts { features, ..disk() });
        Limits::over(Layout::Linear, 0, disks.into_iter()).unwrap().features
    };
    assert_eq!(features(0, 0), 0);
    assert_eq!(features(0, feature::FUA), 0, "without a cache there is nothing to force");
    assert_eq!(features(cache, 0), cache);
    assert_eq!(features(cache | feature::FUA, 0), cache | feature::FUA, "the other has no cache");
    assert_eq!(features(cache | feature::FUA, cache), cache, "the other cannot");
    assert_eq!(features(0, feature::ROTATIONAL), feature::ROTATIONAL);
    assert_eq!(features(feature::READ_ONLY, 0), feature::READ_ONLY);
}

#[test]
fn a_stripe_has_the_limits_of_its_chunks() {
    let limits = with(STRIPE, |_| {});
    assert_eq!(limits.chunk_sectors, 64);
    assert_eq!((limits.io_min_bytes, limits.io_opt_bytes), (64 * 512, 2 * 64 * 512));
    assert_eq!(limits.max_sectors, 512, "what is longer is split at the chunks");
}

#[test]
fn lengths_come_in_whole_blocks() {
    let linear = |change: fn(&mut Facts)| with(Layout::Linear, change);
    assert_eq!(linear(|disk| disk.io_min_bytes = 9000).io_min_bytes, 8192);
    assert_eq!(linear(|disk| disk.io_opt_bytes = 70_000).io_opt_bytes, 69_632);
    let odd = linear(|disk| disk.discard_granularity_bytes = 5000);
    assert_eq!(odd.discard_granularity_bytes, 5120, "no less than the disk asks for");
    assert_eq!(linear(|disk| disk.max_discard_sectors = 1023).max_discard_sectors, 1022);
    assert_eq!(linear(|disk| disk.max_discard_sectors = 1).max_discard_sectors, 2, "one block");
    assert_eq!(linear(|disk| disk.max_write_zeroes_sectors = 7).max_write_zeroes_sectors, 6);
    assert_eq!(linear(|disk| disk.physical_block_bytes = 5000).physical_block_bytes, 8192);
    assert_eq!(linear(|disk| disk.dma_alignment_mask = 4).dma_alignment_mask, 7, "a mask");
}

#[test]
fn numbers_that_are_too_large_are_cut_to_what_there_can_be() {
    let disk = Facts {
        physical_block_bytes: u32::MAX,
        io_min_bytes: u32::MAX,
        max_sectors: u32::MAX,
        discard_granularity_bytes: 1024,
        max_discard_sectors: u32::MAX,
        max_write_zeroes_sectors: u32::MAX,
        dma_alignment_mask: u32::MAX,
        ..disk()
    };
    let limits = Limits::over(Layout::Linear, 0, [disk].into_iter()).unwrap();
    assert_eq!(limits.physical_block_bytes, 1 << 20);
    assert_eq!(limits.max_sectors, MAX_TRANSFER_SECTORS);
    // As many whole MiB as a request has bytes for.
    assert_eq!(MAX_RANGE_SECTORS, 8_386_560);
    assert_eq!(limits.max_discard_sectors, MAX_RANGE_SECTORS);
    assert_eq!(limits.max_write_zeroes_sectors, MAX_RANGE_SECTORS);
    assert_eq!(limits.dma_alignment_mask, 4095);
    let short = Facts { max_sectors: 1, ..disk };
    let limits = Limits::over(Layout::Linear, 0, [short].into_iter()).unwrap();
    assert_eq!(limits.max_sectors, 8, "a page, at least");
}

#[test]
fn a_block_that_was_asked_for_is_taken_where_every_disk_has_it() {
    let over = |block_bytes| Limits::over(Layout::Linear, block_bytes, [disk()].into_iter());
    assert_eq!(over(4096).unwrap().logical_block_bytes, 4096);
    assert_eq!(over(1024).unwrap().logical_block_bytes, 1024);
    assert_eq!(over(512), Err(0));
}

#[test]
fn a_target_in_memory_has_no_limit_but_what_one_request_may_clear() {
    let facts = Facts::of_memory(77);
    assert_eq!((facts.sectors, facts.logical_block_bytes), (77, 512));
    let limits = Limits::over(Layout::Linear, 0, [facts].into_iter()).unwrap();
    assert_eq!(limits.max_sectors, MAX_TRANSFER_SECTORS);
    assert_eq!(limits.max_discard_sectors, MAX_CLEAR_SECTORS);
    assert_eq!(limits.max_write_zeroes_sectors, MAX_CLEAR_SECTORS);
}

#[test]
fn the_device_is_asked_for_with_every_limit() {
    let features = feature::WRITE_CACHE;
    let larger = |disk: &mut Facts| disk.physical_block_bytes = 8192;
    let limits = Limits { features, dma_alignment_mask: 7, ..with(STRIPE, larger) };
    assert_ne!(limits.physical_block_bytes, DeviceSpec::new(0).physical_block_bytes);
    let wanted = DeviceSpec {
        features,
        logical_block_bytes: limits.logical_block_bytes,
        physical_block_bytes: limits.physical_block_bytes,
        max_sectors: limits.max_sectors,
        discard_granularity_bytes: limits.discard_granularity_bytes,
        max_discard_sectors: limits.max_discard_sectors,
        max_write_zeroes_sectors: limits.max_write_zeroes_sectors,
        io_min_bytes: limits.io_min_bytes,
        io_opt_bytes: limits.io_opt_bytes,
        chunk_sectors: 64,
        dma_alignment_mask: 7,
        hw_queues: 3,
        queue_depth: 32,
        ..DeviceSpec::new(1 << 20)
    };
    assert_eq!(limits.spec(1 << 20, 3, 32), wanted);
}

#[test]
fn limits_and_facts_are_read_as_they_were_written() {
    let facts = disk();
    assert_eq!(Facts::decode(&mut Fields::new(&facts.to_bytes())), Ok(facts));
    let limits = Limits { features: 5, ..with(STRIPE, |_| {}) };
    let bytes = limits.to_bytes();
    assert_eq!(Limits::decode(&mut Fields::new(&bytes)), Ok(Some(limits)));
    for length in 0..LIMITS_BYTES {
        let short = Limits::decode(&mut Fields::new(&bytes[..length]));
        assert_eq!(short, Err(ImageError::Truncated), "{length}");
    }
    let mut unknown = bytes;
    unknown[LIMITS_BYTES - 1] = 1;
    assert_eq!(Limits::decode(&mut Fields::new(&unknown)), Ok(None), "what must be zero is not");
    assert_eq!((FACTS_BYTES, LIMITS_BYTES), (48, 48));
}
