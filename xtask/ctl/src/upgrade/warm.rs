// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The warm way: the new payload is there before the old one lets go.

use std::time::Duration;

use atom_abi::control::outcome;
use atom_abi::lifecycle::Place;

use super::plan::Warm;
use super::{insert_payload, outcome_of_failed, remedy_of_failed, Plan};
use crate::node::Node;
use crate::report::{failure_of, Outcome, UpgradeReport};

pub(super) fn run<N: Node>(
    node: &N,
    plan: &Plan,
    way: &Warm,
    deadline: Duration,
    report: UpgradeReport,
) -> UpgradeReport {
    let candidate = match way.candidate {
        Some(id) => id,
        None => match insert_payload(node, &plan.target) {
            Ok(id) => id,
            Err(problem) => {
                return report
                    .end(Outcome::Refused, Some(problem.in_one_line()))
                    .advise(problem.remedy)
            }
        },
    };
    let mut report = switch(node, plan.live.id, candidate, deadline, report);
    if report.outcome != Outcome::Switched {
        if way.candidate.is_none() {
            if let Err(problem) = node.remove(&plan.target.name) {
                report.warnings.push(problem.in_one_line());
            }
        }
        return report;
    }
    if way.keep_parked {
        let version = plan.live.version;
        return report
            .end(Outcome::Switched, Some(format!("payload {version} stays parked, as asked for")))
            .advise(format!(
                "go back with atomctl rollback, or commit with atomctl unload {version}"
            ));
    }
    commit(node, plan, report)
}

/// Switches to `candidate`. The outcome is [`Outcome::Switched`] when it serves.
pub(super) fn switch<N: Node>(
    node: &N,
    live: u32,
    candidate: u32,
    deadline: Duration,
    mut report: UpgradeReport,
) -> UpgradeReport {
    match node.switch(candidate, deadline) {
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

fn commit<N: Node>(node: &N, plan: &Plan, mut report: UpgradeReport) -> UpgradeReport {
    match node.remove(plan.live.module.as_str()) {
        Ok(()) => report.end(Outcome::Committed, None),
        Err(problem) => {
            let version = plan.live.version;
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
