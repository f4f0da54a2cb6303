// SPDX-License-Identifier: GPL-2.0

//! What a caller of an ioctl may ask for.

use atom_abi::control::{policy, MAX_DEADLINE_NS};
use atom_abi::table::MAX_COMMAND_BYTES;
use atom_core::asked::{asks_for_more, extent, is_wish, room, Extent, Wrong};

const FIRST: usize = 64;
const KNOWN: usize = 96;
const PAGE: usize = 4096;

fn of(size: u32) -> Result<Extent, Wrong> {
    extent(size, FIRST, KNOWN, PAGE)
}

#[test]
fn a_structure_is_read_as_far_as_both_sides_know_it() {
    assert_eq!(of(64), Ok(Extent { common: 64, unknown: 0 }));
    assert_eq!(of(80), Ok(Extent { common: 80, unknown: 0 }));
    assert_eq!(of(96), Ok(Extent { common: 96, unknown: 0 }));
    assert_eq!(of(100), Ok(Extent { common: 96, unknown: 4 }));
}

#[test]
fn one_that_is_too_short_or_too_long_is_refused_by_its_size_alone() {
    for size in [0, 1, 4, 63] {
        assert_eq!(of(size), Err(Wrong::TooShort), "{size}");
    }
    assert_eq!(of(96 + 4096), Ok(Extent { common: 96, unknown: 4096 }));
    for size in [96 + 4097, 1 << 20, u32::MAX] {
        assert_eq!(of(size), Err(Wrong::TooLong), "{size}");
    }
}

#[test]
fn what_is_read_is_what_the_size_says() {
    for size in 64..=(96 + 4096) {
        let Extent { common, unknown } = of(size).expect("a size");
        assert_eq!(common + unknown, size as usize);
        assert!(common <= KNOWN && unknown <= PAGE);
    }
}

#[test]
fn unknown_bytes_ask_for_something_unless_all_are_zero() {
    assert!(!asks_for_more(&[]) && !asks_for_more(&[0; 4096]));
    let mut last = [0; 4096];
    last[4095] = 1;
    assert!(asks_for_more(&last));
}

#[test]
fn a_handoff_is_wished_for_on_known_terms_only() {
    for wanted in [policy::ABORT, policy::REISSUE, policy::FAIL] {
        assert!(is_wish(wanted, 0) && is_wish(wanted, MAX_DEADLINE_NS), "{wanted}");
        assert!(is_wish(wanted | policy::FORSAKE, 1), "{wanted}");
        assert!(!is_wish(wanted, MAX_DEADLINE_NS + 1), "{wanted}");
        for bit in (0..32).map(|bit| 1u32 << bit) {
            let known = policy::AT_DEADLINE | policy::FORSAKE;
            assert!(bit & known != 0 || !is_wish(wanted | bit, 1), "{wanted} and {bit:#x}");
        }
    }
    // To leave what is owed is for a payload that is not asked any more.
    assert!(!is_wish(policy::LEAVE, 1) && is_wish(policy::LEAVE | policy::FORSAKE, 1));
    for wanted in 0..=policy::AT_DEADLINE {
        assert_eq!(is_wish(wanted | policy::FORSAKE, 1), wanted <= policy::LEAVE, "{wanted}");
    }
}

#[test]
fn a_command_has_room_for_what_any_payload_may_be_told() {
    let most = MAX_COMMAND_BYTES;
    assert_eq!(room(0, 0), Some((0, 0)));
    assert_eq!(room(most as u32, u32::MAX), Some((most, most)));
    assert_eq!(room(7, 9), Some((7, 9)));
    for input in [most as u32 + 1, u32::MAX] {
        assert_eq!(room(input, 0), None);
    }
}
