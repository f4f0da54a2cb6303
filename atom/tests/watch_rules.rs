// SPDX-License-Identifier: GPL-2.0

//! What Atom does by itself.

use atom_abi::control::{cause, hold};
use atom_abi::lifecycle::Place;
use atom_core::watch_rules::{decide, Deed, HeldView, SoakView, TurnView, View, IDLE_NS, TICK_NS};

const NOW: u64 = 10_000_000_000;

fn at(place: Place) -> View {
    View { now_ns: NOW, place, turn: None, held: None, soak: None }
}

fn turn(in_operation: bool, gone: bool, until_ns: u64) -> View {
    let turn = Some(TurnView { gone, in_operation, until_ns });
    View { turn, ..at(Place::Closed) }
}

fn held(policy: u32, deadline_ns: u64) -> View {
    let since_ns = NOW - 1_000_000_000;
    let held = Some(HeldView { since_ns, policy, deadline_ns, acted: false });
    View { held, ..at(Place::Held) }
}

fn soak(change: impl FnOnce(&mut SoakView)) -> View {
    let mut soak = SoakView {
        until_ns: NOW + 5_000_000_000,
        stall_ns: 0,
        oldest_ns: 0,
        not_before_ns: 0,
        dead: false,
    };
    change(&mut soak);
    View { soak: Some(soak), ..at(Place::Live) }
}

#[test]
fn nothing_is_done_where_nothing_can_go_wrong() {
    for place in Place::ALL {
        assert_eq!(decide(&at(place)), (None, IDLE_NS), "{place:?}");
    }
}

#[test]
fn a_handoff_is_taken_over_when_its_task_dies_or_hangs_in_an_operation() {
    assert_eq!(decide(&turn(false, true, NOW + 1)).0, Some(Deed::GoBack), "dead");
    assert_eq!(decide(&turn(true, false, NOW - 1)).0, Some(Deed::GoBack), "hangs");
    assert_eq!(decide(&turn(true, false, NOW)).0, None, "just in time");
    assert_eq!(decide(&turn(false, false, NOW - 1)).0, None, "Atom's own work has no deadline");
}

#[test]
fn a_handoff_is_looked_at_when_it_may_be_late_and_at_each_tick() {
    assert_eq!(decide(&turn(true, false, NOW + 2_000_000)).1, 2_000_000);
    assert_eq!(decide(&turn(true, false, u64::MAX)).1, TICK_NS);
    assert!(decide(&turn(true, false, NOW)).1 > 0, "never without a rest");
}

#[test]
fn nobody_else_acts_while_a_handoff_is_under_way() {
    let due = View { turn: turn(true, false, u64::MAX).turn, ..held(hold::FAIL, 0) };
    assert_eq!(decide(&due).0, None);
}

#[test]
fn held_io_is_acted_upon_once_after_its_deadline_by_the_policy() {
    assert_eq!(decide(&held(hold::HOLD, 0)), (None, IDLE_NS), "hold for ever");
    assert_eq!(decide(&held(hold::FAIL, 1_000_000_001)), (None, 1), "one nanosecond left");
    assert_eq!(decide(&held(hold::FAIL, 1_000_000_000)).0, Some(Deed::Expire));
    assert_eq!(decide(&held(hold::FALLBACK, 1_000_000_000)).0, Some(Deed::Fallback));
    assert_eq!(decide(&held(hold::FAIL, u64::MAX)).0, None, "a deadline that no clock reaches");
    let mut acted = held(hold::FALLBACK, 0);
    acted.held.iter_mut().for_each(|held| held.acted = true);
    assert_eq!(decide(&acted), (None, IDLE_NS), "not twice");
}

#[test]
fn a_soak_ends_with_a_switch_back_for_the_weightiest_reason() {
    let cause_of = |view: &View| decide(view).0;
    assert_eq!(cause_of(&soak(|_| {})), None);
    let late = |soak: &mut SoakView| soak.until_ns = NOW;
    assert_eq!(cause_of(&soak(late)), Some(Deed::SwitchBack(cause::NO_COMMIT)));
    let stalls = |soak: &mut SoakView| {
        late(soak);
        soak.stall_ns = 5;
        soak.oldest_ns = 6;
    };
    assert_eq!(cause_of(&soak(stalls)), Some(Deed::SwitchBack(cause::STALL)));
    let just_in_time = |soak: &mut SoakView| {
        soak.stall_ns = 5;
        soak.oldest_ns = 5;
    };
    assert_eq!(cause_of(&soak(just_in_time)), None, "as long as the limit is not too long");
    let dies = |soak: &mut SoakView| {
        stalls(soak);
        soak.dead = true;
    };
    assert_eq!(cause_of(&soak(dies)), Some(Deed::SwitchBack(cause::DIED)));
    let without_limit = |soak: &mut SoakView| soak.oldest_ns = u64::MAX;
    assert_eq!(cause_of(&soak(without_limit)), None, "no limit was set");
}

#[test]
fn a_soak_is_looked_at_each_tick_only_when_requests_are_watched() {
    assert_eq!(decide(&soak(|_| {})), (None, 5_000_000_000), "nothing but its end");
    assert_eq!(decide(&soak(|soak| soak.stall_ns = 1 << 40)), (None, TICK_NS));
}

#[test]
fn a_switch_back_that_failed_is_tried_again_later() {
    let view = |not_before_ns| {
        soak(|soak| {
            soak.dead = true;
            soak.not_before_ns = not_before_ns;
        })
    };
    assert_eq!(decide(&view(NOW + 7)), (None, 7));
    assert_eq!(decide(&view(NOW)).0, Some(Deed::SwitchBack(cause::DIED)));
}

#[test]
fn a_deed_is_what_its_number_says() {
    let deeds = [Deed::GoBack, Deed::Expire, Deed::Fallback]
        .into_iter()
        .chain((0..5).map(Deed::SwitchBack));
    for (number, deed) in deeds.enumerate() {
        assert_eq!(deed.to_number(), number);
        assert_eq!(Deed::from_number(number), deed);
    }
}
