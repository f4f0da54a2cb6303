// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl commit`

use atom_abi::control::PayloadInfo;

use super::output::Output;
use super::recorded::recorded;
use crate::control::Control;
use crate::journal::{Attempt, Kind, Origin};
use crate::kmod;
use crate::problem::{Exit, Problem, Result};
use crate::report::CommitDocument;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Unload the payload that was live before.
    #[arg(long)]
    unload: bool,
}

pub(super) fn run(output: &Output, args: &Args, origin: Origin) -> Result<Exit> {
    let control = Control::open()?;
    let status = control.status()?;
    let payloads = control.payloads()?;
    let (live, parked) = pair(status.live, status.parked, &payloads)?;
    let was = parked.map(|parked| parked.version.as_str().to_owned()).unwrap_or_default();
    let attempt = Attempt::begin(Kind::Commit, origin, &was, live.version.as_str());
    let document = recorded(output, attempt, || {
        control.commit(live.id)?;
        let mut document = CommitDocument {
            schema: CommitDocument::SCHEMA.to_owned(),
            version: live.version.as_str().to_owned(),
            parked: was.clone(),
            unloaded: false,
        };
        if let Some(parked) = parked.filter(|_| args.unload) {
            kmod::remove(parked.module.as_str())?;
            document.unloaded = true;
        }
        Ok(document)
    })?;
    output.show(&document, |document, _| {
        let CommitDocument { version, parked, unloaded, .. } = document;
        match (unloaded, parked.is_empty()) {
            (true, _) => format!("payload {version} is committed, {parked} is unloaded\n"),
            (false, true) => format!("payload {version} is committed\n"),
            (false, false) => format!(
                "payload {version} is committed; {parked} stays parked: atomctl unload {parked}\n"
            ),
        }
    })?;
    Ok(Exit::Done)
}

/// The payload that soaks, and the one to which a switch would go back.
fn pair(
    live: u32,
    parked: u32,
    payloads: &[PayloadInfo],
) -> Result<(&PayloadInfo, Option<&PayloadInfo>)> {
    let find = |id: u32| payloads.iter().find(|payload| id != 0 && payload.id == id);
    match find(live) {
        Some(live) if parked != 0 => Ok((live, find(parked))),
        _ => Err(Problem::refused(
            "Nothing was committed",
            "nothing soaks: the last switch is committed, or Atom has switched back",
            "atomctl status shows what serves, atomctl history why",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module_file::test_file::live;

    #[test]
    fn only_a_soak_can_be_committed() {
        let both = [live(), PayloadInfo { id: 2, ..live() }];
        let (new, old) = pair(2, 1, &both).unwrap();
        assert_eq!((new.id, old.map(|old| old.id)), (2, Some(1)));
        for (live, parked) in [(2, 0), (0, 0), (0, 1), (9, 1)] {
            assert_eq!(pair(live, parked, &both).unwrap_err().exit, Exit::Refused);
        }
    }
}
