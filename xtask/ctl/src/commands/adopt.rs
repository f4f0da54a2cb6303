// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl adopt`

use atom_abi::control::{outcome, PayloadInfo, Report, Status};
use atom_abi::lifecycle::Place;

use super::output::Output;
use super::recorded::recorded_as;
use crate::control::Control;
use crate::critical::Critical;
use crate::journal::{Attempt, Kind, Origin};
use crate::problem::{Exit, Problem, Result};
use crate::report::{Handoff, HandoffDocument};
use crate::text;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The payload that takes over; needed when several are loaded.
    version: Option<String>,
}

pub(super) fn run(output: &Output, args: &Args, origin: Origin) -> Result<Exit> {
    let control = Control::open()?;
    let status = control.status()?;
    let payloads = control.payloads()?;
    let chosen = choose(&status, &payloads, args.version.as_deref())?;
    let version = chosen.version;
    let attempt = Attempt::begin(Kind::Adopt, origin, "", version.as_str());
    let (document, exit) = recorded_as(output, attempt, || {
        // I/O may be held, that of the disk which this program lies on included.
        let _critical = Critical::enter()?;
        let report = control.adopt(chosen.id)?;
        Ok((HandoffDocument::new(Handoff::of(&report)), exit(&control, &report)))
    })?;
    output.show(&document, |document, paint| text::handoff(&document.handoff, paint))?;
    Ok(exit)
}

/// How an adopt ends: if it did not succeed, I/O may still be held.
pub(super) fn exit(control: &Control, report: &Report) -> Exit {
    if report.outcome == outcome::DONE {
        return Exit::Done;
    }
    match control.status() {
        Ok(status) if [Place::Held.code(), Place::Failing.code()].contains(&status.place) => {
            Exit::Attention
        }
        Ok(_) if report.outcome == outcome::REFUSED => Exit::Refused,
        Ok(_) => Exit::Undone,
        Err(_) => Exit::Attention,
    }
}

fn choose<'a>(
    status: &Status,
    payloads: &'a [PayloadInfo],
    version: Option<&str>,
) -> Result<&'a PayloadInfo> {
    if status.live != 0 {
        return Err(Problem::refused(
            "No payload can adopt now",
            "another one is live",
            "replace it with atomctl upgrade FILE, or atomctl rollback",
        ));
    }
    let what = "It is not clear who is to adopt";
    match (version, payloads) {
        (Some(version), _) => {
            payloads.iter().find(|payload| payload.version.as_str() == version).ok_or_else(|| {
                Problem::refused(
                    format!("Payload {version} cannot adopt"),
                    "it is not loaded",
                    "load it: atomctl load FILE",
                )
            })
        }
        (None, [only]) => Ok(only),
        (None, []) => {
            Err(Problem::refused(what, "no payload is loaded", "load one: atomctl load FILE"))
        }
        (None, _) => Err(Problem::usage(
            what,
            "several payloads are loaded",
            "name one: atomctl adopt VERSION; atomctl list shows them",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module_file::test_file::{live, status};

    #[test]
    fn the_only_payload_adopts_and_several_must_be_told_apart() {
        let held = Status { live: 0, ..status() };
        let one = [live()];
        let two = [live(), live()];
        assert_eq!(choose(&held, &one, None).unwrap().id, 1);
        assert_eq!(choose(&held, &two, None).unwrap_err().exit, Exit::Usage);
        assert_eq!(choose(&held, &two, Some("1.0.0")).unwrap().id, 1);
        assert_eq!(choose(&held, &two, Some("2")).unwrap_err().exit, Exit::Refused);
        assert_eq!(choose(&held, &[], None).unwrap_err().exit, Exit::Refused);
        assert_eq!(choose(&status(), &one, None).unwrap_err().exit, Exit::Refused);
    }
}
