// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl recover`

use std::path::PathBuf;

use super::output::Output;
use super::recorded::recorded;
use super::Deadline;
use crate::journal::{self, Attempt, Kind, Origin};
use crate::module_file::ModuleFile;
use crate::node::kernel_release;
use crate::places::Places;
use crate::problem::{Exit, Result};
use crate::text;
use crate::upgrade::{self, Choice, Files, Site, Wish};

/// Without a direction it goes back where that is possible, and forth where it is not.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Finish what was begun.
    #[arg(long, conflicts_with = "undo")]
    finish: bool,
    /// Undo what was begun.
    #[arg(long)]
    undo: bool,
    /// Only say what would be done.
    #[arg(long)]
    plan: bool,
    /// The payload to insert when none is loaded; searched in the known folders if not given. It should lie
    /// on a disk that Atom does not hold.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Also when another atomctl seems to be at work. One that was killed may only seem so, as long as a
    /// request of its own does not end.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    deadline: Deadline,
}

pub(super) fn run(
    output: &Output,
    args: &Args,
    folders: Vec<PathBuf>,
    origin: Origin,
) -> Result<Exit> {
    let node = output.local()?;
    let places = Places::chosen(folders, &kernel_release()?);
    let files = Files {
        named: args.file.as_deref().map(ModuleFile::read).transpose()?,
        find: &|version| places.read_version(version),
        wanted: &journal::wanted,
    };
    let wish = match (args.finish, args.undo) {
        (true, _) => Wish::Finish,
        (_, true) => Wish::Undo,
        _ => Wish::Least,
    };
    let choice = Choice { wish, deadline: args.deadline.get(), dry: args.plan, force: args.force };
    let done = if args.plan {
        upgrade::recover(&node, choice, files)?
    } else {
        let site = Site::survey(&node)?;
        let from = site.live().map_or("", |live| live.version.as_str());
        let attempt = Attempt::begin(Kind::Recover, origin, from, "");
        let settling = attempt.settling();
        recorded(output, attempt, || {
            let done = upgrade::recover(&node, choice, files)?;
            if let Err(warning) = settling.settle_by(&done) {
                output.warn(&warning);
            }
            Ok(done)
        })?
    };
    output.show(&done, text::recovery)?;
    Ok(done.outcome.exit())
}
