// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl upgrade`

use std::path::PathBuf;

use super::output::Output;
use super::Deadline;
use crate::node::{kernel_release, Local};
use crate::places::Places;
use crate::problem::{Exit, Result};
use crate::report::Mode;
use crate::{text, upgrade};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The payload to upgrade to.
    file: PathBuf,
    /// Remove the old module before the new one is inserted; Atom holds I/O meanwhile.
    #[arg(long)]
    cold: bool,
    /// The file of the old module, for the way back of --cold. Searched in the known folders if not
    /// given.
    #[arg(long, value_name = "FILE", requires = "cold")]
    old: Option<PathBuf>,
    /// Keep the old payload parked, for `atomctl rollback`.
    #[arg(long, conflicts_with = "cold")]
    keep_parked: bool,
    #[command(flatten)]
    deadline: Deadline,
}

pub(super) fn run(output: &Output, args: Args, folders: Vec<PathBuf>) -> Result<Exit> {
    let node = Local::open()?;
    let options = upgrade::Options {
        mode: if args.cold { Mode::Cold } else { Mode::Warm },
        deadline: args.deadline.get(),
        keep_parked: args.keep_parked,
        old: args.old,
        places: Places::chosen(folders, &kernel_release()?),
    };
    let report = upgrade::run(&node, &args.file, &options)?;
    output.show(&report, text::upgrade)?;
    Ok(report.outcome.exit())
}
