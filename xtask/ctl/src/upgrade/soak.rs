// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The time after a warm switch in which one switch goes back.
//!
//! What must work when this process has died is Atom's: it switches back when a request is owed for too long
//! and when no commit comes. This process watches the rest, and goes back itself when something is wrong.

use std::ops::ControlFlow;
use std::time::Duration;

use atom_abi::control::{outcome, setting, DeviceInfo, Settings};

use super::attempt::attempt;
use super::terms::{Settled, Soak};
use super::watch::{course, is_dead, why_back, Course, Errors};
use crate::drain::{AtDeadline, Drain};
use crate::node::Node;
use crate::problem::Result;
use crate::report::{failure_of, Handoff, Outcome, SoakReport, UpgradeReport};

/// How often the new payload is looked at. What Atom notices is looked at when it happens.
const PERIOD: Duration = Duration::from_secs(1);

/// The devices before the switch.
#[derive(Default)]
pub(super) struct Before {
    errors: Errors,
    /// All errors until then: what comes after counts, also what came while the switch was at its end.
    totals: Errors,
    /// Devices whose canary cannot be read anyway.
    unreadable: Vec<u32>,
}

impl Before {
    /// Looks at the devices for as long as the soak takes. When none of them has ever had an error, nothing
    /// can be learnt from waiting.
    pub(super) fn look<N: Node>(node: &N, soak: &Soak, report: &mut UpgradeReport) -> Result<Self> {
        let devices = node.devices()?;
        let mut unreadable = Vec::new();
        if soak.canary {
            for device in &devices {
                if let Err(why) = node.read_canary(device, soak.read_limit()) {
                    report.warnings.push(format!("it is not read during the soak: {why}"));
                    unreadable.push(device.id);
                }
            }
        }
        let first = Errors::of(&devices);
        if first.is_none() {
            return Ok(Self { errors: Errors::default(), totals: first, unreadable });
        }
        let end = node.now().saturating_add(soak.time);
        while node.now() < end {
            node.status()?;
            node.wait(end.saturating_sub(node.now()))?;
        }
        let totals = Errors::of(&node.devices()?);
        Ok(Self { errors: totals.since(&first), totals, unreadable })
    }
}

/// Gives Atom the terms of the soak, when it does not have them. Returns what brings its own back.
pub(super) fn set_terms<N: Node>(node: &N, settled: &Settled) -> Result<Option<Settings>> {
    let Some(wanted) = &settled.settings else {
        return Ok(None);
    };
    let own = node.settings(&Settings::DEFAULT)?;
    node.settings(wanted)?;
    Ok(Some(Settings { change: setting::SOAK, ..own }))
}

/// The two payloads of a soak.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    /// The one that is parked.
    pub(super) old: u32,
    /// The one that serves.
    pub(super) new: u32,
}

/// Watches the new payload. Continues when it stays; breaks when the upgrade has ended otherwise.
pub(super) fn run<N: Node>(
    node: &N,
    pair: Pair,
    drain: &Drain,
    soak: &Soak,
    before: &Before,
    mut report: UpgradeReport,
) -> ControlFlow<UpgradeReport, UpgradeReport> {
    // A disk that does not answer must not keep this process from going back.
    let memory = node.lock_memory();
    if let Err(problem) = &memory {
        report.warnings.push(problem.in_one_line());
    }
    let mut seen = SoakReport {
        asked_us: micros(soak.time),
        errors_before: before.errors.by_name(),
        ..SoakReport::default()
    };
    let begun = node.now();
    let end = watch(node, pair, soak, before, &mut seen);
    seen.watched_us = micros(node.now().saturating_sub(begun));
    match end {
        End::Kept => {
            report.soak = Some(seen);
            ControlFlow::Continue(report)
        }
        End::Back => ControlFlow::Break(was_back(node, seen, report)),
        End::Elsewhere => {
            report.soak = Some(seen);
            let held = !node.status().is_ok_and(|status| status.live != 0);
            let outcome = if held { Outcome::Held } else { Outcome::Switched };
            let why = "somebody made another handoff during the soak".to_owned();
            ControlFlow::Break(report.end(outcome, Some(why)).advise("look at atomctl history"))
        }
        End::Trouble(trouble) => {
            ControlFlow::Break(go_back(node, pair, drain, seen, trouble, report))
        }
    }
}

enum End {
    Kept,
    Back,
    Elsewhere,
    Trouble(String),
}

fn watch<N: Node>(
    node: &N,
    pair: Pair,
    soak: &Soak,
    before: &Before,
    seen: &mut SoakReport,
) -> End {
    let end = node.now().saturating_add(soak.time);
    loop {
        match look(node, pair, soak, before, seen) {
            Ok(Course::Soaking) => {}
            Ok(Course::Committed) => return End::Kept,
            Ok(Course::Back) => return End::Back,
            Ok(Course::Elsewhere) => return End::Elsewhere,
            Ok(Course::Dead) => return End::Trouble("the new payload died".to_owned()),
            Err(trouble) => return End::Trouble(trouble),
        }
        let left = end.saturating_sub(node.now());
        if left.is_zero() {
            return commit(node, pair);
        }
        if let Err(problem) = node.wait(left.min(PERIOD)) {
            return End::Trouble(problem.in_one_line());
        }
    }
}

/// Looks once. The error says what is wrong with the new payload.
fn look<N: Node>(
    node: &N,
    pair: Pair,
    soak: &Soak,
    before: &Before,
    seen: &mut SoakReport,
) -> std::result::Result<Course, String> {
    let course = course_of(node, pair)?;
    if course != Course::Soaking {
        return Ok(course);
    }
    let devices = node.devices().map_err(|problem| problem.in_one_line())?;
    let errors = Errors::of(&devices).since(&before.totals);
    seen.errors = errors.by_name();
    if let Some(trouble) = errors.beyond(&before.errors, soak.max_errors) {
        return Err(trouble);
    }
    let readable = devices.iter().filter(|device| !before.unreadable.contains(&device.id));
    for device in readable.filter(|_| soak.canary) {
        match node.read_canary(device, soak.read_limit()) {
            Ok(()) => seen.canary_reads = seen.canary_reads.saturating_add(1),
            Err(_) if is_gone(node, device) => {}
            // Atom may have noticed it as well, and be quicker.
            Err(trouble) => match course_of(node, pair)? {
                Course::Soaking => return Err(trouble),
                course => return Ok(course),
            },
        }
    }
    Ok(Course::Soaking)
}

fn course_of<N: Node>(node: &N, pair: Pair) -> std::result::Result<Course, String> {
    let status = node.status().map_err(|problem| problem.in_one_line())?;
    let payloads = node.payloads().map_err(|problem| problem.in_one_line())?;
    Ok(course(&status, &payloads, pair.old, pair.new))
}

fn is_gone<N: Node>(node: &N, device: &DeviceInfo) -> bool {
    node.devices().is_ok_and(|devices| devices.iter().all(|other| other.id != device.id))
}

fn commit<N: Node>(node: &N, pair: Pair) -> End {
    let Err(problem) = node.commit(pair.new) else {
        return End::Kept;
    };
    // Somebody, or Atom, was quicker.
    match course_of(node, pair) {
        Ok(Course::Committed) => End::Kept,
        Ok(Course::Back) => End::Back,
        Ok(Course::Elsewhere) => End::Elsewhere,
        _ => End::Trouble(problem.in_one_line()),
    }
}

/// Atom, or somebody, has gone back already.
fn was_back<N: Node>(node: &N, mut seen: SoakReport, mut report: UpgradeReport) -> UpgradeReport {
    let newest = node.reports().ok().and_then(|reports| reports.first().copied());
    let why = why_back(newest.as_ref());
    if let Some(back) = newest.as_ref().map(Handoff::of) {
        report.cause = Some(back.cause.clone());
        seen.back = Some(back);
    }
    seen.trouble = Some(why.clone());
    report.soak = Some(seen);
    report.end(Outcome::RolledBack, Some(why)).advise("atomctl history has the switch back")
}

/// One switch back to the old payload.
fn go_back<N: Node>(
    node: &N,
    pair: Pair,
    drain: &Drain,
    mut seen: SoakReport,
    trouble: String,
    mut report: UpgradeReport,
) -> UpgradeReport {
    let forsake = node.payloads().is_ok_and(|payloads| is_dead(&payloads, pair.new));
    let drain = Drain { at_deadline: AtDeadline::Reissue, forsake, ..*drain };
    seen.trouble = Some(trouble.clone());
    let switched = attempt(node, |node| node.switch(pair.old, drain));
    let why_not = match &switched {
        Ok(handoff) => {
            seen.back = Some(Handoff::of(handoff));
            report.requests_taken_back = report.requests_taken_back.saturating_add(handoff.revoked);
            (handoff.outcome != outcome::DONE)
                .then(|| failure_of(handoff).unwrap_or_else(|| "it was undone".to_owned()))
        }
        Err(problem) => Some(problem.in_one_line()),
    };
    let Some(why_not) = why_not else {
        report.soak = Some(seen);
        stay(node, pair.old, &mut report);
        return report
            .end(Outcome::RolledBack, Some(trouble))
            .advise("read the kernel log (dmesg), where the payload may say more");
    };
    if course_of(node, pair) == Ok(Course::Back) {
        return was_back(node, seen, report);
    }
    report.soak = Some(seen);
    let held = !node.status().is_ok_and(|status| status.live != 0);
    let outcome = if held { Outcome::Held } else { Outcome::Switched };
    report
        .end(outcome, Some(format!("{trouble}; going back failed: {why_not}")))
        .advise("go back with atomctl rollback, or commit it all the same with atomctl commit")
}

/// Nobody shall go forth again from the payload that serves now, whatever Atom's settings say.
pub(super) fn stay<N: Node>(node: &N, live: u32, report: &mut UpgradeReport) {
    if node.status().is_ok_and(|status| status.live == live && status.parked != 0) {
        if let Err(problem) = node.commit(live) {
            report.warnings.push(problem.in_one_line());
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
