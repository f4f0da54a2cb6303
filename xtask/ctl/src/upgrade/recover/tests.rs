// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Recoveries of a machine in memory, from every snapshot that there can be. The machine refuses by a panic what no machine would bear: a live module that is
//! removed, a dead payload that is asked, an adopt beside a live payload.

use std::time::Duration;

use atom_abi::control::{payload_state, Settings};
use atom_abi::lifecycle::Place;

use super::super::fake_node::{FakeNode, Step};
use super::super::tests::file;
use super::{recover, Choice, Files, Wish};
use crate::module_file::test_file::TestFile;
use crate::module_file::{ModuleFile, Refused};
use crate::node::Node;
use crate::report::{Recovery, RecoveryOutcome};

pub(super) const A: &str = "1.0.0";
pub(super) const B: &str = "1.1.0";
pub(super) const WISHES: [Wish; 3] = [Wish::Least, Wish::Finish, Wish::Undo];
const LIVE: u32 = payload_state::LIVE;
const LOADED: u32 = payload_state::LOADED;
const PARKED: u32 = payload_state::PARKED;
const DEAD: u32 = payload_state::DEAD;

/// A machine, and the files that lie around.
#[derive(Clone, Debug)]
struct Case {
    place: Place,
    payloads: Vec<(&'static str, u32)>,
    live: u32,
    parked: u32,
    from: Option<&'static str>,
    installed: bool,
    named: Option<&'static str>,
    wish: Wish,
}

impl Case {
    const LIVE_A: Self = Self {
        place: Place::Live,
        payloads: Vec::new(),
        live: 1,
        parked: 0,
        from: None,
        installed: true,
        named: None,
        wish: Wish::Least,
    };

    fn held(payloads: &[(&'static str, u32)]) -> Self {
        let from = Some(A);
        Self { place: Place::Held, live: 0, from, payloads: payloads.to_vec(), ..Self::LIVE_A }
    }

    fn live(payloads: &[(&'static str, u32)], live: u32, parked: u32) -> Self {
        Self { payloads: payloads.to_vec(), live, parked, ..Self::LIVE_A }
    }

    fn machine(&self) -> FakeNode {
        FakeNode::found(self.place, &self.payloads, self.live, self.parked, self.from)
    }

    fn run(&self, node: &FakeNode, dry: bool) -> Recovery {
        run(node, self.wish, self.installed, self.named, dry).unwrap()
    }

    fn plan(&self) -> Vec<String> {
        let node = self.machine();
        let plan = self.run(&node, true).plan;
        assert!(node.calls().is_empty(), "a plan changes nothing");
        plan
    }

    fn usable(&self) -> bool {
        self.payloads.iter().any(|(_, state)| *state != DEAD)
    }
}

pub(super) fn run(
    node: &FakeNode,
    wish: Wish,
    installed: bool,
    named: Option<&str>,
    dry: bool,
) -> crate::problem::Result<Recovery> {
    let find = |version: &str| match installed {
        true => Ok(file(version)),
        false => Err(Refused::situation(format!("no file of {version}"), "install it")),
    };
    let files = Files { named: named.map(file), find: &find, wanted: &|| None };
    let choice = Choice { wish, deadline: Duration::from_secs(5), dry, force: false };
    recover(node, choice, files)
}

pub(super) fn serves(node: &FakeNode) -> bool {
    let status = node.status().unwrap();
    let payloads = node.payloads().unwrap();
    payloads.iter().any(|p| p.id == status.live && p.state == LIVE)
}

/// Every machine with up to two payloads that there can be, every direction, with and without files.
fn every_case() -> Vec<Case> {
    let mut cases = Vec::new();
    for (place, a, b) in machines() {
        let payloads: Vec<_> =
            [(A, a), (B, b)].into_iter().filter_map(|(v, s)| Some((v, s?))).collect();
        let number = |version| {
            let at = payloads.iter().position(|(known, _)| *known == version);
            at.map_or(0, |at| at as u32 + 1)
        };
        let lives: Vec<u32> = match place {
            Place::Vacant | Place::Held | Place::Failing => vec![0],
            _ => vec![number(A), number(B)],
        };
        for live in lives {
            let state = |id: u32| payloads.get((id as usize).wrapping_sub(1)).map(|(_, s)| *s);
            let fits = (1..=2).all(|id| match state(id) {
                Some(LIVE) => id == live,
                Some(DEAD) | None => true,
                Some(_) => id != live,
            });
            let at_rest = matches!(place, Place::Vacant | Place::Held | Place::Failing);
            let never = place == Place::Vacant && payloads.iter().any(|(_, s)| *s == PARKED);
            if !fits || (live == 0) != at_rest || never {
                continue;
            }
            // Files and reports are of no interest while a payload serves.
            let held = live == 0 && place != Place::Vacant;
            let files: &[_] = if held { &[None, Some(A), Some(B)] } else { &[None] };
            let seen: &[_] = if held { &[false, true] } else { &[true] };
            let other = 3u32.saturating_sub(live);
            let can_soak = place == Place::Live && matches!(state(other), Some(PARKED | DEAD));
            let soaks: &[u32] = if can_soak { &[0, 1] } else { &[0] };
            for parked in soaks.iter().map(|soaks| soaks * other) {
                for (known, installed) in
                    seen.iter().flat_map(|k| seen.iter().map(move |i| (*k, *i)))
                {
                    for named in files.iter().copied() {
                        cases.extend(WISHES.map(|wish| Case {
                            place,
                            payloads: payloads.clone(),
                            live,
                            parked,
                            from: known.then_some(A),
                            installed,
                            named,
                            wish,
                        }));
                    }
                }
            }
        }
    }
    cases
}

fn machines() -> Vec<(Place, Option<u32>, Option<u32>)> {
    let states = [None, Some(LOADED), Some(LIVE), Some(PARKED), Some(DEAD)];
    let mut machines = Vec::new();
    for place in Place::ALL {
        for a in states {
            machines.extend(states.map(|b| (place, a, b)));
        }
    }
    machines
}

#[test]
fn from_every_snapshot_the_plan_is_carried_out_to_its_end_and_then_nothing_is_left_to_do() {
    let cases = every_case();
    println!("{} snapshots", cases.len());
    assert!(cases.len() > 1000, "{}", cases.len());
    for case in cases {
        let node = case.machine();
        let planned = case.plan();
        let done = case.run(&node, false);
        match done.outcome {
            RecoveryOutcome::Recovered | RecoveryOutcome::Nothing => {
                assert_eq!(done.plan, planned, "{case:?}");
                assert_eq!(done.done, planned.len(), "{case:?}");
                assert!(serves(&node) || node.place() == Place::Vacant, "{case:?}");
                let again = case.run(&node, false);
                assert_eq!(again.outcome, RecoveryOutcome::Nothing, "{case:?}: {again:?}");
            }
            RecoveryOutcome::Refused | RecoveryOutcome::Held => {
                assert!(node.calls().is_empty(), "{case:?}");
                assert!(done.reason.is_some() && done.remedy.is_some(), "{case:?}");
            }
            outcome => panic!("{outcome}: {case:?}: {done:?}"),
        }
    }
}

#[test]
fn whoever_can_serve_serves_in_the_end_when_no_direction_is_asked_for() {
    for case in every_case().into_iter().filter(|case| case.wish == Wish::Least) {
        let at_rest = [Place::Live, Place::Held, Place::Failing].contains(&case.place);
        if at_rest && case.usable() {
            let node = case.machine();
            case.run(&node, false);
            assert!(serves(&node), "{case:?}");
        }
    }
}

#[test]
fn only_a_handoff_under_way_and_soaks_without_a_choice_are_refused() {
    for case in every_case() {
        let done = case.run(&case.machine(), false);
        let under_way =
            ![Place::Live, Place::Held, Place::Failing, Place::Vacant].contains(&case.place);
        let forced = case.parked != 0 && case.wish != Wish::Least;
        match done.outcome {
            RecoveryOutcome::Refused => assert!(under_way || forced, "{case:?}: {done:?}"),
            _ => assert!(!under_way, "{case:?}: {done:?}"),
        }
    }
}

#[test]
fn a_recovery_that_dies_at_any_step_is_finished_by_another_one() {
    for case in every_case() {
        let whole = case.machine();
        let end = case.run(&whole, false).outcome;
        for steps in 1.. {
            let node = case.machine();
            if !node.dies_after(steps, |node| drop(case.run(node, false))) {
                break;
            }
            let again = case.run(&node, false);
            assert!(
                matches!(again.outcome, RecoveryOutcome::Recovered | RecoveryOutcome::Nothing),
                "{case:?} after {steps}: {end} and then {again:?}"
            );
            assert!(serves(&node) || node.place() == Place::Vacant, "{case:?} after {steps}");
        }
    }
}

#[test]
fn each_situation_has_its_steps() {
    let finish = |case: &Case| Case { wish: Wish::Finish, ..case.clone() }.plan();
    let undo = |case: &Case| Case { wish: Wish::Undo, ..case.clone() }.plan();

    let candidate = Case::live(&[(A, LIVE), (B, LOADED)], 1, 0);
    let unloaded = "unload module payload_1_1_0, payload 1.1.0, which never became live";
    assert_eq!(candidate.plan(), [unloaded]);

    let soaking = Case::live(&[(A, PARKED), (B, LIVE)], 2, 1);
    let back = [
        "switch to payload 1.0.0",
        "unload module payload_1_1_0, payload 1.1.0, whose upgrade is undone",
    ];
    assert_eq!(soaking.plan(), back);
    assert_eq!(undo(&soaking), back);
    assert_eq!(
        finish(&soaking),
        [
            "commit payload 1.1.0",
            "unload module payload_1_0_0, payload 1.0.0, which was live before"
        ]
    );

    let committed = Case::live(&[(A, PARKED), (B, LIVE)], 2, 0);
    assert!(committed.plan().is_empty());
    assert_eq!(
        finish(&committed),
        ["unload module payload_1_0_0, payload 1.0.0, which was live before"]
    );

    let abandoned = Case::held(&[(A, PARKED)]);
    assert_eq!(abandoned.plan(), ["let payload 1.0.0 adopt the devices"]);
    assert_eq!(finish(&abandoned), ["let payload 1.0.0 adopt the devices"]);

    let removed = Case::held(&[]);
    let inserted =
        ["insert payload 1.0.0 from its file", "let the inserted payload 1.0.0 adopt the devices"];
    assert_eq!(removed.plan(), inserted);
    assert_eq!(finish(&removed), inserted);
    let other = Case { named: Some(B), ..removed };
    assert_eq!(
        other.plan(),
        ["insert payload 1.1.0 from its file", "let the inserted payload 1.1.0 adopt the devices"]
    );

    let inserted_new = Case::held(&[(B, LOADED)]);
    assert_eq!(inserted_new.plan(), [inserted[0], inserted[1], unloaded]);
    assert_eq!(finish(&inserted_new), ["let payload 1.1.0 adopt the devices"]);
    let without_file = Case { installed: false, ..inserted_new.clone() };
    assert_eq!(without_file.plan(), ["let payload 1.1.0 adopt the devices"]);
    assert!(undo(&without_file).is_empty());

    let failing = Case { place: Place::Failing, ..inserted_new };
    assert_eq!(finish(&failing), ["let payload 1.1.0 adopt the devices"]);

    let dead = Case::live(&[(A, PARKED), (B, DEAD)], 2, 0);
    assert_eq!(dead.plan(), ["switch to payload 1.0.0 without asking the dead one"]);

    let first = Case { place: Place::Vacant, ..Case::live(&[(A, LOADED)], 0, 0) };
    assert_eq!(finish(&first), ["let payload 1.0.0 adopt the devices"]);
}

#[test]
fn what_is_left_on_purpose_is_said() {
    let node = Case::live(&[(A, PARKED), (B, LIVE)], 2, 0);
    let done = node.run(&node.machine(), false);
    assert_eq!(done.outcome, RecoveryOutcome::Nothing);
    assert!(done.left[0].contains("atomctl rollback 1.0.0"), "{done:?}");
}

#[test]
fn a_module_that_uses_atom_and_has_registered_nothing_is_unloaded() {
    let case = Case::live(&[(A, LIVE)], 1, 0);
    let node = case.machine();
    node.strangers.borrow_mut().push("payload_9".to_owned());
    assert_eq!(case.run(&node, false).outcome, RecoveryOutcome::Recovered);
    assert!(node.strangers.borrow().is_empty());
}

#[test]
fn a_file_that_does_not_read_what_atom_holds_is_refused_and_found_ones_are_passed_over() {
    let strange = || -> ModuleFile {
        let mut stamp = crate::module_file::test_file::stamp(A);
        (stamp.schema.read_min, stamp.schema.read_max) = (8, 9);
        TestFile::payload(A).with_stamp(&stamp).parse().unwrap()
    };
    let choice = |wish| Choice { wish, deadline: Duration::ZERO, dry: false, force: false };
    let node = Case::held(&[(B, LOADED)]).machine();
    let found = |_: &str| Ok(strange());
    let named = Files { named: Some(strange()), find: &found, wanted: &|| None };
    let refused = recover(&node, choice(Wish::Undo), named).unwrap_err();
    assert!(refused.why.contains("schema 2"), "{refused}");
    assert!(node.calls().is_empty());
    let files = Files { named: None, find: &found, wanted: &|| None };
    let done = recover(&node, choice(Wish::Least), files).unwrap();
    assert_eq!((done.outcome, done.live.as_str()), (RecoveryOutcome::Recovered, B));
}

#[test]
fn a_way_back_that_fails_lets_the_payload_that_is_there_serve() {
    for step in [Step::Insert, Step::Adopt] {
        let case = Case::held(&[(B, LOADED)]);
        let node = case.machine();
        node.fail(step, 1);
        let done = case.run(&node, false);
        assert_eq!(done.outcome, RecoveryOutcome::Recovered, "{step:?}: {done:?}");
        assert_eq!(node.serving(), B);
        assert!(done.left.iter().any(|left| left.contains("going back has failed")));
    }
}

#[test]
fn a_recovery_that_fails_says_that_io_is_held_and_can_be_tried_again() {
    let case = Case::held(&[]);
    let node = case.machine();
    node.fail(Step::Insert, 1);
    let done = case.run(&node, false);
    assert_eq!(done.outcome, RecoveryOutcome::Held);
    assert_eq!(done.outcome.exit().code(), 4);
    assert!(done.reason.is_some());
    assert_eq!(case.run(&node, false).outcome, RecoveryOutcome::Recovered);
}

#[test]
fn nothing_is_recovered_while_another_tool_is_alive_or_memory_cannot_be_locked() {
    for step in [Step::Claim, Step::Lock] {
        let case = Case::held(&[(A, PARKED)]);
        let node = case.machine();
        node.fail(step, 1);
        assert!(run(&node, Wish::Least, true, None, false).is_err());
        assert!(node.calls().is_empty());
    }
}

#[test]
fn a_dead_payload_in_the_way_back_lets_what_the_attempt_was_for_serve() {
    for (wanted, wish, live) in [
        (Some(B), Wish::Least, B),
        (Some(B), Wish::Finish, B),
        // Somebody wants to go back, or nobody knows where forth is.
        (Some(B), Wish::Undo, ""),
        (Some(A), Wish::Least, ""),
        (None, Wish::Least, ""),
    ] {
        let node = Case::held(&[(A, DEAD)]).machine();
        let choice = Choice { wish, deadline: Duration::ZERO, dry: false, force: false };
        let wanted = || wanted.map(str::to_owned);
        let files = Files { named: None, find: &|version| Ok(file(version)), wanted: &wanted };
        let done = recover(&node, choice, files).unwrap();
        assert_eq!(done.live, live, "{done:?}");
        let outcome =
            if live.is_empty() { RecoveryOutcome::Held } else { RecoveryOutcome::Recovered };
        assert_eq!(done.outcome, outcome, "{done:?}");
    }
}

#[test]
fn a_tool_that_only_seems_to_be_alive_can_be_passed_over() {
    let node = Case::held(&[(A, PARKED)]).machine();
    node.fail(Step::Claim, 1);
    let files = Files { named: None, find: &|version| Ok(file(version)), wanted: &|| None };
    let choice = Choice { wish: Wish::Least, deadline: Duration::ZERO, dry: false, force: true };
    assert_eq!(recover(&node, choice, files).unwrap().live, A);
}

#[test]
fn going_back_from_a_soak_is_not_taken_back_when_every_switch_soaks() {
    let case = Case::live(&[(A, PARKED), (B, LIVE)], 2, 1);
    let node = case.machine();
    *node.settings.borrow_mut() = Some(Settings { soak_ns: 60_000_000_000, ..Settings::DEFAULT });
    assert_eq!(case.run(&node, false).outcome, RecoveryOutcome::Recovered);
    assert_eq!(node.status().unwrap().parked, 0);
    node.pass(Duration::from_secs(120));
    assert_eq!(node.serving(), A);
}

#[test]
fn what_was_inserted_last_and_reads_the_image_finishes_before_what_was_parked() {
    let case = Case {
        wish: Wish::Finish,
        ..Case::held(&[("1.2.0", LOADED), (B, PARKED), ("0.9.0", PARKED)])
    };
    let node = case.machine();
    assert_eq!(case.run(&node, true).plan[0], "let payload 1.2.0 adopt the devices");
    node.payloads.borrow_mut()[0].schema.read_min = 3;
    assert_eq!(case.run(&node, true).plan[0], "let payload 0.9.0 adopt the devices");
}
