// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl rollback`

use super::output::Output;
use super::Drained;
use crate::journal::{Attempt, Kind, Origin};
use crate::problem::{Exit, Result};
use crate::report::Mode;
use crate::text;
use crate::upgrade::{choose_parked, record, switch_back_on, Site};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The parked payload to go back to; the one that was live last if not given.
    version: Option<String>,
    #[command(flatten)]
    drained: Drained,
}

pub(super) fn run(output: &Output, args: &Args, origin: Origin) -> Result<Exit> {
    let node = output.local()?;
    let site = Site::survey(&node)?;
    let history = node.control().reports()?;
    let parked = choose_parked(&site.payloads, &history, args.version.as_deref())?;
    let drained = args.drained;
    let from = site.live().map_or("", |live| live.version.as_str());
    let to = parked.version;
    let attempt = Attempt::begin_as(Kind::Rollback, Some(Mode::Warm), origin, from, to.as_str());
    let report = record(attempt, || {
        switch_back_on(&node, &site, parked, drained.deadline.get(), &drained.terms())
    })?;
    output.show(&report, text::upgrade)?;
    Ok(report.exit())
}
