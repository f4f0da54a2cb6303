// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl report`

use std::path::PathBuf;

use super::history::{choose, read};
use super::output::Output;
use super::whole_file::write_whole;
use crate::html;
use crate::journal::Kind;
use crate::problem::{Exit, Problem, Result};
use crate::report::{AttemptEntry, AttemptState};
use crate::trace;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The attempt that it is about; the last upgrade or rollback if not given.
    #[arg(long, value_name = "ID")]
    attempt: Option<u64>,
    /// Write it to this file instead of the standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(output: &Output, args: &Args) -> Result<Exit> {
    if output.is_json() {
        return Err(Problem::usage(
            "The report was not written",
            "it is a page in HTML, and not in JSON",
            "leave out --json; atomctl history --attempt ID --json has what is in it",
        ));
    }
    let attempts = read().attempts;
    let attempt = match args.attempt {
        Some(number) => choose(&attempts, number)?,
        None => last(&attempts)?,
    };
    let trace = trace::read(attempt.attempt, &attempt.boot);
    let page = html::page(&attempt, trace.as_ref());
    match &args.out {
        Some(path) => write_whole(path, page.as_bytes())?,
        None => output.text(&page),
    }
    Ok(Exit::Done)
}

fn last(attempts: &[AttemptEntry]) -> Result<AttemptEntry> {
    let handoff = |one: &&AttemptEntry| {
        matches!(one.kind, Kind::Upgrade | Kind::Rollback) && one.state != AttemptState::Running
    };
    attempts.iter().rev().find(handoff).cloned().ok_or_else(|| {
        Problem::refused(
            "There is nothing to report",
            "the journal has no upgrade and no rollback",
            "atomctl history lists what it has; atomctl report --attempt ID reports any of it",
        )
    })
}
