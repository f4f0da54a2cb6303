// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Upgrades: everything is read and checked first, then one of two ways is taken.
//!
//! | way | steps | when something fails |
//! | --- | --- | --- |
//! | warm | insert the new module, switch, remove the old module | Atom undoes the switch, the new module is removed |
//! | cold | abandon, remove the old module, insert the new one, adopt | the old file is inserted again and adopts |
//! | recover | what is left to do where a tool has died on one of these ways | it can be tried again |
//!
//! The cold way holds I/O from the abandon to the adopt. Between them nothing is read from a disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use atom_abi::control::{outcome, phase, PayloadInfo, Report, Status};
use atom_abi::version::reason;

use crate::module_file::{check, ModuleFile, Refused};
use crate::node::Node;
use crate::places::Places;
use crate::problem::Result;
use crate::report::{Mode, Outcome, UpgradeReport};
use terms::Settled;

mod attempt;
mod back;
mod candidate;
mod cold;
#[cfg(test)]
mod fake_node;
mod foresee;
#[cfg(test)]
mod foresee_tests;
mod plan;
mod recorded;
mod recover;
mod soak;
#[cfg(test)]
mod soak_tests;
mod target;
mod terms;
#[cfg(test)]
mod tests;
mod warm;
mod watch;

pub use back::{choose_parked, switch_back, switch_back_on};
pub use candidate::{insert_payload, registered};
pub use foresee::foresee;
pub use plan::{Plan, Way};
pub use recorded::{record, run_recorded, Recording};
pub use recover::{recover, Choice, Files, Wish};
pub use target::Target;
pub use terms::{Soak, Terms, DEFAULT_STALL};

/// What can be chosen about an upgrade.
#[derive(Clone, Debug)]
pub struct Options {
    /// Warm or cold.
    pub mode: Mode,
    /// How long the drain may take.
    pub deadline: Duration,
    /// Warm: the old payload stays parked.
    pub keep_parked: bool,
    /// Cold: the file of the old module, if it is in no known place.
    pub old: Option<PathBuf>,
    /// Where the file of the old module is looked for.
    pub places: Places,
}

impl Options {
    /// The file of the live payload, for the way back of a cold upgrade.
    fn old_file(&self, site: &Site) -> Option<std::result::Result<ModuleFile, Refused>> {
        site.live().map(|live| match &self.old {
            Some(path) => ModuleFile::read(path),
            None => self.places.read(live.module.as_str()),
        })
    }
}

/// The machine before the upgrade.
#[derive(Clone, Debug)]
pub struct Site {
    /// Release of the running kernel.
    pub release: String,
    /// The state of Atom.
    pub status: Status,
    /// The registered payloads.
    pub payloads: Vec<PayloadInfo>,
}

impl Site {
    /// Looks at the machine.
    pub fn survey<N: Node>(node: &N) -> Result<Self> {
        Ok(Self { release: node.release()?, status: node.status()?, payloads: node.payloads()? })
    }

    /// The payload that serves.
    pub fn live(&self) -> Option<&PayloadInfo> {
        self.payloads.iter().find(|payload| self.status.live != 0 && payload.id == self.status.live)
    }
}

/// Upgrades to the payload in the file `target`. What became of it stands in the report; an error
/// means that Atom could not be asked at all, and that nothing has changed.
pub fn run<N: Node>(node: &N, target: &Path, options: &Options) -> Result<UpgradeReport> {
    run_on(node, target, options, &Terms::default())
}

/// The same on other terms than the usual ones.
pub fn run_on<N: Node>(
    node: &N,
    target: &Path,
    options: &Options,
    terms: &Terms,
) -> Result<UpgradeReport> {
    run_to(node, ModuleFile::read(target), options, terms)
}

/// The same to a file that was read before, or could not be.
pub fn run_to<N: Node>(
    node: &N,
    file: std::result::Result<ModuleFile, Refused>,
    options: &Options,
    terms: &Terms,
) -> Result<UpgradeReport> {
    let _claim = node.claim()?;
    let site = Site::survey(node)?;
    let from = site.live().map_or("", |live| live.version.as_str());
    let file = match file {
        Ok(file) => file,
        Err(why) => {
            let report = UpgradeReport::begin(&site.release, from, "", options.mode);
            return Ok(refused(report, &why));
        }
    };
    let report = UpgradeReport::begin(&site.release, from, file.version(), options.mode);
    // Read now: later the disk may be held.
    let old = match options.mode {
        Mode::Warm => None,
        Mode::Cold => options.old_file(&site),
    };
    let settled = match terms.settle(node, &site, options.deadline, options.mode)? {
        Ok(settled) => settled,
        Err(why) => return Ok(refused(report, &why)),
    };
    let plan = Plan::new(node, &site, file, old, options.keep_parked);
    Ok(match plan {
        Ok(plan) => carry_out(node, &plan, &settled, report),
        Err(why) => refused(report, &why),
    })
}

/// Carries out a plan on settled terms.
fn carry_out<N: Node>(
    node: &N,
    plan: &Plan,
    settled: &Settled,
    mut report: UpgradeReport,
) -> UpgradeReport {
    // One that is not asked for anything is not asked for its volumes.
    if !settled.drain.forsake {
        if let Err(why) = plan.check_volumes(node) {
            return refused(report, &why);
        }
    }
    report.warnings.extend(settled.notes.iter().cloned());
    match &plan.way {
        Way::Warm(way) => warm::run(node, plan, way, settled, report),
        Way::Cold { old, schema } => cold::run(node, plan, old, *schema, &settled.drain, report),
    }
}

fn refused(report: UpgradeReport, why: &Refused) -> UpgradeReport {
    report.end(Outcome::Refused, Some(why.to_string())).advise(why.remedy())
}

/// The outcome of a handoff from a live payload that was not carried out.
fn outcome_of_failed(report: &Report) -> Outcome {
    if report.outcome == outcome::REFUSED {
        return Outcome::Refused;
    }
    match report.phases_ns.get(phase::ADOPT) {
        Some(ns) if *ns > 0 => Outcome::RolledBack,
        _ => Outcome::Aborted,
    }
}

/// What to do about a handoff that was not carried out.
fn remedy_of_failed(report: &Report) -> &'static str {
    match report.refusal.code {
        reason::DEADLINE => {
            "find out why the requests named as blockers do not end, or give a longer --deadline"
        }
        reason::NO_PROMISE => {
            "its requests cannot be taken back: wait with a longer --deadline, or give it up with --forsake"
        }
        reason::NO_CHECKPOINT => "it has to be asked: leave out --forsake",
        reason::NO_MEMORY => "free memory and try again",
        reason::SCHEMA => "go through a version in between that knows both schemas",
        _ => "read the kernel log (dmesg), where the payload says more",
    }
}
