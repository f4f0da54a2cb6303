// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Carrying out a plan, step by step, up to the first that fails.

use std::time::Instant;

use atom_abi::text::Text;

use super::client::{self, Use};
use super::machine::Machine;
use super::plan::{Action, Growth, Planned};
use super::present::Present;
use super::wanted::{chunk_bytes, Wanted};
use super::{create, destroy, device, Commands};
use crate::problem::{Problem, Result};
use crate::quantity::show_bytes;
use crate::report::{ApplyEntry, ApplyResult};

/// A plan as a document, before anything of it was done.
pub fn entries(plan: &[Planned]) -> Vec<ApplyEntry> {
    plan.iter()
        .map(|planned| {
            let (action, detail) = described(&planned.action);
            let result = match planned.action {
                Action::Unchanged | Action::Unlisted => ApplyResult::Nothing,
                _ => ApplyResult::NotDone,
            };
            let name = planned.name.as_str().to_owned();
            ApplyEntry { name, action: action.to_owned(), detail, result, device: None }
        })
        .collect()
}

/// The volumes that are there, as [`client::present`] has them, once nobody has one of those that are to go open only
/// for a moment.
pub fn present_unused(
    commands: &impl Commands,
    machine: &impl Machine,
    wanted: &[Wanted],
) -> Result<Vec<Present>> {
    let begun = Instant::now();
    let stays = |name: &Text| wanted.iter().any(|volume| volume.name == *name);
    loop {
        let present = client::present(commands, machine)?;
        let held = present.iter().find(|volume| volume.opens != 0 && !stays(&volume.name));
        match held.map(|volume| machine.lets_go(Some(volume.device), begun.elapsed())) {
            Some(true) => {}
            Some(false) | None => return Ok(present),
        }
    }
}

/// Why a plan must not be begun: the first volume with which it cannot end well.
pub fn refused(plan: &[Planned]) -> Option<Problem> {
    plan.iter().find_map(|planned| match &planned.action {
        Action::Refused(why) => Some(Problem::refused(
            format!("Volume {} cannot become what is wanted", planned.name),
            why,
            "nothing was changed: change the file, or destroy the volume if its data is not needed",
        )),
        _ => None,
    })
}

/// Carries out a plan in which nothing is refused. `told` hears of each step that has ended.
pub fn run(
    commands: &impl Commands,
    machine: &impl Machine,
    plan: &[Planned],
    mut told: impl FnMut(&ApplyEntry),
) -> (Vec<ApplyEntry>, Option<Problem>) {
    let mut entries = entries(plan);
    for (planned, entry) in plan.iter().zip(&mut entries) {
        if entry.result == ApplyResult::Nothing {
            continue;
        }
        match step(commands, machine, planned) {
            Ok(device) => {
                entry.result = ApplyResult::Done;
                entry.device = device.map(device::path);
                told(entry);
            }
            Err(problem) => {
                entry.result = ApplyResult::Failed;
                told(entry);
                return (entries, Some(problem));
            }
        }
    }
    (entries, None)
}

/// Makes a volume with so many bytes of each target, and its device ready for use. Returns N of `/dev/atomN`.
pub fn make(
    commands: &impl Commands,
    machine: &impl Machine,
    volume: &Wanted,
    parts: &[Option<u64>],
) -> Result<u32> {
    let simple = match commands.live()?.has_client {
        true => None,
        false => volume.simple(),
    };
    let device = match simple {
        Some(simple) => create(commands, &simple)?,
        None => client::compose(commands, machine, volume, parts)?.device,
    };
    machine.settle(volume.name.as_str(), device);
    Ok(device)
}

fn step(
    commands: &impl Commands,
    machine: &impl Machine,
    planned: &Planned,
) -> Result<Option<u32>> {
    match &planned.action {
        Action::Create { volume, parts } => make(commands, machine, volume, parts).map(Some),
        Action::Grow(growth) => grow(commands, machine, planned, growth).map(Some),
        Action::Destroy => destroy(commands, machine, planned.name).map(|()| None),
        Action::Unchanged | Action::Unlisted => Ok(None),
        Action::Refused(_) => match refused(std::slice::from_ref(planned)) {
            Some(problem) => Err(problem),
            None => Ok(None),
        },
    }
}

fn grow(
    commands: &impl Commands,
    machine: &impl Machine,
    planned: &Planned,
    growth: &Growth,
) -> Result<u32> {
    let uses = |index| {
        let raise = growth.raised.iter().find(|raise| raise.index == index);
        raise.map_or(Use::AsBefore, |raise| Use::Bytes(raise.to))
    };
    client::resize(commands, machine, planned.name, uses, &growth.appended)
        .map(|composed| composed.device)
}

fn described(action: &Action) -> (&'static str, String) {
    match action {
        Action::Create { volume, parts } => ("create", creation(volume, parts)),
        Action::Grow(growth) => ("grow", growing(growth)),
        Action::Unchanged => ("unchanged", String::new()),
        Action::Unlisted => ("unlisted", "not in the file, left alone".to_owned()),
        Action::Destroy => ("destroy", "not in the file".to_owned()),
        Action::Refused(why) => ("refused", why.clone()),
    }
}

fn creation(volume: &Wanted, parts: &[Option<u64>]) -> String {
    let layout = match chunk_bytes(volume.layout) {
        Some(chunk) => format!("{} by {}", volume.layout.name(), show_bytes(chunk)),
        None => volume.layout.name().to_owned(),
    };
    let targets: Vec<String> = volume
        .targets
        .iter()
        .zip(parts)
        .map(|(target, part)| match part {
            Some(bytes) => format!("{} of {}", show_bytes(*bytes), target.at),
            None => format!("all of {}", target.at),
        })
        .collect();
    format!("{layout}: {}", targets.join(", "))
}

fn growing(growth: &Growth) -> String {
    let raised = growth.raised.iter().map(|raise| {
        let number = raise.index.saturating_add(1);
        format!("target {number} from {} to {}", show_bytes(raise.from), show_bytes(raise.to))
    });
    let appended = growth.appended.iter().map(|(target, part)| match part {
        Some(bytes) => format!("and {} of {}", show_bytes(*bytes), target.at),
        None => format!("and all of {}", target.at),
    });
    let parts: Vec<String> = raised.chain(appended).collect();
    let text = parts.join(", ");
    text.strip_prefix("and ").map_or_else(|| text.clone(), str::to_owned)
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
