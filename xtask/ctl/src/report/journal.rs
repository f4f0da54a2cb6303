// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What was attempted on this machine.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Mode;
use crate::journal::{Began, Ended, Found, Identity, Kind, Origin, Record, Settled};

/// What `history` prints.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct JournalDocument {
    /// [`JournalDocument::SCHEMA`].
    pub schema: String,
    /// The attempts, oldest first.
    pub attempts: Vec<AttemptEntry>,
    /// Lines of the journal that were damaged after they had been written.
    pub damaged: usize,
    /// What else a reader should know, such as a record that was not written to its end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One attempt.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AttemptEntry {
    /// Its number. 0 for what Atom has done by itself and the journal does not have yet.
    pub attempt: u64,
    /// What was attempted.
    pub kind: Kind,
    /// Warm or cold, where that can be chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// On whose behalf.
    pub origin: Origin,
    /// Who called the tool.
    pub user: String,
    /// Version that was live; empty when none was.
    pub from: String,
    /// Version that was to be live.
    pub to: String,
    /// When it began: UTC, RFC 3339.
    pub began: String,
    /// The same in nanoseconds since the machine was started.
    pub began_ns: u64,
    /// The kernel's name for the time since the machine was started.
    pub boot: String,
    /// Release of the kernel that ran.
    pub kernel: String,
    /// Version of the tool.
    pub tool: String,
    /// Whether it has ended.
    pub state: AttemptState,
    /// How it has ended, in a word; null when that is not known.
    pub outcome: Option<String>,
    /// The exit code of the tool.
    pub exit_code: Option<u8>,
    /// Why it is not what was asked for.
    pub reason: Option<String>,
    /// When it had ended, or its end was found.
    pub ended: Option<String>,
    /// How long it took.
    pub took_us: Option<u64>,
    /// For one that was settled: the attempt that found it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_by: Option<u64>,
    /// The document that the tool has printed.
    pub report: Option<Value>,
}

/// Whether an attempt has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptState {
    /// Its tool is at work.
    Running,
    /// Its tool was killed, or the power went, and nobody has looked since: `atomctl recover` does.
    Interrupted,
    /// It has ended by itself.
    Ended,
    /// It was interrupted, and somebody has found out what became of it.
    Settled,
}

impl fmt::Display for AttemptState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Ended => "ended",
            Self::Settled => "settled",
        })
    }
}

impl JournalDocument {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.journal/1";

    /// The document of what was read, on a machine with this name of its start.
    pub fn new(found: &Found, boot: &str) -> Self {
        let alive = |began: &Began| began.identity.boot == boot && began.process.is_alive();
        Self {
            schema: Self::SCHEMA.to_owned(),
            attempts: attempts(&found.records, alive),
            damaged: found.damaged,
            notes: found.notes.clone(),
        }
    }
}

/// The attempts of these records.
fn attempts(records: &[Record], alive: impl Fn(&Began) -> bool) -> Vec<AttemptEntry> {
    let mut attempts: Vec<AttemptEntry> = Vec::new();
    for record in records {
        let of = |attempts: &[AttemptEntry], one: &Identity| {
            attempts
                .iter()
                .rposition(|known| known.attempt == one.attempt && known.boot == one.boot)
        };
        match record {
            Record::Began(began) => attempts.push(AttemptEntry::began(began, alive(began))),
            Record::Ended(ended) => {
                if let Some(entry) =
                    of(&attempts, &ended.identity).and_then(|at| attempts.get_mut(at))
                {
                    entry.end(ended);
                }
            }
            Record::Settled(settled) => {
                if let Some(entry) =
                    of(&attempts, &settled.identity).and_then(|at| attempts.get_mut(at))
                {
                    entry.settle(settled);
                }
            }
            Record::Unknown => {}
        }
    }
    attempts
}

impl AttemptEntry {
    fn began(record: &Began, alive: bool) -> Self {
        Self {
            attempt: record.identity.attempt,
            kind: record.kind,
            mode: record.mode,
            origin: record.origin,
            user: record.user.clone(),
            from: record.from.clone(),
            to: record.to.clone(),
            began: record.moment.at.clone(),
            began_ns: record.moment.monotonic_ns,
            boot: record.identity.boot.clone(),
            kernel: record.kernel.clone(),
            tool: record.tool.clone(),
            state: if alive { AttemptState::Running } else { AttemptState::Interrupted },
            outcome: None,
            exit_code: None,
            reason: None,
            ended: None,
            took_us: None,
            settled_by: None,
            report: None,
        }
    }

    fn end(&mut self, record: &Ended) {
        self.state = AttemptState::Ended;
        self.outcome = Some(record.outcome.clone());
        self.exit_code = Some(record.exit_code);
        self.reason.clone_from(&record.reason);
        self.ended = Some(record.moment.at.clone());
        self.took_us = Some(record.moment.monotonic_ns.saturating_sub(self.began_ns) / 1000);
        self.report = Some(record.report.clone());
    }

    fn settle(&mut self, record: &Settled) {
        if self.state == AttemptState::Ended {
            return;
        }
        self.state = AttemptState::Settled;
        self.outcome = Some(record.outcome.clone());
        self.ended = Some(record.moment.at.clone());
        self.settled_by = Some(record.by);
        let live = if record.live.is_empty() { "no payload" } else { &record.live };
        self.reason = Some(format!(
            "its tool did not come to its end; attempt {} found that {live} serves",
            record.by
        ));
    }

    /// Whether what it wanted has happened.
    pub fn succeeded(&self) -> bool {
        match self.state {
            AttemptState::Ended => self.exit_code == Some(0),
            AttemptState::Settled => self.outcome.as_deref() == Some("finished"),
            AttemptState::Running | AttemptState::Interrupted => false,
        }
    }

    /// How long I/O was held, when the report tells.
    pub fn pause_us(&self) -> Option<u64> {
        self.report.as_ref()?.get("pause_us")?.as_u64()
    }
}

/// The last attempt to change what serves, when it has failed and nothing has succeeded since.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LastAttempt {
    /// Its number, for `atomctl history --attempt`.
    pub attempt: u64,
    /// What was attempted.
    pub kind: Kind,
    /// On whose behalf.
    pub origin: Origin,
    /// When it began: UTC, RFC 3339.
    pub began: String,
    /// Version that was live; empty when none was.
    pub from: String,
    /// Version that was to be live.
    pub to: String,
    /// How it has ended, in a word; `interrupted` when its tool did not come to its end.
    pub outcome: String,
    /// Why.
    pub reason: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl LastAttempt {
    /// The one that somebody should know of.
    pub fn of(attempts: &[AttemptEntry]) -> Option<Self> {
        let matters = |one: &&AttemptEntry| {
            matches!(
                one.kind,
                Kind::Upgrade | Kind::Rollback | Kind::Adopt | Kind::Recover | Kind::Load
            ) && one.state != AttemptState::Running
        };
        let last = attempts.iter().rev().find(matters).filter(|last| !last.succeeded())?;
        let remedy = last.report.as_ref().and_then(|report| report.get("remedy")?.as_str());
        let interrupted = last.state == AttemptState::Interrupted;
        Some(Self {
            attempt: last.attempt,
            kind: last.kind,
            origin: last.origin,
            began: last.began.clone(),
            from: last.from.clone(),
            to: last.to.clone(),
            outcome: last.outcome.clone().unwrap_or_else(|| last.state.to_string()),
            reason: last.reason.clone(),
            remedy: match interrupted {
                true => Some("atomctl recover finds out what became of it".to_owned()),
                false => remedy.map(str::to_owned),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::test_records::{began, ended, settled};

    fn document(records: &[Record]) -> Vec<AttemptEntry> {
        attempts(records, |began| began.process.id == 9)
    }

    #[test]
    fn an_attempt_without_an_end_is_interrupted_unless_its_tool_runs() {
        let mut running = began(2);
        running.process.id = 9;
        let attempts = document(&[Record::Began(began(1)), Record::Began(running)]);
        let states: Vec<_> = attempts.iter().map(|one| one.state).collect();
        assert_eq!(states, [AttemptState::Interrupted, AttemptState::Running]);
        assert_eq!(LastAttempt::of(&attempts).unwrap().outcome, "interrupted");
    }

    #[test]
    fn an_end_is_that_of_its_attempt_and_a_later_finding_does_not_change_it() {
        let attempts = document(&[
            Record::Began(began(1)),
            Record::Began(began(2)),
            Record::Ended(ended(1, "committed", 0)),
            Record::Settled(settled(1, "undone")),
            Record::Settled(settled(2, "undone")),
        ]);
        let outcomes: Vec<_> =
            attempts.iter().map(|one| (one.state, one.outcome.as_deref().unwrap())).collect();
        assert_eq!(
            outcomes,
            [(AttemptState::Ended, "committed"), (AttemptState::Settled, "undone")]
        );
    }

    #[test]
    fn an_attempt_of_another_start_of_the_machine_may_have_the_same_number() {
        let mut earlier = began(1);
        earlier.identity.boot = "a".to_owned();
        let attempts = document(&[
            Record::Began(earlier),
            Record::Began(began(1)),
            Record::Ended(ended(1, "committed", 0)),
        ]);
        assert_eq!(attempts[0].state, AttemptState::Interrupted);
        assert_eq!(attempts[1].state, AttemptState::Ended);
    }

    #[test]
    fn a_failure_is_told_until_something_has_succeeded() {
        let failed = [Record::Began(began(1)), Record::Ended(ended(1, "aborted", 1))];
        let last = LastAttempt::of(&document(&failed)).unwrap();
        assert_eq!((last.attempt, last.outcome.as_str()), (1, "aborted"));
        assert_eq!(last.remedy.as_deref(), Some("wait"));
        let mut commit = began(2);
        commit.kind = Kind::Commit;
        let then = |began: Began, outcome: &str, code: u8| {
            let number = began.identity.attempt;
            let more = [Record::Began(began), Record::Ended(ended(number, outcome, code))];
            LastAttempt::of(&document(&[failed.clone(), more].concat()))
        };
        assert!(then(commit, "committed", 0).is_some());
        assert!(then(began(2), "committed", 0).is_none());
        assert_eq!(then(began(2), "refused", 3).unwrap().attempt, 2);
    }
}
