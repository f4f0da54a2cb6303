// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl rollback`

use super::output::Output;
use super::Deadline;
use crate::node::Local;
use crate::problem::{Exit, Result};
use crate::text;
use crate::upgrade::{choose_parked, switch_back, Site};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The parked payload to go back to; the one that was live last if not given.
    version: Option<String>,
    #[command(flatten)]
    deadline: Deadline,
}

pub(super) fn run(output: &Output, args: &Args) -> Result<Exit> {
    let node = Local::open()?;
    let site = Site::survey(&node)?;
    let history = node.control().reports()?;
    let parked = choose_parked(&site.payloads, &history, args.version.as_deref())?;
    let report = switch_back(&node, &site, parked, args.deadline.get())?;
    output.show(&report, text::upgrade)?;
    Ok(report.outcome.exit())
}
