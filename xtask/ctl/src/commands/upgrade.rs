// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl upgrade`

use std::path::PathBuf;
use std::time::Duration;

use super::output::Output;
use super::Drained;
use crate::journal::Origin;
use crate::node::kernel_release;
use crate::places::Places;
use crate::problem::{Exit, Problem, Result};
use crate::quantity::parse_duration;
use crate::report::Mode;
use crate::upgrade::{Recording, Soak, Target, Terms, DEFAULT_STALL};
use crate::{text, upgrade};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The payload to upgrade to: a file (its name has a / or ends in .ko), or a version that is installed.
    #[arg(value_name = "FILE|VERSION", value_parser = Target::parse)]
    what: Target,
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
    /// Watch the new payload for this time before the commit, and go back when something is wrong. 0s:
    /// commit at once, whatever the policy of Atom is. When requests have failed before, the devices are watched for
    /// the same time before the switch.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with_all = ["cold", "forsake"])]
    soak: Option<Duration>,
    /// During the soak, go back when a request is owed for longer than this; 5s if not given, 0s: no limit.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "soak")]
    stall: Option<Duration>,
    /// During the soak, go back when more requests of a device fail than this and those of an equal time
    /// before.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "soak")]
    max_errors: u64,
    /// During the soak, do not read the first and the last block of each device.
    #[arg(long, requires = "soak")]
    no_canary: bool,
    /// Look at the devices for half a second before, meanwhile and half a second after, for atomctl report.
    #[arg(long)]
    trace: bool,
    #[command(flatten)]
    drained: Drained,
}

impl Args {
    /// The terms that these options mean.
    pub(super) fn terms(&self) -> Result<Terms> {
        let soak = self.soak.map(|time| Soak {
            time,
            stall: self.stall.unwrap_or(DEFAULT_STALL),
            max_errors: self.max_errors,
            canary: !self.no_canary,
        });
        let terms = Terms { soak, ..self.drained.terms() };
        if self.cold && terms.forsake {
            return Err(Problem::usage(
                "--cold and --forsake exclude each other",
                "a payload that is not asked to abandon stays loaded, so there is no way back to its file",
                "leave out --cold",
            ));
        }
        Ok(terms)
    }

    /// What is named, and how.
    pub(super) fn options(self, folders: Vec<PathBuf>) -> Result<(Target, upgrade::Options)> {
        let options = upgrade::Options {
            mode: if self.cold { Mode::Cold } else { Mode::Warm },
            deadline: self.drained.deadline.get(),
            keep_parked: self.keep_parked,
            old: self.old,
            places: Places::chosen(folders, &kernel_release()?),
        };
        Ok((self.what, options))
    }
}

pub(super) fn run(
    output: &Output,
    args: Args,
    folders: Vec<PathBuf>,
    origin: Origin,
) -> Result<Exit> {
    let terms = args.terms()?;
    let recording = Recording { origin, trace: args.trace };
    let node = output.local()?;
    let (target, options) = args.options(folders)?;
    if let Some(soak) = terms.soak.filter(|soak| !soak.time.is_zero()) {
        output.note(&format!(
            "after the switch the payload is watched for {}; atomctl commit and atomctl rollback end it before",
            humantime::format_duration(soak.time)
        ));
    }
    let report = upgrade::run_recorded(&node, &target, &options, &terms, recording)?;
    output.show(&report, text::upgrade)?;
    Ok(report.exit())
}
