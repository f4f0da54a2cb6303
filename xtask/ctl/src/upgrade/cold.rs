// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The cold way: the old payload is gone before the new one is there. Atom holds I/O meanwhile.
//!
//! Any disk may be one of the held ones, also the one that this program was started from. Between
//! *abandon* and *adopt* only system calls on memory, on the control device and on the kernel's module
//! table are made; both files are in memory before it begins.

use std::time::Instant;

use atom_abi::control::{outcome, phase};

use super::attempt::attempt;
use super::{insert_payload, outcome_of_failed, remedy_of_failed, Plan};
use crate::drain::Drain;
use crate::kmod;
use crate::module_file::ModuleFile;
use crate::node::Node;
use crate::report::{failure_of, Outcome, UpgradeReport};

const RMMOD: &str = "rmmod";
const INSMOD: &str = "insmod";

/// What is left of the old payload.
enum Old {
    Registered(u32),
    Removed,
}

pub(super) fn run<N: Node>(
    node: &N,
    plan: &Plan,
    old: &ModuleFile,
    schema: u32,
    drain: &Drain,
    report: UpgradeReport,
) -> UpgradeReport {
    let critical = match node.enter_critical() {
        Ok(critical) => critical,
        Err(problem) => {
            return report.end(Outcome::Refused, Some(problem.in_one_line())).advise(problem.remedy)
        }
    };
    let mut report = hand_over(node, plan, old, schema, drain, report);
    drop(critical);
    if report.phases_us.get(phase::NAMES[phase::HELD]).is_some() {
        report.settle_held();
    }
    report
}

fn hand_over<N: Node>(
    node: &N,
    plan: &Plan,
    old: &ModuleFile,
    schema: u32,
    drain: &Drain,
    mut report: UpgradeReport,
) -> UpgradeReport {
    match attempt(node, |node| node.abandon(schema, *drain)) {
        Ok(handoff) => {
            report.absorb(&handoff);
            if handoff.outcome != outcome::DONE {
                return report
                    .end(outcome_of_failed(&handoff), failure_of(&handoff))
                    .advise(remedy_of_failed(&handoff));
            }
        }
        Err(problem) => {
            let still_live = node.status().is_ok_and(|status| status.live == plan.live.id);
            let outcome = if still_live { Outcome::Refused } else { Outcome::Held };
            return report.end(outcome, Some(problem.in_one_line())).advise(problem.remedy);
        }
    }
    // Its time is known at the end; the tool's own steps lie within it and are listed behind it.
    report.phases_us.set(phase::NAMES[phase::HELD], 0);
    if let Err(problem) = timed(&mut report, RMMOD, || node.remove(&old.name)) {
        // A payload that was given up may never let go of its module, and cannot adopt any more.
        let beside = kmod::normalised(&old.name) != kmod::normalised(&plan.target.name);
        if !(drain.forsake && beside) {
            let left = Old::Registered(plan.live.id);
            return go_back(node, old, left, problem.in_one_line(), report);
        }
        report.warnings.push(problem.in_one_line());
    }
    let candidate = match timed(&mut report, INSMOD, || insert_payload(node, &plan.target)) {
        Ok(id) => id,
        Err(problem) => return go_back(node, old, Old::Removed, problem.in_one_line(), report),
    };
    match adopt(node, candidate, &mut report) {
        Ok(()) => report.end(Outcome::Committed, None),
        Err(mut why) => {
            if let Err(problem) = timed(&mut report, RMMOD, || node.remove(&plan.target.name)) {
                why = format!("{why}; {}", problem.in_one_line());
            }
            go_back(node, old, Old::Removed, why, report)
        }
    }
}

/// The old payload takes over again.
fn go_back<N: Node>(
    node: &N,
    old: &ModuleFile,
    left: Old,
    why: String,
    mut report: UpgradeReport,
) -> UpgradeReport {
    let id = match left {
        Old::Registered(id) => Ok(id),
        Old::Removed => timed(&mut report, INSMOD, || insert_payload(node, old))
            .map_err(|problem| problem.in_one_line()),
    };
    let back = id.and_then(|id| adopt(node, id, &mut report));
    match back {
        Ok(()) => report
            .end(Outcome::RolledBack, Some(why))
            .advise("read the kernel log (dmesg), where the payload says more"),
        Err(also) => {
            if let Ok(status) = node.status() {
                report.pause_us = report.pause_us.max(status.held_ns / 1000);
            }
            report
                .end(
                    Outcome::Held,
                    Some(format!("{why}; going back failed as well: {also}")),
                )
                .advise(
                    "I/O is held until a payload takes over: insert one that reads this image with \
                     atomctl load FILE (or atomctl adopt VERSION if it is loaded), from a disk that \
                     Atom does not hold",
                )
        }
    }
}

fn adopt<N: Node>(node: &N, id: u32, report: &mut UpgradeReport) -> Result<(), String> {
    let handoff = node.adopt(id).map_err(|problem| problem.in_one_line())?;
    report.absorb(&handoff);
    if handoff.outcome == outcome::DONE {
        return Ok(());
    }
    Err(failure_of(&handoff).unwrap_or_else(|| "it did not take over".to_owned()))
}

fn timed<T>(report: &mut UpgradeReport, step: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = work();
    report.phases_us.add_duration(step, begun.elapsed());
    result
}
