// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl history`

use super::output::Output;
use crate::control::Control;
use crate::journal::{self, Journal};
use crate::problem::{Exit, Problem, Result};
use crate::report::{AttemptEntry, History, JournalDocument};
use crate::text;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only so many, the newest ones.
    #[arg(long, value_name = "N", conflicts_with = "attempt")]
    last: Option<usize>,
    /// Only this one, with everything that is known of it.
    #[arg(long, value_name = "ID")]
    attempt: Option<u64>,
    /// The handoffs that Atom itself keeps since it was loaded, instead of the journal.
    #[arg(long, conflicts_with_all = ["last", "attempt"])]
    atom: bool,
}

pub(super) fn run(output: &Output, args: &Args) -> Result<Exit> {
    if args.atom {
        let control = Control::open()?;
        output.show(&History::new(&control.reports()?), text::history)?;
        return Ok(Exit::Done);
    }
    let mut document = read();
    match args.attempt {
        None => {
            keep_last(&mut document.attempts, args.last);
            output.show(&document, text::journal)?;
        }
        Some(number) => {
            let chosen = choose(&document.attempts, number)?;
            document.attempts = vec![chosen];
            output.show(&document, |document, paint| {
                document.attempts.iter().map(|one| text::attempt(one, paint)).collect()
            })?;
        }
    }
    Ok(Exit::Done)
}

/// The journal, with what Atom has done by itself since its last record.
pub(super) fn read() -> JournalDocument {
    let reports = Control::open().and_then(|control| control.reports()).unwrap_or_default();
    let found = Journal::standard().read().with_atoms_own(&reports);
    JournalDocument::new(&found, &journal::boot())
}

/// The attempt of this number. After a lost journal there may be several: the last one is meant.
pub(super) fn choose(attempts: &[AttemptEntry], number: u64) -> Result<AttemptEntry> {
    attempts.iter().rfind(|one| one.attempt == number).cloned().ok_or_else(|| {
        let known: Vec<u64> = attempts.iter().map(|one| one.attempt).collect();
        let range = match (known.iter().min(), known.iter().max()) {
            (Some(first), Some(last)) => format!("it has {first} to {last}"),
            _ => "it is empty".to_owned(),
        };
        Problem::refused(
            format!("There is no attempt {number}"),
            format!("the journal does not have it: {range}"),
            "atomctl history lists them",
        )
    })
}

fn keep_last(attempts: &mut Vec<AttemptEntry>, last: Option<usize>) {
    let surplus = attempts.len().saturating_sub(last.unwrap_or(usize::MAX));
    attempts.drain(..surplus);
}
