// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Upgrades of a machine in memory: what serves afterwards, what is loaded, and what is reported.

use std::time::Duration;

use atom_abi::control::payload_state;
use atom_abi::version::SchemaRange;

use super::fake_node::{FakeNode, Step};
use super::{carry_out, refused, Plan, Site, Terms};
use crate::module_file::test_file::{stamp, TestFile};
use crate::module_file::ModuleFile;
use crate::node::Node;
use crate::report::{Mode, Outcome, UpgradeReport};

pub(super) const OLD: &str = "payload_1_0_0";
pub(super) const NEW: &str = "payload_1_1_0";

pub(super) fn file(version: &str) -> ModuleFile {
    TestFile::payload(version).parse().unwrap()
}

pub(super) fn machine() -> FakeNode {
    FakeNode::with_live(&file("1.0.0"))
}

fn upgrade(
    node: &FakeNode,
    target: ModuleFile,
    old: Option<ModuleFile>,
    keep_parked: bool,
) -> UpgradeReport {
    upgrade_on(node, target, old, keep_parked, &Terms::default())
}

pub(super) fn upgrade_on(
    node: &FakeNode,
    target: ModuleFile,
    old: Option<ModuleFile>,
    keep_parked: bool,
    terms: &Terms,
) -> UpgradeReport {
    let site = Site::survey(node).unwrap();
    let mode = if old.is_some() { Mode::Cold } else { Mode::Warm };
    let from = node.serving();
    let report = UpgradeReport::begin(&site.release, &from, target.version(), mode);
    let settled = match terms.settle(node, &site, Duration::from_secs(5), mode).unwrap() {
        Ok(settled) => settled,
        Err(why) => return refused(report, &why),
    };
    match Plan::new(node, &site, target, old.map(Ok), keep_parked) {
        Ok(plan) => carry_out(node, &plan, &settled, report),
        Err(why) => refused(report, &why),
    }
}

fn warm(node: &FakeNode) -> UpgradeReport {
    upgrade(node, file("1.1.0"), None, false)
}

fn cold(node: &FakeNode) -> UpgradeReport {
    upgrade(node, file("1.1.0"), Some(file("1.0.0")), false)
}

#[test]
fn a_warm_upgrade_commits_and_unloads_the_old_payload() {
    let node = machine();
    let report = warm(&node);
    assert_eq!(report.outcome, Outcome::Committed);
    assert_eq!(report.reason, None);
    assert_eq!(node.serving(), "1.1.0");
    assert_eq!(node.loaded(), [NEW]);
    assert_eq!((report.from.as_str(), report.to.as_str()), ("1.0.0", "1.1.0"));
    assert_eq!(report.pause_us, 1300);
    assert_eq!(report.image_schema, Some(2));
}

#[test]
fn volumes_that_the_next_payload_cannot_have_are_named_before_anything_is_done() {
    let node = machine();
    node.beyond.borrow_mut().extend(["data".to_owned(), "more".to_owned()]);
    for report in [warm(&node), cold(&node)] {
        assert_eq!(report.outcome, Outcome::Refused);
        let reason = report.reason.unwrap();
        assert!(
            reason.contains("1.1.0 has no client") && reason.contains("data, more"),
            "{reason}"
        );
        assert!(report.remedy.unwrap().contains("2.0.0"));
    }
    assert_eq!(node.calls(), [""; 0]);
    assert_eq!(node.serving(), "1.0.0");
}

#[test]
fn a_warm_upgrade_that_keeps_the_old_payload_parks_it() {
    let node = machine();
    let report = upgrade(&node, file("1.1.0"), None, true);
    assert_eq!(report.outcome, Outcome::Switched);
    assert_eq!(node.loaded(), [OLD, NEW]);
    assert!(report.remedy.unwrap().contains("rollback"));
}

#[test]
fn a_parked_payload_is_switched_to_without_being_inserted_again() {
    let node = machine();
    upgrade(&node, file("1.1.0"), None, true);
    node.calls.borrow_mut().clear();
    let report = upgrade(&node, file("1.0.0"), None, true);
    assert_eq!(report.outcome, Outcome::Switched);
    assert_eq!(node.calls(), ["switch"]);
    assert_eq!(node.serving(), "1.0.0");
}

#[test]
fn another_build_of_a_parked_version_is_refused() {
    let node = machine();
    upgrade(&node, file("1.1.0"), None, true);
    node.build_ids.borrow_mut().push((OLD.to_owned(), vec![1; 20]));
    let report = upgrade(&node, file("1.0.0"), None, true);
    assert_eq!(report.outcome, Outcome::Refused);
    assert!(report.reason.unwrap().contains("another build"));
}

#[test]
fn a_warm_upgrade_undone_at_the_deadline_leaves_the_old_payload_and_names_the_blockers() {
    let node = machine();
    node.fail(Step::Drain, 1);
    let report = warm(&node);
    assert_eq!(report.outcome, Outcome::Aborted);
    assert_eq!(report.outcome.exit().code(), 1);
    assert_eq!(report.owed, Some(1));
    assert_eq!(report.blockers[0].tag, 9);
    assert_eq!(node.serving(), "1.0.0");
    assert_eq!(node.loaded(), [OLD]);
    assert_eq!(warm(&node).outcome, Outcome::Committed);
}

#[test]
fn a_candidate_that_does_not_adopt_is_rolled_back_and_unloaded() {
    let node = machine();
    node.fail(Step::Adopt, 1);
    let report = warm(&node);
    assert_eq!(report.outcome, Outcome::RolledBack);
    assert_eq!(node.serving(), "1.0.0");
    assert_eq!(node.loaded(), [OLD]);
}

#[test]
fn a_candidate_that_does_not_prepare_or_load_is_refused() {
    for step in [Step::Prepare, Step::Insert] {
        let node = machine();
        node.fail(step, 1);
        let report = warm(&node);
        assert_eq!(report.outcome, Outcome::Refused, "{step:?}");
        assert_eq!(report.outcome.exit().code(), 3);
        assert_eq!(node.loaded(), [OLD]);
    }
}

#[test]
fn an_undone_upgrade_leaves_a_candidate_that_somebody_else_loaded() {
    let node = machine();
    node.insert(&file("1.1.0").bytes).unwrap();
    node.fail(Step::Drain, 1);
    assert_eq!(warm(&node).outcome, Outcome::Aborted);
    assert_eq!(node.loaded(), [OLD, NEW]);
}

#[test]
fn an_old_payload_that_cannot_be_unloaded_stays_parked_and_is_reported() {
    let node = machine();
    node.fail(Step::Remove, 1);
    let report = warm(&node);
    assert_eq!(report.outcome, Outcome::Switched);
    assert_eq!(report.warnings.len(), 1);
    assert_eq!(node.serving(), "1.1.0");
    assert_eq!(node.payloads.borrow()[0].state, payload_state::PARKED);
}

#[test]
fn the_live_version_and_a_taken_module_name_are_refused_warm() {
    let node = machine();
    let same = upgrade(&node, file("1.0.0"), None, false);
    assert_eq!(same.outcome, Outcome::Refused);
    let taken = TestFile::payload("1.1.0").named(OLD).parse().unwrap();
    let report = upgrade(&node, taken, None, false);
    assert_eq!(report.outcome, Outcome::Refused);
    assert!(report.remedy.unwrap().contains("--cold"));
    assert!(node.calls().is_empty());
}

#[test]
fn nothing_is_upgraded_while_nothing_is_live() {
    let node = FakeNode::default();
    let report = warm(&node);
    assert_eq!(report.outcome, Outcome::Refused);
    assert!(report.remedy.unwrap().contains("load"));
}

#[test]
fn a_cold_upgrade_gives_the_devices_to_atom_before_the_old_module_goes() {
    let node = machine();
    let report = cold(&node);
    assert_eq!(report.outcome, Outcome::Committed);
    assert_eq!(
        node.calls(),
        ["abandon in schema 2", "remove payload_1_0_0", "insert payload_1_1_0", "adopt"]
    );
    assert_eq!(node.serving(), "1.1.0");
    assert_eq!(report.pause_us, 8000);
    let phases: Vec<_> = report.phases_us.iter().map(|(name, _)| name).collect();
    assert_eq!(phases, ["close", "drain", "freeze", "held", "rmmod", "insmod", "adopt", "open"]);
    assert_eq!(report.phases_us.get("held"), Some(8000 - 200 - 1000 - 100 - 300 - 10));
}

#[test]
fn a_cold_upgrade_replaces_a_module_of_the_same_name() {
    let node = FakeNode::with_live(&TestFile::payload("1.0.0").named("payload").parse().unwrap());
    let old = TestFile::payload("1.0.0").named("payload").parse().unwrap();
    let new = TestFile::payload("1.1.0").named("payload").parse().unwrap();
    let report = upgrade(&node, new, Some(old), false);
    assert_eq!(report.outcome, Outcome::Committed);
    assert_eq!(node.serving(), "1.1.0");
    assert_eq!(node.loaded(), ["payload"]);
}

#[test]
fn a_cold_upgrade_writes_the_image_in_a_schema_that_both_read() {
    let node = machine();
    let mut older = stamp("1.1.0");
    older.schema = SchemaRange { read_min: 1, read_max: 1, write_min: 1, write_max: 1 };
    let target = TestFile::payload("1.1.0").with_stamp(&older).parse().unwrap();
    let report = upgrade(&node, target, Some(file("1.0.0")), false);
    assert_eq!(report.outcome, Outcome::Committed);
    assert_eq!(node.calls()[0], "abandon in schema 1");
}

#[test]
fn a_cold_upgrade_goes_back_from_every_step_and_succeeds_when_it_is_tried_again() {
    for step in [Step::Remove, Step::Insert, Step::Adopt] {
        let node = machine();
        node.fail(step, 1);
        let report = cold(&node);
        assert_eq!(report.outcome, Outcome::RolledBack, "{step:?}");
        assert_eq!(report.outcome.exit().code(), 1);
        assert_eq!(node.serving(), "1.0.0", "{step:?}");
        assert_eq!(node.loaded(), [OLD], "{step:?}");
        assert_eq!(cold(&node).outcome, Outcome::Committed, "{step:?}");
    }
}

#[test]
fn a_cold_upgrade_whose_abandon_is_undone_changes_nothing() {
    let node = machine();
    node.fail(Step::Drain, 1);
    let report = cold(&node);
    assert_eq!(report.outcome, Outcome::Aborted);
    assert_eq!(node.calls(), ["abandon in schema 2"]);
    assert_eq!(node.serving(), "1.0.0");
}

#[test]
fn a_cold_upgrade_that_nobody_can_end_says_that_io_is_held_and_what_to_do() {
    for step in [Step::Insert, Step::Adopt] {
        let node = machine();
        node.fail(step, 2);
        let report = cold(&node);
        assert_eq!(report.outcome, Outcome::Held, "{step:?}");
        assert_eq!(report.outcome.exit().code(), 4);
        assert_eq!(report.pause_us, 7000);
        assert!(report.remedy.unwrap().contains("atomctl load"));
        assert_eq!(node.serving(), "");
    }
}

#[test]
fn a_cold_upgrade_without_locked_memory_is_refused() {
    let node = machine();
    node.fail(Step::Lock, 1);
    assert_eq!(cold(&node).outcome, Outcome::Refused);
    assert!(node.calls().is_empty());
}

#[test]
fn a_cold_upgrade_with_the_wrong_file_for_the_way_back_is_refused() {
    let node = machine();
    let wrong = upgrade(&node, file("1.2.0"), Some(file("1.1.0")), false);
    assert_eq!(wrong.outcome, Outcome::Refused);
    node.build_ids.borrow_mut().push((OLD.to_owned(), vec![1; 20]));
    let rebuilt = cold(&node);
    assert_eq!(rebuilt.outcome, Outcome::Refused);
    assert!(rebuilt.reason.unwrap().contains("no way back"));
    assert!(node.calls().is_empty());
}

#[test]
fn a_cold_upgrade_to_a_payload_that_is_loaded_already_is_refused() {
    let node = machine();
    node.insert(&file("1.1.0").bytes).unwrap();
    node.calls.borrow_mut().clear();
    assert_eq!(cold(&node).outcome, Outcome::Refused);
    assert!(node.calls().is_empty());
}
