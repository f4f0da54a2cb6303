// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a plan says is what an upgrade does.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use atom_abi::version::SchemaRange;

use super::fake_node::{FakeNode, Step};
use super::tests::machine;
use super::{foresee, run_on, Options, Target, Terms};
use crate::module_file::test_file::{stamp, TestFile};
use crate::node::Node;
use crate::places::Places;
use crate::report::{Mode, Outcome};

/// A folder with the files of 1.0.0 and of another payload.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, other: &TestFile) -> Self {
        let path = std::env::temp_dir().join(format!("atomctl-plan-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("payload_1_0_0.ko"), TestFile::payload("1.0.0").bytes()).unwrap();
        fs::write(path.join("other.ko"), other.bytes()).unwrap();
        Self(path)
    }

    fn options(&self, mode: Mode) -> Options {
        Options {
            mode,
            deadline: Duration::from_secs(5),
            keep_parked: false,
            old: None,
            places: Places::of(vec![self.0.clone()]),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Plans an upgrade and then makes it. Returns the check that has failed, if one has.
fn plan_and_upgrade(name: &str, node: &FakeNode, other: &TestFile, mode: Mode) -> Option<String> {
    let folder = Folder::new(name, other);
    let target = folder.0.join("other.ko");
    let (options, terms) = (folder.options(mode), Terms::default());
    let calls = node.calls.borrow().len();
    let plan = foresee(node, &Target::File(target.clone()), &options, &terms).unwrap();
    assert_eq!(node.calls.borrow().len(), calls, "{name}: a plan has changed something");
    let report = run_on(node, &target, &options, &terms);
    match report {
        Ok(report) => {
            assert_eq!(plan.ok, report.outcome != Outcome::Refused, "{name}: {plan:?} {report:?}");
            assert_eq!(plan.reason, report.reason.filter(|_| !plan.ok), "{name}");
            assert_eq!(plan.remedy, report.remedy.filter(|_| !plan.ok), "{name}");
        }
        Err(problem) => assert_eq!(plan.reason, Some(problem.in_one_line()), "{name}"),
    }
    let failed = plan.checks.iter().position(|check| !check.ok);
    assert_eq!(failed.is_some(), !plan.ok);
    // Nothing is looked at behind the first failure.
    failed.map(|at| {
        assert_eq!(at, plan.checks.len() - 1, "{name}");
        plan.checks[at].name.clone()
    })
}

#[test]
fn an_upgrade_that_would_be_begun_is_begun() {
    for mode in [Mode::Warm, Mode::Cold] {
        let fits = TestFile::payload("1.1.0");
        assert_eq!(plan_and_upgrade(&format!("fits-{mode}"), &machine(), &fits, mode), None);
    }
}

#[test]
fn what_an_upgrade_would_be_refused_for_is_named_with_the_same_reason() {
    let next = TestFile::payload("1.1.0");
    let mut foreign = stamp("1.1.0");
    foreign.offer.layout_hash ^= 1;
    let mut newer = stamp("1.1.0");
    newer.schema = SchemaRange { read_min: 8, read_max: 9, write_min: 8, write_max: 9 };
    let cases: [(&str, FakeNode, TestFile); 6] = [
        ("file", machine(), TestFile::payload("1.1.0").without_stamp()),
        ("interface", machine(), TestFile::payload("1.1.0").with_stamp(&foreign)),
        ("schema", machine(), TestFile::payload("1.1.0").with_stamp(&newer)),
        ("way", machine(), TestFile::payload("1.0.0")),
        ("volumes", machine(), TestFile::payload("1.1.0")),
        ("alone", machine(), next),
    ];
    for (name, node, other) in cases {
        match name {
            "volumes" => node.beyond.borrow_mut().push("db".to_owned()),
            "alone" => node.fail(Step::Claim, 9),
            _ => {}
        }
        let failed = plan_and_upgrade(name, &node, &other, Mode::Warm).unwrap();
        // That it is no payload is found where its kernel is.
        let wanted = if name == "file" { "kernel" } else { name };
        assert_eq!(failed, wanted);
    }
}

#[test]
fn an_installed_version_is_found_and_a_missing_one_is_refused() {
    let folder = Folder::new("version", &TestFile::payload("1.1.0"));
    let (node, options) = (machine(), folder.options(Mode::Warm));
    let plan = |version: &str| {
        foresee(&node, &Target::Version(version.to_owned()), &options, &Terms::default()).unwrap()
    };
    let found = plan("1.1.0");
    assert!(found.ok && found.file.ends_with("other.ko") && found.to == "1.1.0", "{found:?}");
    assert_eq!((found.opens, found.devices.len()), (3, node.devices().unwrap().len()));
    let missing = plan("3.0.0");
    assert!(!missing.ok && missing.exit().code() == 3);
    assert!(missing.reason.unwrap().contains("3.0.0"));
}
