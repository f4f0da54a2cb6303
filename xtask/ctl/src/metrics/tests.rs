// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

use super::exposition::{Exposition, Kind};
use super::grammar::parse;
use super::*;
use crate::blank;
use crate::journal::test_records::{began, ended};
use crate::journal::{Found, Record};
use crate::module_file::test_file::{live, status as atom, TestFile};
use crate::report::Entry;

fn listing(file: &str) -> Listing {
    let file = TestFile::payload("1.1.0").parse().map(|mut parsed| {
        parsed.path = file.into();
        parsed
    });
    Listing {
        schema: Listing::SCHEMA.to_owned(),
        kernel: String::new(),
        payloads: vec![Entry::registered(&live()), Entry::installed(&file.unwrap(), None)],
    }
}

fn journal() -> JournalDocument {
    let mut whole = ended(2, "committed", 0);
    whole.report = serde_json::to_value({
        let mut report =
            UpgradeReport::begin("7.2.12", "1.0.0", "1.1.0", crate::report::Mode::Warm)
                .end(crate::report::Outcome::Committed, None);
        report.pause_us = 1500;
        report.phases_us.add("drain", 250);
        report
    })
    .unwrap();
    let records = vec![Record::Began(began(1)), Record::Began(began(2)), Record::Ended(whole)];
    JournalDocument::new(&Found { records, ..Found::default() }, "b")
}

#[test]
fn the_metrics_of_a_machine_are_read_by_a_strict_scraper() {
    let devices =
        [blank::DEVICE, atom_abi::control::DeviceInfo { id: 1, errors: 3, ..blank::DEVICE }];
    let status = StatusDocument::new("7.2.12", &atom(), &[live()], &devices);
    let text = render(Some(&status), &listing("/a \"b\"\\\n.ko"), &journal());
    let values = parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"));
    for (name, value) in [
        ("atom_up", 1.0),
        (r#"atom_place{place="live"}"#, 1.0),
        (r#"atom_place{place="held"}"#, 0.0),
        (r#"atom_device_errors_total{device="atom1"}"#, 3.0),
        (r#"atom_journal_attempts{kind="upgrade",origin="operator",outcome="committed"}"#, 1.0),
        ("atom_journal_interrupted_attempts", 1.0),
        ("atom_last_upgrade_success", 1.0),
        ("atom_last_upgrade_pause_seconds", 0.0015),
        (r#"atom_last_upgrade_phase_seconds{phase="drain"}"#, 0.00025),
        ("atom_last_upgrade_timestamp_seconds", 1_767_225_601.0),
    ] {
        assert_eq!(values.get(name), Some(&value), "{name}\n{text}");
    }
    assert!(values.keys().any(|key| key.contains(r#"file="/a \"b\"\\\n.ko""#)), "{text}");
}

#[test]
fn a_machine_without_atom_has_metrics_too() {
    let text = render(None, &listing("/a.ko"), &JournalDocument::new(&Found::default(), "b"));
    let values = parse(&text).unwrap();
    assert_eq!(values.get("atom_up"), Some(&0.0));
    assert!(!values.contains_key("atom_devices"));
}

#[test]
fn the_scraper_of_these_tests_refuses_what_is_wrong() {
    let head = "# HELP atom_a Help.\n# TYPE atom_a gauge\n";
    assert!(parse(&format!("{head}atom_a 1\n")).is_ok());
    for wrong in [
        "atom_a 1\n".to_owned(),
        format!("{head}atom_a 1"),
        format!("{head}atom_a\n"),
        format!("{head}atom_a x\n"),
        format!("{head}atom_a NaN\n"),
        format!("{head}atom_a{{b=\"c}} 1\n"),
        format!("{head}atom_a{{b=\"\\c\"}} 1\n"),
        format!("{head}atom_a{{b=\"c\",b=\"d\"}} 1\n"),
        format!("{head}atom_a 1\natom_a 1\n"),
        format!("{head}{head}"),
        "# HELP atom_a Help.\n# TYPE atom_a counter\natom_a 1\n".to_owned(),
    ] {
        assert!(parse(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn no_place_of_atom_is_missing() {
    for place in atom_abi::lifecycle::Place::ALL {
        assert!(PLACES.contains(&atom_abi::lifecycle::Place::name_of(place.code())), "{place:?}");
    }
}

#[test]
fn a_value_keeps_all_of_its_digits() {
    let mut out = Exposition::default();
    out.one("atom_a_bytes", Kind::Gauge, "Help.", 1e15 + 1.0);
    assert!(out.into_text().ends_with("atom_a_bytes 1000000000000001\n"));
}
