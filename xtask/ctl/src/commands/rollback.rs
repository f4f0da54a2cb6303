// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl rollback`

use super::output::Output;
use super::Drained;
use crate::problem::{Exit, Result};
use crate::text;
use crate::upgrade::{choose_parked, switch_back_on, Site};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The parked payload to go back to; the one that was live last if not given.
    version: Option<String>,
    #[command(flatten)]
    drained: Drained,
}

pub(super) fn run(output: &Output, args: &Args) -> Result<Exit> {
    let node = output.local()?;
    let site = Site::survey(&node)?;
    let history = node.control().reports()?;
    let parked = choose_parked(&site.payloads, &history, args.version.as_deref())?;
    let drained = args.drained;
    let report = switch_back_on(&node, &site, parked, drained.deadline.get(), &drained.terms())?;
    output.show(&report, text::upgrade)?;
    Ok(report.exit())
}
