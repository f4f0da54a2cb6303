// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What Atom has done by itself: switched back in a soak, gone back for a tool that died, loaded a fallback.

use atom_abi::control::{cause, kind, Report};
use serde_json::Value;

use super::{who, Began, Ended, Found, Identity, Kind, Moment, Origin, Process, Record};
use crate::node::kernel_release;
use crate::problem::Exit;
use crate::report::{failure_of, Handoff, HandoffDocument};

/// What Atom's reports have that the records do not, oldest first, without a number yet.
pub(super) fn missing(records: &[Record], reports: &[Report], boot: &str) -> Vec<(Began, Ended)> {
    reports
        .iter()
        .rev()
        .filter(|report| report.cause != cause::ASKED && report.sequence != 0)
        .filter(|report| !is_part_of_one(records, report, boot) && !is_there(records, report, boot))
        .map(|report| records_of(report, boot))
        .collect()
}

/// Whether a tool was at work that has told the whole story.
fn is_part_of_one(records: &[Record], report: &Report, boot: &str) -> bool {
    let ended = |one: &Identity| {
        records.iter().find_map(|record| match record {
            Record::Ended(ended) if &ended.identity == one => Some(ended.moment.monotonic_ns),
            _ => None,
        })
    };
    records.iter().any(|record| match record {
        Record::Began(began) if began.identity.boot == boot => {
            let running = || began.process.is_alive().then_some(u64::MAX);
            let end = ended(&began.identity).or_else(running);
            began.moment.monotonic_ns <= report.started_ns
                && end.is_some_and(|end| report.started_ns <= end)
        }
        _ => false,
    })
}

fn is_there(records: &[Record], report: &Report, boot: &str) -> bool {
    records.iter().any(|record| match record {
        Record::Began(began) => {
            began.origin == Origin::Atom
                && began.identity.boot == boot
                && began.moment.monotonic_ns == report.started_ns
        }
        _ => false,
    })
}

fn records_of(report: &Report, boot: &str) -> (Began, Ended) {
    let identity = Identity { attempt: 0, boot: boot.to_owned() };
    let took: u64 = report.phases_ns.iter().fold(0, |sum: u64, ns| sum.saturating_add(*ns));
    let end = report.started_ns.saturating_add(took);
    let document = HandoffDocument::new(Handoff::of(report));
    let began = Began {
        identity: identity.clone(),
        moment: Moment::since_start(report.started_ns),
        kind: if report.kind == kind::ADOPT { Kind::Adopt } else { Kind::Rollback },
        mode: None,
        origin: Origin::Atom,
        user: String::new(),
        process: Process::default(),
        from: report.from.as_str().to_owned(),
        to: report.to.as_str().to_owned(),
        kernel: kernel_release().unwrap_or_default(),
        tool: String::new(),
    };
    let why = failure_of(report);
    let ended = Ended {
        identity,
        moment: Moment::since_start(end),
        outcome: document.handoff.outcome.clone(),
        // What it went back from has failed, even though the way back has not.
        exit_code: Exit::Undone.code(),
        reason: Some(match why {
            Some(why) => format!("Atom did it by itself ({}): {why}", cause::name_of(report.cause)),
            None => format!("Atom did it by itself: {}", cause::name_of(report.cause)),
        }),
        report: serde_json::to_value(&document).unwrap_or(Value::Null),
    };
    (began, ended)
}

impl Found {
    /// The same with what Atom has done by itself since the last record.
    pub fn with_atoms_own(mut self, reports: &[Report]) -> Self {
        for (began, ended) in missing(&self.records, reports, &who::boot()) {
            self.records.push(Record::Began(began));
            self.records.push(Record::Ended(ended));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use atom_abi::control::outcome;
    use atom_abi::text::Text;

    use super::super::test_records::{began, ended};
    use super::*;

    fn went_back(started_ns: u64) -> Report {
        Report {
            sequence: 5,
            kind: kind::SWITCH,
            outcome: outcome::DONE,
            cause: cause::STALL,
            from: Text::new("1.1.0"),
            to: Text::new("1.0.0"),
            started_ns,
            ..Report::EMPTY
        }
    }

    #[test]
    fn what_atom_has_done_after_the_tool_died_is_an_attempt_of_its_own() {
        let records = [Record::Began(began(1))];
        let own = missing(&records, &[went_back(1_500_000_000)], "b");
        assert_eq!(own.len(), 1);
        let (began, ended) = &own[0];
        assert_eq!((began.origin, began.kind), (Origin::Atom, Kind::Rollback));
        assert_eq!((began.from.as_str(), began.to.as_str()), ("1.1.0", "1.0.0"));
        assert!(ended.reason.as_ref().unwrap().contains("stall"), "{ended:?}");
        // Once it is in the journal it is not told again.
        let known = [records.to_vec(), vec![Record::Began(began.clone())]].concat();
        assert!(missing(&known, &[went_back(1_500_000_000)], "b").is_empty());
    }

    #[test]
    fn what_the_report_of_a_tool_tells_is_not_told_twice() {
        let records = [Record::Began(began(1)), Record::Ended(ended(1, "rolled-back", 1))];
        assert!(missing(&records, &[went_back(1_500_000_000)], "b").is_empty());
        assert_eq!(missing(&records, &[went_back(2_500_000_000)], "b").len(), 1);
        assert_eq!(missing(&records, &[went_back(1_500_000_000)], "other").len(), 1);
    }

    #[test]
    fn what_somebody_asked_for_is_no_doing_of_atom() {
        let asked = Report { cause: cause::ASKED, ..went_back(1) };
        assert!(missing(&[], &[asked], "b").is_empty());
    }
}
