// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Terms and soaks on a machine in memory.

use std::time::Duration;

use atom_abi::control::{hold, Settings};

use super::fake_node::{FakeNode, Happening, Step};
use super::tests::{file, machine, upgrade_on, NEW, OLD};
use super::{switch_back_on, Site, Soak, Terms};
use crate::drain::AtDeadline;
use crate::node::Node;
use crate::report::{Outcome, SoakReport, UpgradeReport};

const SECOND: Duration = Duration::from_secs(1);
const SOAK: Soak =
    Soak { time: Duration::from_secs(30), stall: SECOND, max_errors: 0, canary: true };

fn on(node: &FakeNode, terms: &Terms) -> UpgradeReport {
    upgrade_on(node, file("1.1.0"), None, false, terms)
}

fn soaked(node: &FakeNode, soak: Soak) -> UpgradeReport {
    on(node, &Terms { soak: Some(soak), ..Terms::default() })
}

fn seen(report: &UpgradeReport) -> &SoakReport {
    report.soak.as_ref().unwrap()
}

fn own_settings(node: &FakeNode) -> Settings {
    node.settings(&Settings::DEFAULT).unwrap()
}

#[test]
fn a_soak_without_trouble_ends_with_a_commit_and_the_old_module_removed() {
    let node = machine();
    let report = soaked(&node, SOAK);
    assert_eq!(report.outcome, Outcome::Committed);
    assert_eq!(
        node.calls(),
        [
            "insert payload_1_1_0",
            "soak for 41 s",
            "switch",
            "soak for 0 s",
            "commit",
            "remove payload_1_0_0"
        ]
    );
    assert_eq!((seen(&report).watched_us, seen(&report).asked_us), (30_000_000, 30_000_000));
    assert_eq!(seen(&report).canary_reads, 2 * 31);
    assert_eq!(seen(&report).trouble, None);
    assert_eq!(node.loaded(), [NEW]);
}

#[test]
fn a_parked_payload_is_kept_after_a_soak_when_that_is_asked_for() {
    let node = machine();
    let terms = Terms { soak: Some(SOAK), ..Terms::default() };
    let report = upgrade_on(&node, file("1.1.0"), None, true, &terms);
    assert_eq!(report.outcome, Outcome::Switched);
    assert_eq!(report.exit().code(), 0);
    assert_eq!(node.loaded(), [OLD, NEW]);
    assert_eq!(node.status().unwrap().parked, 0);
}

#[test]
fn the_settings_of_atom_are_as_before_whatever_comes_of_the_upgrade() {
    for step in [None, Some(Step::Prepare), Some(Step::Drain), Some(Step::Adopt)] {
        let node = machine();
        let own =
            Settings { hold: hold::FAIL, stall_ns: 77, back_deadline_ns: 5, ..Settings::DEFAULT };
        *node.settings.borrow_mut() = Some(own);
        step.into_iter().for_each(|step| node.fail(step, 1));
        soaked(&node, SOAK);
        let now = own_settings(&node);
        assert_eq!((now.hold, now.soak_ns), (hold::FAIL, 0), "{step:?}");
        assert_eq!((now.stall_ns, now.back_deadline_ns), (77, 5), "{step:?}");
    }
}

#[test]
fn settings_that_cannot_be_changed_refuse_the_upgrade_and_leave_nothing_behind() {
    let node = machine();
    node.fail(Step::Settings, 1);
    assert_eq!(soaked(&node, SOAK).outcome, Outcome::Refused);
    assert_eq!(node.loaded(), [OLD]);
    assert_eq!(node.serving(), "1.0.0");
}

#[test]
fn errors_during_the_soak_bring_the_old_payload_back() {
    let node = machine();
    node.schedule(10 * SECOND, Happening::Error(1));
    let report = soaked(&node, SOAK);
    assert_eq!(report.outcome, Outcome::RolledBack);
    assert_eq!(report.exit().code(), 1);
    assert!(
        report.reason.as_ref().unwrap().contains("1 requests of atom1 failed, 0"),
        "{report:?}"
    );
    assert_eq!(seen(&report).back.as_ref().unwrap().policy, "reissue");
    assert_eq!(seen(&report).errors["atom1"], 1);
    assert_eq!(node.serving(), "1.0.0");
    assert_eq!(node.loaded(), [OLD]);
    assert_eq!(soaked(&node, SOAK).outcome, Outcome::Committed);
}

#[test]
fn errors_within_the_limit_are_borne() {
    let node = machine();
    node.schedule(10 * SECOND, Happening::Error(1));
    assert_eq!(soaked(&node, Soak { max_errors: 1, ..SOAK }).outcome, Outcome::Committed);
}

#[test]
fn errors_as_usual_before_the_switch_are_no_trouble_after_it_and_more_are() {
    for (after, outcome) in [(2, Outcome::Committed), (3, Outcome::RolledBack)] {
        let node = machine();
        node.errors.borrow_mut()[0] = 5;
        (1..=2).for_each(|at| node.schedule(at * SECOND, Happening::Error(0)));
        (0..after).for_each(|at| node.schedule((40 + at) * SECOND, Happening::Error(0)));
        let report = soaked(&node, SOAK);
        assert_eq!(report.outcome, outcome);
        assert_eq!(seen(&report).errors_before["atom0"], 2);
    }
}

#[test]
fn a_canary_that_cannot_be_read_brings_the_old_payload_back() {
    let node = machine();
    // The reads before the switch succeed, one of the first after it does not.
    node.succeed_then_fail(Step::Canary, 3, 1);
    let report = soaked(&node, SOAK);
    assert_eq!(report.outcome, Outcome::RolledBack);
    assert!(report.reason.unwrap().contains("a read of atom1 failed"));
    assert_eq!(node.serving(), "1.0.0");
}

#[test]
fn a_device_that_could_not_be_read_before_is_not_a_canary() {
    let node = machine();
    node.fail(Step::Canary, 1);
    let report = soaked(&node, SOAK);
    assert_eq!(report.outcome, Outcome::Committed);
    assert_eq!(seen(&report).canary_reads, 31);
    assert!(report.warnings[0].contains("atom0"), "{:?}", report.warnings);
}

#[test]
fn nothing_is_read_without_canaries() {
    let node = machine();
    let report = soaked(&node, Soak { canary: false, ..SOAK });
    assert_eq!(seen(&report).canary_reads, 0);
}

#[test]
fn a_payload_that_dies_in_its_soak_is_not_asked_on_the_way_back_and_its_module_stays() {
    let node = machine();
    node.schedule(3 * SECOND, Happening::Death);
    let report = soaked(&node, SOAK);
    assert_eq!(report.outcome, Outcome::RolledBack);
    assert!(node.calls().contains(&"switch (reissue, forsaken)".to_owned()));
    assert_eq!(node.serving(), "1.0.0");
    assert_eq!(node.loaded(), [OLD, NEW]);
    assert!(report.warnings[0].contains("stays loaded"));
    assert!(seen(&report).watched_us <= 3_000_000);
}

#[test]
fn atom_going_back_by_itself_is_reported_with_its_cause() {
    let node = machine();
    node.schedule(4 * SECOND, Happening::Stall);
    let report = soaked(&node, SOAK);
    assert_eq!(report.outcome, Outcome::RolledBack);
    assert_eq!(report.cause.as_deref(), Some("stall"));
    assert!(report.reason.as_ref().unwrap().contains("owed for longer"));
    assert_eq!(seen(&report).back.as_ref().unwrap().to, "1.0.0");
    assert_eq!(node.loaded(), [OLD]);
}

#[test]
fn a_rollback_by_hand_ends_the_soak() {
    let node = machine();
    node.schedule(4 * SECOND, Happening::Rollback);
    let report = soaked(&node, SOAK);
    assert_eq!(report.outcome, Outcome::RolledBack);
    assert!(report.reason.unwrap().contains("somebody switched back"));
}

#[test]
fn a_commit_by_hand_ends_the_soak_before_its_time() {
    let node = machine();
    node.schedule(4 * SECOND, Happening::Commit);
    let report = soaked(&node, SOAK);
    assert_eq!(report.outcome, Outcome::Committed);
    assert_eq!(seen(&report).watched_us, 4_000_000);
    assert!(!node.calls().contains(&"commit".to_owned()));
}

#[test]
fn an_abandon_by_hand_in_the_soak_is_reported_as_held() {
    let node = machine();
    node.schedule(4 * SECOND, Happening::Abandon);
    let report = soaked(&node, SOAK);
    assert_eq!(report.outcome, Outcome::Held);
    assert_eq!(report.exit().code(), 4);
}

#[test]
fn a_way_back_that_fails_leaves_the_new_payload_and_asks_for_somebody() {
    let node = machine();
    node.schedule(10 * SECOND, Happening::Error(1));
    node.succeed_then_fail(Step::Adopt, 1, 1);
    let report = soaked(&node, SOAK);
    assert_eq!(report.outcome, Outcome::Switched);
    assert_eq!(report.exit().code(), 4);
    assert!(report.reason.unwrap().contains("going back failed"));
    assert_eq!(node.serving(), "1.1.0");
    // Atom goes back by itself when no commit comes.
    node.pass(60 * SECOND);
    assert_eq!(node.serving(), "1.0.0");
}

#[test]
fn a_tool_that_dies_in_a_soak_leaves_the_way_back_to_atom() {
    let node = machine();
    assert!(node.dies_after(4, |node| drop(soaked(node, SOAK))));
    assert_eq!(node.serving(), "1.1.0");
    assert_eq!(own_settings(&node).soak_ns, 0);
    node.pass(42 * SECOND);
    assert_eq!(node.serving(), "1.0.0");
}

#[test]
fn a_soak_that_atoms_settings_ask_for_is_watched_and_committed() {
    let node = machine();
    *node.settings.borrow_mut() = Some(Settings { soak_ns: 60_000_000_000, ..Settings::DEFAULT });
    let report = on(&node, &Terms::default());
    assert_eq!(report.outcome, Outcome::Committed);
    assert_eq!(seen(&report).watched_us, 45_000_000);
    assert_eq!(own_settings(&node).soak_ns, 60_000_000_000);
    assert!(node.calls().contains(&"commit".to_owned()));
}

#[test]
fn no_soak_at_all_can_be_asked_for_against_the_settings() {
    let node = machine();
    *node.settings.borrow_mut() = Some(Settings { soak_ns: 60_000_000_000, ..Settings::DEFAULT });
    let report = soaked(&node, Soak { time: Duration::ZERO, ..SOAK });
    assert_eq!(report.outcome, Outcome::Committed);
    assert_eq!(report.soak, None);
    assert_eq!(own_settings(&node).soak_ns, 60_000_000_000);
}

#[test]
fn going_back_by_hand_does_not_soak_whatever_the_settings_say() {
    let node = machine();
    upgrade_on(&node, file("1.1.0"), None, true, &Terms::default());
    *node.settings.borrow_mut() = Some(Settings { soak_ns: 60_000_000_000, ..Settings::DEFAULT });
    let site = Site::survey(&node).unwrap();
    let old = site.payloads[0];
    let report = switch_back_on(&node, &site, &old, SECOND, &Terms::default()).unwrap();
    assert_eq!(report.outcome, Outcome::Switched);
    assert_eq!(node.status().unwrap().parked, 0);
}

#[test]
fn requests_are_taken_back_at_the_deadline_when_that_is_the_policy() {
    for (policy, outcome, taken) in [
        (AtDeadline::Abort, Outcome::Aborted, 0),
        (AtDeadline::Reissue, Outcome::Committed, 1),
        (AtDeadline::Fail, Outcome::Committed, 1),
    ] {
        let node = machine();
        node.fail(Step::Drain, 1);
        let report = on(&node, &Terms { at_deadline: Some(policy), ..Terms::default() });
        assert_eq!(report.outcome, outcome, "{policy}");
        assert_eq!(report.requests_taken_back, taken, "{policy}");
        assert_eq!(report.policy.as_deref(), Some(policy.name()));
    }
}

#[test]
fn an_upgrade_that_would_leave_requests_to_a_payload_that_is_asked_is_refused_before_anything_changes(
) {
    let node = machine();
    let leave = Terms { at_deadline: Some(AtDeadline::Leave), ..Terms::default() };
    let report = on(&node, &leave);
    assert_eq!((report.outcome, report.pause_us), (Outcome::Refused, 0));
    assert!(report.remedy.as_deref().is_some_and(|text| text.contains("--forsake")), "{report:?}");
    let report = on(&node, &Terms { forsake: true, ..leave });
    assert_ne!(report.outcome, Outcome::Refused, "{report:?}");
}

#[test]
fn a_cold_upgrade_takes_requests_back_as_well() {
    let node = machine();
    node.fail(Step::Drain, 1);
    let terms = Terms { at_deadline: Some(AtDeadline::Reissue), ..Terms::default() };
    let report = upgrade_on(&node, file("1.1.0"), Some(file("1.0.0")), false, &terms);
    assert_eq!(report.outcome, Outcome::Committed);
    assert_eq!((report.requests_taken_back, report.policy.as_deref()), (1, Some("reissue")));
}

#[test]
fn a_forsaken_payload_whose_module_stays_does_not_stop_a_cold_upgrade_to_another_module() {
    let node = machine();
    node.fail(Step::Remove, 1);
    let terms = Terms { forsake: true, ..Terms::default() };
    let report = upgrade_on(&node, file("1.1.0"), Some(file("1.0.0")), false, &terms);
    assert_eq!(report.outcome, Outcome::Committed);
    assert_eq!((report.warnings.len(), node.serving().as_str()), (1, "1.1.0"));
}

#[test]
fn an_atom_of_the_first_release_is_asked_for_nothing_that_it_does_not_know() {
    let node = machine();
    node.first.set(true);
    assert_eq!(on(&node, &Terms::default()).outcome, Outcome::Committed);
    for (terms, name) in [
        (Terms { at_deadline: Some(AtDeadline::Reissue), ..Terms::default() }, "reissue"),
        (Terms { at_deadline: Some(AtDeadline::Fail), ..Terms::default() }, "fail"),
        (Terms { forsake: true, ..Terms::default() }, "--forsake"),
        (Terms { soak: Some(SOAK), ..Terms::default() }, "--soak"),
    ] {
        let node = machine();
        node.first.set(true);
        let report = on(&node, &terms);
        assert_eq!(report.outcome, Outcome::Refused, "{name}");
        let reason = report.reason.unwrap();
        assert!(reason.contains("ABI 1.0") && reason.contains(name), "{reason}");
        assert!(node.calls().is_empty());
    }
}

#[test]
fn a_dead_payload_is_replaced_without_being_asked_and_its_module_stays() {
    let node = machine();
    node.kill("1.0.0");
    let report = on(&node, &Terms::default());
    assert_eq!(report.outcome, Outcome::Switched);
    assert_eq!(node.calls(), ["insert payload_1_1_0", "switch (reissue, forsaken)"]);
    assert!(report.forsaken);
    assert!(report.warnings[0].contains("--forsake"), "{:?}", report.warnings);
    assert!(report.reason.unwrap().contains("stays loaded"));
    assert_eq!(node.serving(), "1.1.0");
}

#[test]
fn what_a_dead_payload_owes_fails_when_that_is_asked_for() {
    let node = machine();
    node.kill("1.0.0");
    on(&node, &Terms { at_deadline: Some(AtDeadline::Fail), ..Terms::default() });
    assert_eq!(node.calls()[1], "switch (fail, forsaken)");
}

#[test]
fn from_a_dead_payload_nothing_soaks_and_that_is_said() {
    let node = machine();
    node.kill("1.0.0");
    let report = soaked(&node, SOAK);
    assert_eq!(report.soak, None);
    assert!(report.warnings.iter().any(|warning| warning.contains("no soak")));
    assert!(!node.calls().iter().any(|call| call.starts_with("soak")));
}

#[test]
fn a_dead_payload_cannot_be_replaced_cold() {
    let node = machine();
    node.kill("1.0.0");
    let report = upgrade_on(&node, file("1.1.0"), Some(file("1.0.0")), false, &Terms::default());
    assert_eq!(report.outcome, Outcome::Refused);
    assert!(report.remedy.unwrap().contains("without --cold"));
    assert!(node.calls().is_empty());
}

#[test]
fn a_rollback_from_a_dead_payload_does_not_ask_it() {
    let node = machine();
    upgrade_on(&node, file("1.1.0"), None, true, &Terms::default());
    node.kill("1.1.0");
    let site = Site::survey(&node).unwrap();
    let old = site.payloads[0];
    let report = switch_back_on(&node, &site, &old, SECOND, &Terms::default()).unwrap();
    assert_eq!(report.outcome, Outcome::Switched);
    assert_eq!(node.serving(), "1.0.0");
}

#[test]
fn a_candidate_that_hangs_is_given_up_and_its_module_stays() {
    let node = machine();
    node.fail(Step::Hang, 1);
    let report = on(&node, &Terms::default());
    assert_eq!(report.outcome, Outcome::Aborted);
    assert_eq!(report.cause.as_deref(), Some("died"));
    assert!(report.warnings[0].contains("stays loaded"), "{report:?}");
    assert_eq!((node.serving().as_str(), node.loaded().len()), ("1.0.0", 2));
}

#[test]
fn going_back_in_a_soak_is_not_taken_back_when_every_switch_soaks() {
    let node = machine();
    *node.settings.borrow_mut() = Some(Settings { soak_ns: 60_000_000_000, ..Settings::DEFAULT });
    node.schedule(10 * SECOND, Happening::Error(1));
    assert_eq!(soaked(&node, SOAK).outcome, Outcome::RolledBack);
    node.pass(120 * SECOND);
    assert_eq!(node.serving(), "1.0.0");
}

#[test]
fn a_call_that_is_not_carried_out_is_not_taken_for_an_earlier_failure() {
    let node = machine();
    node.fail(Step::Hang, 1);
    on(&node, &Terms::default());
    node.fail(Step::Call, 1);
    let report = upgrade_on(&node, file("1.2.0"), None, false, &Terms::default());
    assert_eq!(report.outcome, Outcome::Refused);
    assert_eq!(report.cause, None);
}
