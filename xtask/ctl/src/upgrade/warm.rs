// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The warm way: the new payload is there before the old one lets go.

use std::ops::ControlFlow;

use atom_abi::control::outcome;
use atom_abi::lifecycle::Place;

use super::attempt::attempt;
use super::plan::Warm;
use super::soak::{self, Before, Pair};
use super::terms::Settled;
use super::watch::is_dead;
use super::{insert_payload, outcome_of_failed, remedy_of_failed, Plan};
use crate::drain::Drain;
use crate::node::Node;
use crate::report::{failure_of, Outcome, UpgradeReport};

pub(super) fn run<N: Node>(
    node: &N,
    plan: &Plan,
    way: &Warm,
    settled: &Settled,
    mut report: UpgradeReport,
) -> UpgradeReport {
    let before = match &settled.soak {
        Some(soak) => Before::look(node, soak, &mut report),
        None => Ok(Before::default()),
    };
    let candidate = before.and_then(|before| {
        let id = way.candidate.map_or_else(|| insert_payload(node, &plan.target), Ok)?;
        Ok((before, id))
    });
    let (before, candidate) = match candidate {
        Ok(both) => both,
        Err(problem) => {
            return report.end(Outcome::Refused, Some(problem.in_one_line())).advise(problem.remedy)
        }
    };
    let report = switch_on_terms(node, plan, candidate, settled, report);
    if report.outcome != Outcome::Switched {
        return without_candidate(node, plan, way, candidate, report);
    }
    let report = match &settled.soak {
        None => report,
        Some(soak) => {
            let pair = Pair { old: plan.live.id, new: candidate };
            match soak::run(node, pair, &settled.drain, soak, &before, report) {
                ControlFlow::Continue(report) => report,
                ControlFlow::Break(report) if report.outcome == Outcome::RolledBack => {
                    return without_candidate(node, plan, way, candidate, report)
                }
                ControlFlow::Break(report) => return report,
            }
        }
    };
    if node.payloads().is_ok_and(|payloads| is_dead(&payloads, plan.live.id)) {
        let why = stays_loaded(plan.live.version.as_str(), plan.live.module.as_str());
        return report.end(Outcome::Switched, Some(why));
    }
    if way.keep_parked {
        let version = plan.live.version;
        return report
            .end(Outcome::Switched, Some(format!("payload {version} stays parked, as asked for")))
            .advise(format!(
                "go back with atomctl rollback, or commit with atomctl unload {version}"
            ));
    }
    unload_old(node, plan, report)
}

/// Switches while Atom has the terms of the soak, and gives it its own back.
fn switch_on_terms<N: Node>(
    node: &N,
    plan: &Plan,
    candidate: u32,
    settled: &Settled,
    report: UpgradeReport,
) -> UpgradeReport {
    let own = match soak::set_terms(node, settled) {
        Ok(own) => own,
        Err(problem) => {
            return report.end(Outcome::Refused, Some(problem.in_one_line())).advise(problem.remedy)
        }
    };
    let mut report = switch(node, plan.live.id, candidate, &settled.drain, report);
    // A soak that is under way keeps the terms with which it began.
    if let Some(Err(problem)) = own.map(|own| node.settings(&own)) {
        report.warnings.push(problem.in_one_line());
    }
    report
}

/// Switches to `candidate`. The outcome is [`Outcome::Switched`] when it serves.
pub(super) fn switch<N: Node>(
    node: &N,
    live: u32,
    candidate: u32,
    drain: &Drain,
    mut report: UpgradeReport,
) -> UpgradeReport {
    match attempt(node, |node| node.switch(candidate, *drain)) {
        Ok(handoff) => {
            report.absorb(&handoff);
            if handoff.outcome == outcome::DONE {
                return report.end(Outcome::Switched, None);
            }
            report
                .end(outcome_of_failed(&handoff), failure_of(&handoff))
                .advise(remedy_of_failed(&handoff))
        }
        Err(problem) => {
            let outcome = match node.status() {
                Ok(status) if status.live == live => Outcome::Refused,
                Ok(status) if status.place == Place::Live.code() => Outcome::Switched,
                _ => Outcome::Held,
            };
            report.end(outcome, Some(problem.in_one_line())).advise(problem.remedy)
        }
    }
}

/// Removes the candidate of an upgrade that has ended without it, unless somebody else had loaded it.
fn without_candidate<N: Node>(
    node: &N,
    plan: &Plan,
    way: &Warm,
    candidate: u32,
    mut report: UpgradeReport,
) -> UpgradeReport {
    if way.candidate.is_some() {
        return report;
    }
    if node.payloads().is_ok_and(|payloads| is_dead(&payloads, candidate)) {
        report.warnings.push(stays_loaded(plan.target.version(), &plan.target.name));
    } else if let Err(problem) = node.remove(&plan.target.name) {
        report.warnings.push(problem.in_one_line());
    }
    report
}

fn unload_old<N: Node>(node: &N, plan: &Plan, mut report: UpgradeReport) -> UpgradeReport {
    let version = plan.live.version;
    match node.remove(plan.live.module.as_str()) {
        Ok(()) => report.end(Outcome::Committed, None),
        Err(problem) => {
            report.warnings.push(problem.in_one_line());
            report
                .end(
                    Outcome::Switched,
                    Some(format!("payload {version} stays parked: {}", problem.in_one_line())),
                )
                .advise(format!("try again to unload it: atomctl unload {version}"))
        }
    }
}

fn stays_loaded(version: &str, module: &str) -> String {
    format!(
        "payload {version} is dead: its module {module} stays loaded until the machine restarts"
    )
}
