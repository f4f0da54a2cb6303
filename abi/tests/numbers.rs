// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Numbers that others were compiled with, and the words for them.

use std::collections::BTreeSet;

use atom_abi::control::{self, cause, policy, setting};
use atom_abi::device::feature;
use atom_abi::image::{ImageError, MANDATORY, MAX_BYTES};
use atom_abi::request::{flags, op, SCRATCH_BYTES};
use atom_abi::table::{adopt_flags, MAX_COMMAND_BYTES};
use atom_abi::text::Text;

#[test]
fn an_ioctl_has_the_number_that_c_programs_get_from_the_kernels_macro() {
    // `_IOWR(0xea, number, structure)`, with the sizes in layout/v1.5.txt.
    assert_eq!(control::IOC_STATUS, 0xc120_ea01);
    assert_eq!(control::IOC_PAYLOAD, 0xc0a8_ea02);
    assert_eq!(control::IOC_DEVICE, 0xc038_ea03);
    assert_eq!(control::IOC_SWITCH, 0xc480_ea04);
    assert_eq!(control::IOC_ABANDON, 0xc480_ea05);
    assert_eq!(control::IOC_ADOPT, 0xc480_ea06);
    assert_eq!(control::IOC_COMMAND, 0xc020_ea07);
    assert_eq!(control::IOC_REPORT, 0xc470_ea08);
    assert_eq!(control::IOC_SETTINGS, 0xc070_ea09);
    assert_eq!(control::IOC_COMMIT, 0xc008_ea0a);
}

#[test]
fn each_feature_of_a_device_is_one_bit_and_the_kernel_has_three_of_them_by_the_same_number() {
    // `BLK_FEAT_WRITE_CACHE`, `BLK_FEAT_FUA` and `BLK_FEAT_ROTATIONAL` of include/linux/blkdev.h.
    assert_eq!([feature::WRITE_CACHE, feature::FUA, feature::ROTATIONAL], [1, 2, 4]);
    let ours = [feature::POLLED, feature::SLEEPS, feature::READ_ONLY];
    assert_eq!(ours, [0x2000_0000, 0x4000_0000, 0x8000_0000]);
    assert_eq!(feature::KERNEL, 0x0000_0007);
    assert_eq!(feature::ALL, 0xe000_0007);
}

#[test]
fn each_flag_is_the_bit_that_payloads_and_images_have_it_by() {
    assert_eq!([flags::FUA, flags::NOUNMAP, flags::REPLAY, flags::MORE], [1, 2, 4, 8]);
    assert_eq!([setting::HOLD, setting::SOAK, setting::ALL], [1, 2, 3]);
    assert_eq!([policy::AT_DEADLINE, policy::FORSAKE], [0xff, 0x100]);
    assert_eq!(adopt_flags::CHECKPOINT, 1);
    assert_eq!(MANDATORY, 1);
}

#[test]
fn the_sizes_that_a_payload_may_count_on_are_these() {
    assert_eq!(SCRATCH_BYTES, 128);
    assert_eq!(MAX_COMMAND_BYTES, 65_536);
    assert_eq!(MAX_BYTES, 67_108_864);
}

#[test]
fn each_operation_has_the_name_that_messages_have_for_it() {
    let named = [
        (op::READ, "read"),
        (op::WRITE, "write"),
        (op::FLUSH, "flush"),
        (op::DISCARD, "discard"),
        (op::WRITE_ZEROES, "write-zeroes"),
    ];
    for code in 0..=u8::MAX {
        let name = named.iter().find(|(known, _)| *known == code).map_or("other", |(_, name)| name);
        assert_eq!(op::name(code), name, "{code}");
    }
}

#[test]
fn each_cause_of_a_handoff_has_the_name_that_reports_have_for_it() {
    let names = ["asked", "stall", "no-commit", "nobody", "died", "unknown"];
    let codes = [cause::ASKED, cause::STALL, cause::NO_COMMIT, cause::NOBODY, cause::DIED, 5];
    assert_eq!(codes.map(cause::name_of), names);
    assert_eq!(cause::name_of(u32::MAX), "unknown");
}

#[test]
fn what_is_wrong_with_an_image_is_said_in_words_and_numbers_of_its_own() {
    let errors = [
        ImageError::NoRoom,
        ImageError::Truncated,
        ImageError::NotAnImage,
        ImageError::Format(77),
        ImageError::Checksum,
        ImageError::Inconsistent,
        ImageError::UnknownRecord(0xabc),
        ImageError::BadRecord(0xabc),
    ];
    let texts: BTreeSet<String> = errors.iter().map(ImageError::to_string).collect();
    assert_eq!(texts.len(), errors.len(), "{texts:?}");
    assert!(ImageError::Format(77).to_string().contains("77"));
    assert!(ImageError::UnknownRecord(0xabc).to_string().contains("0xabc"));
    assert!(ImageError::BadRecord(0xabc).to_string().contains("0xabc"));
}

#[test]
fn a_text_is_shown_as_far_as_it_is_one() {
    let text = Text::new("1.2.0");
    assert_eq!(format!("{text} {text:?}"), "1.2.0 \"1.2.0\"");
    assert!(!text.is_empty() && Text::EMPTY.is_empty() && Text::new("").is_empty());
    let mut bytes = [0xff; 64];
    bytes[..2].copy_from_slice(b"ok");
    assert_eq!(Text::from_bytes(bytes).as_str(), "ok", "what follows is no text");
    assert_eq!(Text::from_bytes(bytes).to_bytes(), bytes, "and is kept as it is");
    let long = "x".repeat(100);
    assert_eq!(Text::new(&long).as_str(), &long[..64], "as much as there is room for");
}
