// SPDX-License-Identifier: GPL-2.0

//! What a device finds in its slot, seen by one processor. How several meet in it is explored by the model checker.

use core::ffi::c_void;
use core::ptr::null_mut;

use atom_core::slot::{Seat, Seated, Slot};

/// An address that is compared and never used.
fn entry(number: usize) -> *mut c_void {
    null_mut::<c_void>().wrapping_byte_add(number)
}

fn seat(epoch: u64) -> Seat {
    Seat { entry: entry(0x10), timeout: entry(0x20), commit: entry(0x30), epoch }
}

/// What is found by each of the three entry points.
fn found(slot: &Slot) -> [Option<Seated>; 3] {
    [slot.read(), slot.timeout(), slot.commit()]
}

#[test]
fn nobody_is_in_an_empty_slot() {
    assert_eq!(found(&Slot::empty()), [None; 3]);
}

#[test]
fn each_entry_point_is_found_with_the_cookie_and_the_epoch_of_who_was_put_in() {
    let slot = Slot::empty();
    slot.fill(seat(3), 77);
    let wanted = |number| Some(Seated { entry: entry(number), cookie: 77, epoch: 3 });
    assert_eq!(found(&slot), [wanted(0x10), wanted(0x20), wanted(0x30)]);
}

#[test]
fn nothing_of_who_was_in_a_slot_before_is_left() {
    let slot = Slot::empty();
    slot.fill(seat(3), 77);
    let next = Seat { entry: entry(0x40), timeout: null_mut(), commit: null_mut(), epoch: 4 };
    slot.fill(next, 5);
    let wanted = Seated { entry: entry(0x40), cookie: 5, epoch: 4 };
    assert_eq!(found(&slot), [Some(wanted), None, None], "the next one has neither");
}

#[test]
fn who_was_taken_out_is_called_by_no_entry_point_any_more() {
    let slot = Slot::empty();
    slot.fill(seat(3), 77);
    slot.clear();
    assert_eq!(found(&slot), [None; 3]);
    slot.fill(seat(4), 78);
    assert_eq!(slot.read().map(|seated| (seated.cookie, seated.epoch)), Some((78, 4)));
}
