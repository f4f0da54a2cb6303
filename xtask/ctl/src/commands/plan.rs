// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl plan`

use std::path::PathBuf;

use super::output::Output;
use super::{history, upgrade};
use crate::problem::{Exit, Result};
use crate::report::ExpectedPause;
use crate::upgrade::foresee;
use crate::{text, volume};

pub(super) fn run(output: &Output, args: upgrade::Args, folders: Vec<PathBuf>) -> Result<Exit> {
    let terms = args.terms()?;
    let node = output.local()?;
    let (target, options) = args.options(folders)?;
    let mut plan = foresee(&node, &target, &options, &terms)?;
    // A payload may have no names for its volumes, or be dead.
    let volumes = volume::list(node.control()).unwrap_or_default();
    plan.volumes = volumes.into_iter().map(|volume| volume.name).collect();
    plan.expected_pause = ExpectedPause::of(&history::read().attempts, options.mode);
    output.show(&plan, text::upgrade_plan)?;
    Ok(plan.exit())
}
