// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::line::{decode, encode};
use super::medium::{Folder, Memory};
use super::store::Flow;
use super::*;
use crate::problem::{Exit, Problem};
use crate::report::{Mode, Outcome, Recovery, RecoveryOutcome, UpgradeReport};

const LIMIT: Duration = Duration::from_secs(60);
const FLOWING: Flow = Flow { flows: || true, is_apart: || false };

pub fn began(number: u64) -> Record {
    Record::Began(test_records::began(number))
}

/// Two folders that are gone at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("atomctl-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn journal(&self, limit: usize) -> Journal {
        self.journal_that(FLOWING, limit)
    }

    fn journal_that(&self, flow: Flow, limit: usize) -> Journal {
        let disk = Box::new(Folder::new(self.0.join("disk")));
        let memory = Box::new(Folder::new(self.0.join("memory")));
        Journal::of(disk, memory, limit, LIMIT, flow)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn report(outcome: Outcome) -> UpgradeReport {
    UpgradeReport::begin("7.2.12", "1.0.0", "1.1.0", Mode::Warm)
        .end(outcome, Some("because".to_owned()))
}

fn begin(journal: &Journal) -> Attempt {
    let (kind, mode) = (Kind::Upgrade, Some(Mode::Warm));
    Attempt::begin_in(journal.clone(), kind, mode, Origin::Package, "1.0.0", "1.1.0")
}

#[test]
fn a_line_is_one_json_object_with_its_checksum_and_reads_back() {
    let line = encode(&began(3)).unwrap();
    let text = String::from_utf8(line).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["record"], "began");
    assert_eq!(value["attempt"], 3);
    assert_eq!(value["crc"].as_str().unwrap().len(), 8);
    assert_eq!(decode(text.trim_end().as_bytes()), Some(began(3)));
    assert_eq!(text.matches('\n').count(), 1);
}

#[test]
fn a_record_that_a_later_release_has_written_is_no_damage() {
    let body = br#"{"record":"pondered","attempt":3,"boot":"b""#;
    let crc = atom_abi::crc32c::crc32c(body);
    let line = [&body[..], format!(",\"crc\":\"{crc:08x}\"}}").as_bytes()].concat();
    assert_eq!(decode(&line), Some(Record::Unknown));
}

#[test]
fn an_attempt_begins_before_and_ends_after_with_its_whole_report() {
    let place = Place::new("attempt");
    let journal = place.journal(1 << 20);
    let attempt = begin(&journal);
    assert!(attempt.warnings().is_empty(), "{:?}", attempt.warnings());
    let on_disk = fs::read_to_string(place.0.join("disk/journal")).unwrap();
    assert_eq!(on_disk.lines().count(), 1, "{on_disk}");
    attempt.end(&report(Outcome::Aborted)).unwrap();
    let records = journal.read().records;
    let [Record::Began(began), Record::Ended(ended)] = records.as_slice() else {
        panic!("{records:?}");
    };
    assert_eq!((began.identity.attempt, began.origin), (1, Origin::Package));
    assert_eq!((ended.outcome.as_str(), ended.exit_code), ("aborted", 1));
    assert_eq!(ended.reason.as_deref(), Some("because"));
    assert_eq!(ended.report["schema"], UpgradeReport::SCHEMA);
    // The order of the fields, and with them that of the phases, is the document's own.
    assert_eq!(ended.report.as_object().unwrap().keys().next().unwrap(), "schema");
}

#[test]
fn numbers_grow_over_restarts_and_with_each_tool() {
    let place = Place::new("numbers");
    let numbers = |count: usize| -> Vec<u64> {
        (0..count).map(|_| begin(&place.journal(1 << 20)).number()).collect()
    };
    assert_eq!(numbers(3), [1, 2, 3]);
    fs::remove_dir_all(place.0.join("memory")).unwrap();
    assert_eq!(numbers(2), [4, 5]);
}

#[test]
fn what_a_boot_did_before_the_disk_was_there_comes_to_it_and_takes_no_number_of_another() {
    let place = Place::new("early");
    for _ in 0..3 {
        begin(&place.journal(1 << 20)).fail(&Problem::refused("No", "busy", "wait")).unwrap();
    }
    // The machine is started anew, and the disk is there later.
    fs::remove_dir_all(place.0.join("memory")).unwrap();
    fs::rename(place.0.join("disk"), place.0.join("later")).unwrap();
    let absent = Flow { flows: || false, ..FLOWING };
    let _ = begin(&place.journal_that(absent, 1 << 20));
    assert!(!place.0.join("disk").exists(), "it was written below the mount point");
    fs::rename(place.0.join("later"), place.0.join("disk")).unwrap();
    assert_eq!(begin(&place.journal(1 << 20)).number(), 4);
    let found = place.journal(1 << 20).read();
    let began = found.records.iter().filter(|record| matches!(record, Record::Began(_)));
    assert_eq!(began.count(), 5, "{found:?}");
}

#[test]
fn what_ends_with_a_problem_has_it_in_the_journal() {
    let place = Place::new("problem");
    let journal = place.journal(1 << 20);
    begin(&journal).fail(&Problem::refused("No", "busy", "wait")).unwrap();
    let records = journal.read().records;
    let Some(Record::Ended(ended)) = records.last() else { panic!("{records:?}") };
    assert_eq!((ended.outcome.as_str(), ended.exit_code), ("failed", 3));
    assert_eq!(ended.report["remedy"], "wait");
    assert_eq!(Exit::of(ended.exit_code), Exit::Refused);
}

#[test]
fn old_records_go_and_the_last_ones_stay() {
    let place = Place::new("rotation");
    let journal = place.journal(2000);
    for number in 1..=100 {
        journal.write(&began(number)).unwrap();
    }
    let there: Vec<u64> =
        journal.read().records.iter().filter_map(Record::identity).map(|one| one.attempt).collect();
    assert_eq!(there, (101 - there.len() as u64..=100).collect::<Vec<_>>());
    assert!(there.len() > 20 && there.len() < 50, "{there:?}");
    assert_eq!(fs::read_dir(place.0.join("disk")).unwrap().count(), 5);
}

#[test]
fn two_writers_at_once_lose_nothing() {
    let place = Place::new("writers");
    std::thread::scope(|scope| {
        for writer in 0..2u64 {
            let journal = place.journal(1 << 20);
            scope.spawn(move || {
                for number in 0..100 {
                    journal.write(&began(writer * 1000 + number)).unwrap();
                }
            });
        }
    });
    let found = place.journal(1 << 20).read();
    assert_eq!((found.records.len(), found.damaged), (200, 0), "{:?}", found.notes);
}

#[test]
fn a_disk_that_does_not_answer_costs_a_warning_and_no_more() {
    /// A folder in which every step waits until the test is over.
    struct Stuck(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);
    impl medium::Medium for Stuck {
        fn read(&self, _: &str) -> std::io::Result<Vec<u8>> {
            let _ = self.0.lock().unwrap().recv();
            Ok(Vec::new())
        }
        fn append(&self, _: &str, _: &[u8]) -> std::io::Result<()> {
            Ok(())
        }
        fn truncate(&self, _: &str, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn sync(&self, _: &str) -> std::io::Result<()> {
            Ok(())
        }
        fn sync_names(&self) -> std::io::Result<()> {
            Ok(())
        }
        fn rename(&self, _: &str, _: &str) -> std::io::Result<()> {
            Ok(())
        }
        fn remove(&self, _: &str) -> std::io::Result<()> {
            Ok(())
        }
        fn lock(&self, _: &str) -> std::io::Result<medium::Lock> {
            Ok(medium::Lock::unneeded())
        }
    }
    let (test, end) = channel();
    let disk = Box::new(Stuck(end.into()));
    let patience = Duration::from_millis(20);
    let journal = Journal::of(disk, Box::<Memory>::default(), 1 << 20, patience, FLOWING);
    let warning = journal.write(&began(1)).unwrap_err();
    assert!(warning.contains("no answer after 20ms"), "{warning}");
    // It is not waited for again.
    let warning = journal.write(&began(2)).unwrap_err();
    assert!(warning.contains("did not answer before"), "{warning}");
    assert_eq!(journal.read().records, [began(1), began(2)]);
    drop(test);
}

#[test]
fn what_a_killed_tool_has_left_open_is_settled_and_what_runs_is_not() {
    let place = Place::new("settle");
    let journal = place.journal(1 << 20);
    // The process of record 1 was another one; this test's own attempt is at work.
    journal.write(&began(1)).unwrap();
    let running = begin(&journal);
    let recover = begin(&journal);
    recover.settling().settle("1.0.0", true).unwrap();
    recover.settling().settle("1.0.0", false).unwrap();
    recover.settling().settle("1.0.0", false).unwrap();
    let records = journal.read().records;
    let settled: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            Record::Settled(settled) => Some((settled.identity.attempt, settled.outcome.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(settled, [(1, "held"), (1, "undone")]);
    drop(running);
}

#[test]
fn a_recovery_that_is_refused_or_fails_leaves_open_what_comes_of_the_attempts_of_dead_tools() {
    let place = Place::new("refused");
    let journal = place.journal(1 << 20);
    journal.write(&began(1)).unwrap();
    let recover = begin(&journal);
    let settled = |outcome| {
        recover.settling().settle_by(&recovery(outcome)).unwrap();
        let records = journal.read().records;
        records.iter().filter(|record| matches!(record, Record::Settled(_))).count()
    };
    assert_eq!(settled(RecoveryOutcome::Refused), 0);
    assert_eq!(settled(RecoveryOutcome::Planned), 0);
    assert_eq!(settled(RecoveryOutcome::Failed), 0);
    assert_eq!(settled(RecoveryOutcome::Recovered), 1);
}

fn recovery(outcome: RecoveryOutcome) -> Recovery {
    Recovery {
        schema: Recovery::SCHEMA.to_owned(),
        outcome,
        found: String::new(),
        plan: Vec::new(),
        done: 0,
        left: Vec::new(),
        reason: None,
        remedy: None,
        live: "1.0.0".to_owned(),
    }
}
