// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The lifecycle, explored from its first state through every event.

use std::collections::{BTreeMap, VecDeque};

use atom_abi::lifecycle::{advance, Event, Inverse, Place, State, Step, Transition};

type Key = (u32, bool);

fn key(state: State) -> Key {
    (state.place.code(), state.ready)
}

fn events() -> impl Iterator<Item = Event> {
    Step::ALL.into_iter().flat_map(|step| [Event::Done(step), Event::Failed(step)])
}

/// Every state that can be reached, with all that can happen in it.
fn explore() -> BTreeMap<Key, (State, Vec<(Event, Transition)>)> {
    let mut seen = BTreeMap::new();
    let mut queue = VecDeque::from([State::INITIAL]);
    while let Some(state) = queue.pop_front() {
        if seen.contains_key(&key(state)) {
            continue;
        }
        let next: Vec<_> =
            events().filter_map(|event| Some((event, advance(state, event).ok()?))).collect();
        queue.extend(next.iter().map(|(_, transition)| transition.to));
        seen.insert(key(state), (state, next));
    }
    seen
}

#[test]
fn every_place_is_reached() {
    let places: std::collections::BTreeSet<u32> =
        explore().keys().map(|(place, _)| *place).collect();
    assert_eq!(places.len(), 6);
}

#[test]
fn every_failure_leads_to_a_state_of_rest() {
    for (state, next) in explore().values() {
        for (event, transition) in next {
            if matches!(event, Event::Failed(_)) {
                assert!(transition.to.at_rest(), "{state:?} {event:?}");
            }
        }
    }
}

#[test]
fn every_step_that_can_succeed_can_fail() {
    for (state, next) in explore().values() {
        for step in Step::ALL {
            let can = |event| next.iter().any(|(other, _)| *other == event);
            assert_eq!(can(Event::Done(step)), can(Event::Failed(step)), "{state:?} {step:?}");
        }
    }
}

#[test]
fn a_failure_takes_back_exactly_what_was_done() {
    for (state, next) in explore().values() {
        for (event, transition) in next {
            let Event::Failed(step) = event else { continue };
            let undone = |inverse| transition.undo.contains(&inverse);
            let closed = matches!(state.place, Place::Closed | Place::Drained | Place::Frozen);
            assert_eq!(undone(Inverse::Thaw), state.place == Place::Frozen, "{state:?}");
            assert_eq!(undone(Inverse::Reopen), closed, "{state:?} {step:?}");
            assert_eq!(undone(Inverse::Unprepare), state.ready, "{state:?} {step:?}");
        }
    }
}

#[test]
fn nothing_but_a_completed_abandon_leaves_devices_without_a_payload() {
    for (state, next) in explore().values() {
        for (event, transition) in next {
            let lost = state.place != Place::Held && transition.to.place == Place::Held;
            assert_eq!(lost, *event == Event::Done(Step::Abandon) && lost, "{state:?} {event:?}");
        }
    }
}

#[test]
fn the_gate_opens_before_the_candidate_lets_go() {
    for (_, next) in explore().values() {
        for (_, transition) in next {
            let at = |wanted| transition.undo.iter().position(|inverse| *inverse == wanted);
            if let (Some(reopen), Some(unprepare)) = (at(Inverse::Reopen), at(Inverse::Unprepare)) {
                assert!(reopen < unprepare);
            }
            if let (Some(thaw), Some(reopen)) = (at(Inverse::Thaw), at(Inverse::Reopen)) {
                assert!(thaw < reopen);
            }
        }
    }
}

#[test]
fn a_payload_serves_again_from_every_state() {
    let states = explore();
    for (start, _) in states.values() {
        let mut queue = VecDeque::from([*start]);
        let mut seen = Vec::new();
        let mut serves = false;
        while let Some(state) = queue.pop_front() {
            serves |= state.gate_open();
            if seen.contains(&state) {
                continue;
            }
            seen.push(state);
            let (_, next) = &states[&key(state)];
            queue.extend(next.iter().map(|(_, transition)| transition.to));
        }
        assert!(serves, "{start:?}");
    }
}
