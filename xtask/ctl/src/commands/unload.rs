// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl unload`

use atom_abi::control::{payload_state, PayloadInfo};

use super::output::Output;
use super::recorded::recorded;
use crate::control::Control;
use crate::journal::{Attempt, Kind, Origin};
use crate::kmod;
use crate::problem::{Exit, Problem, Result};
use crate::report::UnloadDocument;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The payload to remove; needed when several are not live.
    version: Option<String>,
}

pub(super) fn run(output: &Output, args: &Args, origin: Origin) -> Result<Exit> {
    let control = Control::open()?;
    let payloads = control.payloads()?;
    let live = control.status()?.live;
    let chosen = choose(&payloads, live, args.version.as_deref())?;
    let version = chosen.version;
    let attempt = Attempt::begin(Kind::Unload, origin, version.as_str(), "");
    let document = recorded(output, attempt, || {
        kmod::remove(chosen.module.as_str())?;
        Ok(UnloadDocument {
            schema: UnloadDocument::SCHEMA.to_owned(),
            module: chosen.module.as_str().to_owned(),
            version: version.as_str().to_owned(),
        })
    })?;
    output.show(&document, |document, _| {
        format!("payload {} is unloaded (module {})\n", document.version, document.module)
    })?;
    Ok(Exit::Done)
}

fn choose<'a>(
    payloads: &'a [PayloadInfo],
    live: u32,
    version: Option<&str>,
) -> Result<&'a PayloadInfo> {
    let is_live = |payload: &PayloadInfo| payload.id == live;
    let is_dead = |payload: &PayloadInfo| payload.state == payload_state::DEAD;
    if let Some(version) = version {
        let chosen = payloads
            .iter()
            .find(|payload| payload.version.as_str() == version)
            .ok_or_else(|| {
                Problem::refused(
                    format!("Payload {version} was not unloaded"),
                    "it is not loaded",
                    "atomctl list shows what is loaded",
                )
            })?;
        if is_live(chosen) {
            return Err(Problem::refused(
                format!("Payload {version} was not unloaded"),
                "it is live: Atom keeps a reference on it, and its disks are in use",
                "upgrade to another payload first; or let it go with atomctl abandon, after which I/O \
                 is held until another payload takes over",
            ));
        }
        if is_dead(chosen) {
            return Err(Problem::refused(
                format!("Payload {version} was not unloaded"),
                "it is dead: a task died in it, and its module cannot be removed any more",
                "restart the machine when that suits; nothing of the payload is called until then",
            ));
        }
        return Ok(chosen);
    }
    let idle: Vec<&PayloadInfo> =
        payloads.iter().filter(|payload| !is_live(payload) && !is_dead(payload)).collect();
    match idle.as_slice() {
        [only] => Ok(only),
        [] => Err(Problem::refused(
            "Nothing was unloaded",
            "no payload is loaded besides the live one",
            "atomctl list shows what is loaded",
        )),
        _ => Err(Problem::usage(
            "It is not clear which payload to unload",
            "several are loaded and not live",
            "name one: atomctl unload VERSION; atomctl list shows them",
        )),
    }
}

#[cfg(test)]
mod tests {
    use atom_abi::text::Text;

    use super::*;
    use crate::module_file::test_file::live;

    #[test]
    fn the_live_payload_is_never_chosen_and_says_what_to_do_instead() {
        let parked = PayloadInfo {
            id: 2,
            state: payload_state::PARKED,
            version: Text::new("0.9.0"),
            ..live()
        };
        let both = [live(), parked];
        assert_eq!(choose(&both, 1, None).unwrap().id, 2);
        assert_eq!(choose(&both, 1, Some("0.9.0")).unwrap().id, 2);
        assert!(choose(&both, 1, Some("1.0.0")).unwrap_err().remedy.contains("abandon"));
        assert_eq!(choose(&[live()], 1, None).unwrap_err().exit, Exit::Refused);
        assert_eq!(choose(&[parked, parked], 1, None).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_dead_payload_is_not_unloaded_whether_it_is_live_or_not() {
        let dead = PayloadInfo { state: payload_state::DEAD, ..live() };
        assert!(choose(&[dead], 1, Some("1.0.0")).unwrap_err().why.contains("live"));
        assert!(choose(&[dead], 0, Some("1.0.0")).unwrap_err().why.contains("dead"));
        assert_eq!(choose(&[dead], 0, None).unwrap_err().exit, Exit::Refused);
    }
}
