// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl abandon`

use atom_abi::control::outcome;

use super::output::Output;
use super::Drained;
use crate::control::Control;
use crate::drain::Drain;
use crate::problem::{Exit, Result};
use crate::report::{Handoff, HandoffDocument};
use crate::text;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Schema of the image, which the next payload must read; the newest if not given.
    #[arg(long)]
    schema: Option<u32>,
    #[command(flatten)]
    drained: Drained,
}

pub(super) fn run(output: &Output, args: &Args) -> Result<Exit> {
    let Drained { deadline, at_deadline, forsake } = args.drained;
    let drain =
        Drain { at_deadline: at_deadline.unwrap_or_default(), forsake, ..deadline.get().into() };
    let report = Control::open()?.abandon(args.schema, drain)?;
    let document = HandoffDocument::new(Handoff::of(&report));
    output.show(&document, |document, paint| {
        let mut text = text::handoff(&document.handoff, paint);
        if document.handoff.is_done() {
            text.push_str(
                "  I/O is held until a payload takes over: atomctl adopt, or atomctl load FILE\n",
            );
        }
        text
    })?;
    Ok(match report.outcome {
        outcome::DONE => Exit::Done,
        outcome::REFUSED => Exit::Refused,
        _ => Exit::Undone,
    })
}
