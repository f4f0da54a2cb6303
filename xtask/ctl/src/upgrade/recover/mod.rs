// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Finishes or undoes what a tool has left when it died.
//!
//! While I/O is held, a file is only read when no way leads back without it, and before anything else is
//! done: it may lie on a disk that is held. From then on nothing is read from a disk.

use std::time::Duration;

use atom_abi::control::{outcome, Report, Settings};
use atom_abi::lifecycle::Place;

use super::{insert_payload, soak};
use crate::drain::{AtDeadline, Drain};
use crate::kmod;
use crate::module_file::{check, ModuleFile, Refused};
use crate::node::Node;
use crate::problem::{Exit, Problem, Result};
use crate::report::{failure_of, Mode, Recovery, RecoveryOutcome, UpgradeReport};

#[cfg(test)]
mod died_tests;
mod held;
mod plan;
mod snapshot;
#[cfg(test)]
mod tests;

pub use snapshot::Wish;
use snapshot::{KnownFile, Plan, Snapshot, Step};

const ATOM: &str = "atom";

/// Where files come from.
pub struct Files<'a> {
    /// The one that was named. It is preferred to any other.
    pub named: Option<ModuleFile>,
    /// Finds the installed file of a version. Reads disks.
    pub find: &'a dyn Fn(&str) -> std::result::Result<ModuleFile, Refused>,
    /// The version that an attempt without an end was to make live. Reads the journal.
    pub wanted: &'a dyn Fn() -> Option<String>,
}

/// What can be chosen about a recovery.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// In which direction.
    pub wish: Wish,
    /// How long the drain of a switch may take.
    pub deadline: Duration,
    /// Only say what would be done.
    pub dry: bool,
    /// Also when another tool seems to be at work: one that was killed ends only when its last request does.
    pub force: bool,
}

/// Brings the machine to rest. An error means that nothing has changed.
pub fn recover<N: Node>(node: &N, choice: Choice, mut files: Files<'_>) -> Result<Recovery> {
    let Choice { wish, deadline, dry, force } = choice;
    let _claim = match node.claim() {
        Err(problem) if !force && !dry => return Err(problem),
        claim => claim,
    };
    let mut file = files.named.take();
    if let Some(file) = &file {
        check_file(node, &snapshot(node, KnownFile::NotLooked)?, file)?;
    }
    let mut planned = decide(node, wish, &mut file, &files)?;
    let mut done = Recovery {
        schema: Recovery::SCHEMA.to_owned(),
        outcome: RecoveryOutcome::Planned,
        found: planned.found.clone(),
        plan: Vec::new(),
        done: 0,
        left: Vec::new(),
        reason: None,
        remedy: None,
        live: String::new(),
    };
    tell(&mut done, &planned);
    if dry && planned.blocked.is_none() {
        return Ok(settle(node, done));
    }
    let mut failure = carry_out(node, &planned, file.as_ref(), deadline, &mut done)?;
    // A way back that fails must not keep a payload that is there from serving.
    if failure.is_some() && wish == Wish::Least && is_held(node) {
        let at = snapshot(node, KnownFile::Missing("going back has failed".to_owned()))?;
        let forth = plan::plan(&at, Wish::Finish);
        if forth.blocked.is_none() {
            tell(&mut done, &forth);
            let why = failure.map(|problem| problem.in_one_line()).unwrap_or_default();
            failure = carry_out(node, &forth, None, deadline, &mut done)?;
            done.left.push(format!("going back has failed: {why}"));
            planned = forth;
        }
    }
    let needs_somebody =
        matches!(&planned.blocked, Some(blocked) if blocked.exit == Exit::Attention);
    done.outcome = match &failure {
        _ if needs_somebody || is_held(node) => RecoveryOutcome::Held,
        Some(_) => RecoveryOutcome::Failed,
        None if planned.blocked.is_some() => RecoveryOutcome::Refused,
        None if done.done == 0 => RecoveryOutcome::Nothing,
        None => RecoveryOutcome::Recovered,
    };
    if let Some(failure) = failure {
        done.reason = Some(failure.in_one_line());
        done.remedy = Some(failure.remedy);
    }
    Ok(settle(node, done))
}

fn tell(done: &mut Recovery, plan: &Plan) {
    done.plan.extend(plan.steps.iter().map(Step::to_string));
    done.left.clone_from(&plan.left);
    if let Some(blocked) = &plan.blocked {
        done.reason = Some(blocked.why.clone());
        done.remedy = Some(blocked.remedy.clone());
    }
}

fn settle<N: Node>(node: &N, mut done: Recovery) -> Recovery {
    if let (Ok(status), Ok(payloads)) = (node.status(), node.payloads()) {
        let live = payloads.iter().find(|payload| status.live != 0 && payload.id == status.live);
        done.live = live.map(|live| live.version.as_str().to_owned()).unwrap_or_default();
    }
    done
}

fn is_held<N: Node>(node: &N) -> bool {
    match node.status() {
        Ok(status) => [Place::Held.code(), Place::Failing.code()].contains(&status.place),
        Err(_) => true,
    }
}

fn snapshot<N: Node>(node: &N, file: KnownFile) -> Result<Snapshot> {
    let users = node
        .modules()?
        .into_iter()
        .find(|module| module.name == ATOM)
        .map(|atom| atom.holders)
        .unwrap_or_default();
    let status = node.status()?;
    let soak_ns = match status.abi.minor_max {
        0 => 0,
        _ => node.settings(&Settings::DEFAULT)?.soak_ns,
    };
    Ok(Snapshot {
        status,
        soak_ns,
        payloads: node.payloads()?,
        reports: node.reports()?,
        users,
        file,
    })
}

/// Plans, and looks for a file only when the plan needs one.
fn decide<N: Node>(
    node: &N,
    wish: Wish,
    file: &mut Option<ModuleFile>,
    files: &Files<'_>,
) -> Result<Plan> {
    let is_named = file.is_some();
    let mut at = snapshot(node, file.as_ref().map_or(KnownFile::NotLooked, known))?;
    let mut planned = plan::plan(&at, wish);
    if planned.needs_file() && !is_named {
        let from = at.came_from().unwrap_or_default();
        let found = (files.find)(from).map_err(Problem::from).and_then(|found| {
            check_file(node, &at, &found)?;
            Ok(found)
        });
        at.file = match found {
            Ok(found) => known(file.insert(found)),
            Err(problem) => KnownFile::Missing(problem.why),
        };
        planned = plan::plan(&at, wish);
    }
    // The way back may be barred by a dead payload, whose module stays: then forth, to what the attempt was for.
    if planned.blocked.is_some() && at.nobody_serves() && !is_named && wish != Wish::Undo {
        let wanted = (files.wanted)().and_then(|version| (files.find)(&version).ok());
        if let Some(found) = wanted.filter(|found| check_file(node, &at, found).is_ok()) {
            at.file = known(&found);
            let forth = plan::plan(&at, wish);
            if forth.blocked.is_none() {
                *file = Some(found);
                planned = forth;
            }
        }
    }
    Ok(planned)
}

fn known(file: &ModuleFile) -> KnownFile {
    KnownFile::Found { version: file.version().to_owned(), module: file.name.clone() }
}

/// Whether the file could serve what Atom holds.
fn check_file<N: Node>(node: &N, at: &Snapshot, file: &ModuleFile) -> Result<()> {
    check(file, &node.release()?, &at.status, None)?;
    let reads =
        file.stamp.zip(at.schema()).map_or(Ok(()), |(stamp, schema)| stamp.schema.reads(schema));
    reads.map_err(|refusal| {
        Problem::refused(
            format!("{} cannot take over what Atom holds", file.path.display()),
            refusal.to_string(),
            "name the file of a payload that reads this schema",
        )
    })
}

/// Carries out the steps. Returns why one of them failed; an error means that none was begun.
fn carry_out<N: Node>(
    node: &N,
    plan: &Plan,
    file: Option<&ModuleFile>,
    deadline: Duration,
    done: &mut Recovery,
) -> Result<Option<Problem>> {
    if plan.steps.is_empty() {
        return Ok(None);
    }
    let critical = if is_held(node) { Some(node.enter_critical()?) } else { None };
    let mut inserted = None;
    let mut failure = None;
    for step in &plan.steps {
        match carry_out_step(node, step, file, deadline, &mut inserted) {
            Ok(()) => done.done += 1,
            Err(problem) => {
                failure = Some(problem);
                break;
            }
        }
    }
    drop(critical);
    Ok(failure)
}

fn carry_out_step<N: Node>(
    node: &N,
    step: &Step,
    file: Option<&ModuleFile>,
    deadline: Duration,
    inserted: &mut Option<u32>,
) -> Result<()> {
    match step {
        Step::Commit { id, .. } => node.commit(*id),
        Step::Unload { module, .. } => node.remove(&kmod::normalised(module)),
        Step::Adopt { id, .. } => handed_over(step, node.adopt(*id)?),
        Step::Switch { id, forsake, .. } => {
            let at_deadline = if *forsake { AtDeadline::Reissue } else { AtDeadline::Abort };
            let drain = Drain { deadline, at_deadline, forsake: *forsake };
            handed_over(step, node.switch(*id, drain)?)?;
            // It must not be taken back when Atom's settings make every switch soak.
            let mut report = UpgradeReport::begin("", "", "", Mode::Warm);
            soak::stay(node, *id, &mut report);
            Ok(())
        }
        Step::Insert { version } => {
            let missing = || {
                Problem::attention(
                    format!("Payload {version} was not inserted"),
                    "its file was not read",
                    "name it: atomctl recover --file FILE",
                )
            };
            *inserted = Some(insert_payload(node, file.ok_or_else(missing)?)?);
            Ok(())
        }
        Step::AdoptInserted { version } => {
            let missing = || {
                Problem::attention(
                    format!("Payload {version} did not adopt"),
                    "it was not inserted",
                    "read the kernel log (dmesg)",
                )
            };
            handed_over(step, node.adopt(inserted.ok_or_else(missing)?)?)
        }
    }
}

fn handed_over(step: &Step, report: Report) -> Result<()> {
    if report.outcome == outcome::DONE {
        return Ok(());
    }
    Err(Problem::undone(
        format!("This step failed: {step}"),
        failure_of(&report).unwrap_or_else(|| "it did not take over".to_owned()),
        "read the kernel log (dmesg), and try the other direction: --finish or --undo",
    ))
}
