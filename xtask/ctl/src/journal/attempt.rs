// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! One attempt, from its beginning to its end.

use serde_json::Value;

use super::{
    who, Began, Ended, Identity, Journal, Kind, Moment, Origin, Process, Record, Recorded, Settled,
    Verdict,
};
use crate::control::Control;
use crate::critical::{Critical, Locked};
use crate::node::kernel_release;
use crate::problem::{Exit, Problem};
use crate::report::{ErrorDocument, Mode, Recovery, RecoveryOutcome};

/// What is found as long as no payload serves.
const HELD: &str = "held";

/// Something that is about to change what runs.
///
/// While it exists this process has its memory locked: its end has to be written also when the disk that the program
/// lies on is held.
pub struct Attempt {
    journal: Journal,
    identity: Identity,
    warnings: Vec<String>,
    _memory: Option<Locked>,
}

impl Attempt {
    /// Writes that it begins. `from` is the version that is live, `to` the one that is to be. Whatever keeps the record from
    /// the disk is no error, but one of the [`Attempt::warnings`].
    pub fn begin(kind: Kind, origin: Origin, from: &str, to: &str) -> Self {
        Self::begin_as(kind, None, origin, from, to)
    }

    /// The same where there are two ways.
    pub fn begin_as(kind: Kind, mode: Option<Mode>, origin: Origin, from: &str, to: &str) -> Self {
        let journal = Journal::standard();
        let reports = Control::open().and_then(|control| control.reports()).unwrap_or_default();
        journal.note_atoms_own(&reports);
        Self::begin_in(journal, kind, mode, origin, from, to)
    }

    pub(super) fn begin_in(
        journal: Journal,
        kind: Kind,
        mode: Option<Mode>,
        origin: Origin,
        from: &str,
        to: &str,
    ) -> Self {
        let memory = Locked::enter().ok();
        let identity = Identity { attempt: journal.number(), boot: who::boot() };
        let record = Record::Began(Began {
            identity: identity.clone(),
            moment: Moment::now(),
            kind,
            mode,
            origin,
            user: who::user(),
            process: Process::this(),
            from: from.to_owned(),
            to: to.to_owned(),
            kernel: kernel_release().unwrap_or_default(),
            tool: env!("CARGO_PKG_VERSION").to_owned(),
        });
        let warnings = journal.write(&record).err().into_iter().collect();
        Self { journal, identity, warnings, _memory: memory }
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.identity.attempt
    }

    /// What kept its beginning from the disk. The report of an upgrade has it among its own warnings.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Writes how it has ended. The error tells people what kept that from the disk.
    pub fn end(self, report: &impl Recorded) -> Result<(), String> {
        let exit = report.verdict().exit;
        self.end_as(report, exit)
    }

    /// The same where the tool exits in a way that the document does not tell.
    pub fn end_as(self, report: &impl Recorded, exit: Exit) -> Result<(), String> {
        let Verdict { outcome, reason, .. } = report.verdict();
        self.write(|identity| {
            Record::Ended(Ended {
                identity,
                moment: Moment::now(),
                outcome,
                exit_code: exit.code(),
                reason,
                report: serde_json::to_value(report).unwrap_or(Value::Null),
            })
        })
    }

    /// The same where nothing came of it.
    pub fn fail(self, problem: &Problem) -> Result<(), String> {
        self.end(&ErrorDocument::new(problem))
    }

    /// What writes the end of other attempts in the name of this one.
    pub(crate) fn settling(&self) -> Settling {
        Settling { journal: self.journal.clone(), own: self.identity.clone() }
    }

    fn write(&self, record: impl FnOnce(Identity) -> Record) -> Result<(), String> {
        // The record goes to memory, of which there may only be some when a held disk takes what is there.
        let _critical = if self.journal.flows() { None } else { Critical::enter().ok() };
        self.journal.write(&record(self.identity.clone()))
    }
}

/// Writes what was found of the attempts without an end.
pub(crate) struct Settling {
    journal: Journal,
    own: Identity,
}

impl Settling {
    /// Writes what a recovery has found. One that was refused has found nothing yet, nor has one of which a step has failed: a
    /// handoff may be under way, which the attempt without an end has begun.
    pub(crate) fn settle_by(&self, done: &Recovery) -> Result<(), String> {
        match done.outcome {
            RecoveryOutcome::Refused | RecoveryOutcome::Failed | RecoveryOutcome::Planned => Ok(()),
            outcome => self.settle(&done.live, outcome == RecoveryOutcome::Held),
        }
    }

    /// Writes it, with the version that serves now.
    pub(crate) fn settle(&self, live: &str, held: bool) -> Result<(), String> {
        let records = self.journal.read().records;
        for (identity, to) in without_end(&records, &self.own) {
            let outcome = match held {
                true => HELD,
                false if live == to => "finished",
                false => "undone",
            };
            self.journal.write(&Record::Settled(Settled {
                identity,
                moment: Moment::now(),
                by: self.own.attempt,
                live: live.to_owned(),
                outcome: outcome.to_owned(),
            }))?;
        }
        Ok(())
    }
}

/// The attempts without an end whose tool is gone, each with the version that it was to make live.
pub(super) fn without_end(records: &[Record], own: &Identity) -> Vec<(Identity, String)> {
    let has_ended = |one: &Identity| {
        records.iter().any(|record| match record {
            Record::Ended(ended) => &ended.identity == one,
            Record::Settled(settled) => &settled.identity == one && settled.outcome != HELD,
            Record::Began(_) | Record::Unknown => false,
        })
    };
    let began = records.iter().filter_map(|record| match record {
        Record::Began(began) => Some(began),
        _ => None,
    });
    let gone = |one: &&Began| one.identity.boot != own.boot || !one.process.is_alive();
    began
        .filter(|one| &one.identity != own && !has_ended(&one.identity))
        .filter(gone)
        .map(|one| (one.identity.clone(), one.to.clone()))
        .collect()
}
