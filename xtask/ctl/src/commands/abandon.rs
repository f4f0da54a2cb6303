// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl abandon`

use super::output::Output;
use super::recorded::recorded;
use super::Drained;
use crate::control::Control;
use crate::drain::{Drain, NOT_LEFT};
use crate::journal::{Attempt, Kind, Origin, Recorded};
use crate::problem::{Exit, Problem, Result};
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

pub(super) fn run(output: &Output, args: &Args, origin: Origin) -> Result<Exit> {
    let Drained { deadline, at_deadline, forsake } = args.drained;
    let drain =
        Drain { at_deadline: at_deadline.unwrap_or_default(), forsake, ..deadline.get().into() };
    if !drain.is_possible() {
        let (why, remedy) = NOT_LEFT;
        return Err(Problem::usage("The payload was not abandoned", why, remedy));
    }
    let control = Control::open()?;
    let (status, payloads) = (control.status()?, control.payloads()?);
    let live = payloads.iter().find(|payload| status.live != 0 && payload.id == status.live);
    let from = live.map_or("", |live| live.version.as_str());
    let attempt = Attempt::begin(Kind::Abandon, origin, from, "");
    let document = recorded(output, attempt, || {
        Ok(HandoffDocument::new(Handoff::of(&control.abandon(args.schema, drain)?)))
    })?;
    output.show(&document, |document, paint| {
        let mut text = text::handoff(&document.handoff, paint);
        if document.handoff.is_done() {
            text.push_str(
                "  I/O is held until a payload takes over: atomctl adopt, or atomctl load FILE\n",
            );
        }
        text
    })?;
    Ok(document.verdict().exit)
}
