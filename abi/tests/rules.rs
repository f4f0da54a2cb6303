// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The small rules: what is reissued, what a drain waits for first, how a device may change, what settings become.

use std::collections::BTreeSet;

use atom_abi::control::{
    self, hold, number, policy, setting, stage, Settings, IOC_COMMIT, IOC_SETTINGS, IOC_STATUS,
    MAX_DEADLINE_NS,
};
use atom_abi::device::{
    feature, ChangeError, DeviceSpec, MAX_DMA_ALIGNMENT_MASK, MAX_HW_QUEUES, MAX_QUEUE_DEPTH,
    MAX_TIMEOUT_MS,
};
use atom_abi::request::{op, reissue, stage_of, Reissue};
use atom_abi::text::Text;

#[test]
fn everything_but_a_discard_is_replayed() {
    for code in 0..=u8::MAX {
        let wanted = if code == op::DISCARD { Reissue::Done } else { Reissue::Replay };
        assert_eq!(reissue(code), wanted, "{}", op::name(code));
    }
}

#[test]
fn flushes_are_waited_for_in_a_stage_of_their_own() {
    for code in 0..=u8::MAX {
        let wanted = if code == op::FLUSH { stage::FLUSHES } else { stage::DATA };
        assert_eq!(stage_of(code), wanted, "{}", op::name(code));
    }
    assert_ne!(stage::NAMES[stage::FLUSHES], stage::NAMES[stage::DATA]);
}

fn spec() -> DeviceSpec {
    DeviceSpec { hw_queues: 2, queue_depth: 64, ..DeviceSpec::new(1 << 20) }
}

fn change(to: impl FnOnce(&mut DeviceSpec)) -> [Result<(), ChangeError>; 2] {
    let mut wanted = spec();
    to(&mut wanted);
    [false, true].map(|open| spec().check_change(&wanted, open))
}

#[test]
fn a_change_that_no_holder_notices_badly_is_made_whether_the_device_is_open_or_not() {
    let same = [Ok(()), Ok(())];
    assert_eq!(change(|_| {}), same, "nothing at all");
    assert_eq!(change(|spec| spec.capacity_sectors *= 2), same, "growing");
    assert_eq!(change(|spec| spec.features |= feature::WRITE_CACHE | feature::FUA), same);
    assert_eq!(change(|spec| spec.features |= feature::READ_ONLY), same);
    assert_eq!(change(|spec| spec.max_sectors = 8), same);
    assert_eq!(change(|spec| spec.timeout_ms = MAX_TIMEOUT_MS), same);
    assert_eq!(change(|spec| spec.io_min_bytes = 1 << 16), same);
    assert_eq!(change(|spec| spec.io_opt_bytes = 1 << 20), same);
    assert_eq!(change(|spec| spec.chunk_sectors = 128), same);
    assert_eq!(change(|spec| spec.dma_alignment_mask = MAX_DMA_ALIGNMENT_MASK), same);
    let discard = |spec: &mut DeviceSpec| {
        spec.discard_granularity_bytes = 4096;
        spec.max_discard_sectors = 1024;
    };
    assert_eq!(change(discard), same);
    let queues_left_alone = |spec: &mut DeviceSpec| {
        spec.hw_queues = 0;
        spec.queue_depth = 0;
    };
    assert_eq!(change(queues_left_alone), same);
}

#[test]
fn a_change_that_would_break_a_holder_is_made_only_while_there_is_none() {
    let breaks = [Ok(()), Err(ChangeError::Holder)];
    assert_eq!(change(|spec| spec.capacity_sectors -= 8), breaks, "shrinking");
    assert_eq!(change(|spec| spec.logical_block_bytes = 4096), breaks, "a larger block");
    let mut large = spec();
    large.logical_block_bytes = 4096;
    assert_eq!(large.check_change(&spec(), true), Ok(()), "a smaller block breaks nobody");
}

#[test]
fn a_change_of_what_cannot_be_changed_is_never_made() {
    let never = [Err(ChangeError::Invalid); 2];
    assert_eq!(change(|spec| spec.hw_queues = 1), never);
    assert_eq!(change(|spec| spec.queue_depth = 65), never);
    assert_eq!(change(|spec| spec.capacity_sectors = 0), never);
    assert_eq!(change(|spec| spec.features = 1 << 28), never, "an unknown feature");
    assert_eq!(change(|spec| spec.features |= feature::SLEEPS), never, "its dispatch is for life");
    let sleeping = DeviceSpec { features: feature::SLEEPS, ..spec() };
    assert_eq!(sleeping.check_change(&spec(), false), Err(ChangeError::Invalid));
    assert_eq!(sleeping.check_change(&sleeping, true), Ok(()));
    assert_eq!(change(|spec| spec.timeout_ms = MAX_TIMEOUT_MS + 1), never);
    assert_eq!(change(|spec| spec.max_sectors = 7), never);
    assert_eq!(change(|spec| spec.logical_block_bytes = 513), never);
    assert_eq!(change(|spec| spec.discard_granularity_bytes = 4096), never, "without a length");
    let not_whole_blocks = |spec: &mut DeviceSpec| {
        spec.logical_block_bytes = 4096;
        spec.capacity_sectors = 9;
    };
    assert_eq!(change(not_whole_blocks), never);
    assert_eq!(change(|spec| spec.dma_alignment_mask = 8), never, "no mask");
    assert_eq!(change(|spec| spec.dma_alignment_mask = 8191), never, "more than a page");
    assert_eq!(change(|spec| spec.io_min_bytes = 700), never, "no whole blocks");
    assert_eq!(change(|spec| spec.io_opt_bytes = 1025), never, "no whole blocks");
    // The kind of refusal that weighs more comes first.
    let both = |spec: &mut DeviceSpec| {
        spec.capacity_sectors = 8;
        spec.hw_queues = 1;
    };
    assert_eq!(change(both), never);
}

#[test]
fn a_device_that_was_changed_is_what_was_wanted_with_the_queues_that_it_had() {
    let wanted = DeviceSpec { max_sectors: 16, ..DeviceSpec::new(1 << 21) };
    let changed = spec().changed_to(&wanted);
    assert_eq!(changed, DeviceSpec { hw_queues: 2, queue_depth: 64, ..wanted });
    assert_eq!(spec().changed_to(&spec()), spec());
}

#[test]
fn whether_a_device_has_queues_for_polled_io_is_settled_when_it_is_made() {
    let polled = DeviceSpec { features: feature::POLLED | feature::FUA, ..spec() };
    assert!(polled.is_valid());
    // Who changes it need not know of them, and cannot give it any.
    for (now, wanted) in [(polled, spec()), (spec(), polled)] {
        assert_eq!(now.check_change(&wanted, true), Ok(()));
        let changed = now.changed_to(&wanted);
        assert_eq!(changed.features & feature::POLLED, now.features & feature::POLLED);
        assert_eq!(changed.features & feature::FUA, wanted.features & feature::FUA);
    }
}

#[test]
fn a_device_can_be_as_large_and_as_small_as_this_and_no_more() {
    let valid = |change: &dyn Fn(&mut DeviceSpec)| {
        let mut spec = spec();
        change(&mut spec);
        spec.is_valid()
    };
    let largest = i64::MAX as u64 / 512;
    assert!(valid(&|spec| spec.capacity_sectors = 1) && valid(&|s| s.capacity_sectors = largest));
    assert!(!valid(&|spec| spec.capacity_sectors = 0));
    assert!(!valid(&|spec| spec.capacity_sectors = largest + 1), "more bytes than a number has");
    assert!(valid(&|spec| spec.size = 48) && !valid(&|spec| spec.size = 47));
    assert!(
        valid(&|s| s.hw_queues = MAX_HW_QUEUES) && !valid(&|s| s.hw_queues = MAX_HW_QUEUES + 1)
    );
    let deepest = MAX_QUEUE_DEPTH;
    assert!(valid(&|s| s.queue_depth = deepest) && !valid(&|s| s.queue_depth = deepest + 1));
    assert!(valid(&|s| s.max_segments = 65_535) && !valid(&|s| s.max_segments = 65_536));
    assert!(!valid(&|spec| spec.logical_block_bytes = 256), "less than a sector");
    assert!(!valid(&|spec| spec.logical_block_bytes = 8192), "more than a page");
    assert!(valid(&|s| s.physical_block_bytes = 1 << 20), "a mebibyte");
    assert!(!valid(&|s| s.physical_block_bytes = 1 << 21), "more than that");
    assert!(!valid(&|s| s.physical_block_bytes = 3072), "no power of two");
    assert!(!valid(&|s| s.physical_block_bytes = 256), "less than a logical block");
    let discard = |granularity: u32, sectors: u32| {
        valid(&|spec| {
            spec.discard_granularity_bytes = granularity;
            spec.max_discard_sectors = sectors;
        })
    };
    assert!(discard(0, 0) && discard(0, 8) && discard(1024, 1));
    assert!(!discard(1024, 0), "a discard of nothing");
    assert!(!discard(700, 8), "no whole blocks");
}

#[test]
fn what_suits_a_device_comes_in_its_blocks() {
    let with = |change: &dyn Fn(&mut DeviceSpec)| {
        let mut spec = DeviceSpec { logical_block_bytes: 4096, ..spec() };
        change(&mut spec);
        spec.is_valid()
    };
    assert!(with(&|_| {}));
    for (sectors, valid) in [(1, false), (7, false), (8, true), (12, false), (24, true)] {
        assert_eq!(with(&|spec| spec.chunk_sectors = sectors), valid, "chunks of {sectors}");
        let bytes = sectors * 512;
        assert_eq!(with(&|spec| spec.io_min_bytes = bytes), valid, "at least {bytes}");
        assert_eq!(with(&|spec| spec.io_opt_bytes = bytes), valid, "best with {bytes}");
    }
    let masks: Vec<u32> =
        (0..=8192).filter(|mask| with(&|spec| spec.dma_alignment_mask = *mask)).collect();
    assert_eq!(masks, [0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 2047, 4095]);
    assert!(!with(&|spec| spec.dma_alignment_mask = u32::MAX));
}

#[test]
fn of_a_spec_as_much_is_taken_as_both_sides_know() {
    let all = size_of::<DeviceSpec>();
    let versions = [DeviceSpec::BYTES_1_0, DeviceSpec::BYTES_1_1, all];
    assert_eq!(versions, [48, 56, 72]);
    for size in 0..200 {
        let newest = versions.into_iter().rev().find(|version| *version <= size);
        assert_eq!(DeviceSpec::bytes_taken(size), newest, "{size}");
    }
}

#[test]
fn a_text_in_one_line_has_lost_nothing_but_its_controls() {
    let one_line = |text| Text::new(text).one_line();
    assert_eq!(one_line("ein Fehler: größer").as_str(), "ein Fehler: größer");
    assert_eq!(one_line("a\nATOM_EVENT=switch\x1b[2J\t\x7f").as_str(), "a ATOM_EVENT=switch [2J  ");
    assert!(one_line("").is_empty());
    let cut = Text::from_bytes([0xff; 64]).one_line();
    assert!(cut.is_empty(), "what is no text stays none");
}

fn wanted(change: u32) -> Settings {
    Settings {
        change,
        hold: hold::FALLBACK,
        back_policy: policy::FAIL,
        hold_deadline_ns: 1,
        soak_ns: 2,
        stall_ns: 3,
        back_deadline_ns: 4,
        fallback: Text::new("payload_safe"),
        ..Settings::DEFAULT
    }
}

/// Whether the part about holding, and that about soaking, is as wanted; each is so as a whole or not at all.
fn changed(next: &Settings) -> (bool, bool) {
    let holds = |s: &Settings| (s.hold, s.hold_deadline_ns, s.fallback);
    let soaks = |s: &Settings| (s.back_policy, s.soak_ns, s.stall_ns, s.back_deadline_ns);
    let (before, after) = (Settings::DEFAULT, wanted(0));
    assert!(holds(next) == holds(&before) || holds(next) == holds(&after));
    assert!(soaks(next) == soaks(&before) || soaks(next) == soaks(&after));
    (holds(next) == holds(&after), soaks(next) == soaks(&after))
}

#[test]
fn settings_change_in_what_was_asked_for_and_in_nothing_else() {
    for (change, parts) in [
        (0, (false, false)),
        (setting::HOLD, (true, false)),
        (setting::SOAK, (false, true)),
        (setting::ALL, (true, true)),
    ] {
        let next = Settings::DEFAULT.changed_by(&wanted(change)).expect("a valid change");
        assert_eq!(changed(&next), parts, "{change:#b}");
        assert_eq!(next.size, Settings::DEFAULT.size, "the size is Atom's own");
        assert!(Settings { change: 0, ..next }.is_valid());
    }
}

#[test]
fn settings_that_cannot_be_acted_on_change_nothing() {
    let refused = |wrong: &dyn Fn(&mut Settings)| {
        let mut settings = wanted(setting::ALL);
        wrong(&mut settings);
        Settings::DEFAULT.changed_by(&settings).is_none()
    };
    assert!(!refused(&|_| {}), "as it is, it is taken");
    assert!(refused(&|s| s.change = setting::ALL + 1), "an unknown part");
    assert!(refused(&|s| s.change = 1 << 31));
    assert!(refused(&|s| s.hold = hold::FALLBACK + 1));
    assert!(refused(&|s| s.back_policy = policy::FAIL + 1));
    assert!(refused(&|s| s.back_policy = policy::FORSAKE), "a flag is no policy");
    assert!(refused(&|s| s.back_deadline_ns = MAX_DEADLINE_NS + 1));
    assert!(refused(&|s| s.fallback = Text::EMPTY), "a fallback has a name");
    assert!(!refused(&|s| {
        s.hold = hold::HOLD;
        s.fallback = Text::EMPTY;
    }));
}

#[test]
fn an_ioctl_is_known_by_its_number_whatever_the_size_of_its_structure() {
    let all = [
        IOC_STATUS,
        control::IOC_PAYLOAD,
        control::IOC_DEVICE,
        control::IOC_SWITCH,
        control::IOC_ABANDON,
        control::IOC_ADOPT,
        control::IOC_COMMAND,
        control::IOC_REPORT,
        IOC_SETTINGS,
        IOC_COMMIT,
    ];
    let sizes = 16..30;
    for command in all {
        // `_IOC_SIZE` of the kernel: 14 bits from bit 16.
        for size in [0, 1, 8, 0x3fff] {
            let other = command & !(0x3fff << 16) | size << 16;
            assert_eq!(number(other), number(command), "{command:#x}");
        }
        for bit in (0..32).filter(|bit| !sizes.contains(bit)) {
            assert_ne!(number(command ^ 1 << bit), number(command), "{command:#x} bit {bit}");
        }
        assert_eq!(number(number(command)), number(command));
        assert_eq!(command >> 8 & 0xff, 0xea, "the magic of Atom");
    }
    let numbers: BTreeSet<u32> = all.into_iter().map(number).collect();
    assert_eq!(numbers.len(), all.len(), "no two ioctls have one number");
    assert_eq!(numbers.iter().map(|n| n & 0xff).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
}
