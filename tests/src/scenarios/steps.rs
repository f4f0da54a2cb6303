// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Every step of a handoff fails once, and once runs into its deadline: applications see nothing of it, the old payload
//! serves, and a retry succeeds.

use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atom_abi::control::{outcome, payload_state, Report};
use atomctl::kmod;
use atomctl::node::Node;

use super::Context;
use crate::load::fio::{Fio, Shape};
use crate::site::{Site, Spec};
use crate::wait;

const DEADLINE: Duration = Duration::from_millis(300);
/// Beyond the deadline, and beyond what the way back is given.
const TOO_LONG_MS: u32 = 2500;
/// What the pause may take on top of the deadline: a look of Atom's watch, and a machine that is busy.
const SLACK: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_secs(20);

const ERRNO: u32 = 1;
const SLEEP: u32 = 2;
const LEFT: u32 = 4;

/// A fault of the variant `fault`, see `payload/src/inject.rs`, and what must become of the handoff.
struct Case {
    what: &'static str,
    step: u32,
    kind: u32,
    value: u32,
    outcome: u32,
}

const fn case(what: &'static str, step: u32, kind: u32, value: u32, outcome: u32) -> Case {
    Case { what, step, kind, value, outcome }
}

/// What the payload that is to take over does.
const CANDIDATE: &[Case] = &[
    case("prepare fails", 1, ERRNO, 12, outcome::REFUSED),
    case("prepare is slow: I/O is served meanwhile", 1, SLEEP, 600, outcome::DONE),
    case("adopt fails", 7, ERRNO, 5, outcome::UNDONE),
    case("adopt ends after the deadline", 7, SLEEP, 400, outcome::UNDONE),
    case("adopt does not end", 7, SLEEP, TOO_LONG_MS, outcome::UNDONE),
    case("resume fails", 9, ERRNO, 5, outcome::DONE),
];

/// What the payload that serves does.
const LIVE: &[Case] = &[
    case("suspend fails", 4, ERRNO, 5, outcome::UNDONE),
    case("background work does not end", 4, LEFT, 3, outcome::UNDONE),
    case("freeze fails", 5, ERRNO, 5, outcome::UNDONE),
    case("freeze ends after the deadline", 5, SLEEP, 400, outcome::UNDONE),
    case("freeze does not end", 5, SLEEP, TOO_LONG_MS, outcome::UNDONE),
    case("abandon fails", 8, ERRNO, 5, outcome::DONE),
];

pub fn a_candidate_may_fail_in_every_step(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.1.0")?;
    let load = loaded(&site)?;
    let serving = site.node().status()?.live;
    for case in CANDIDATE {
        context.step(case.what);
        let id = insert(&site, case, 1)?;
        let report = tried(context, &site, id, case, "1.1.0")?;
        note(context, case, &report);
        if case.outcome != outcome::DONE {
            context.step(&format!("{}: again", case.what));
            alive(&site, id)?;
            ensure!(switch(&site, id)?.outcome == outcome::DONE, "{}: the retry failed", case.what);
        }
        ensure!(site.live()? == "9.0.0-fault", "{} is live", site.live()?);
        ensure!(switch(&site, serving)?.outcome == outcome::DONE, "no way back");
        kmod::remove("payload_test_fault")?;
    }
    unload(load)?;
    site.leave()
}

pub fn a_live_payload_may_fail_in_every_step(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.1.0")?;
    let load = loaded(&site)?;
    let next = site.node().status()?.live;
    for case in LIVE {
        context.step(case.what);
        // Background work that is left for ever is left a hundred times: then it ends.
        let id = insert(&site, case, if case.kind == LEFT { 100 } else { 1 })?;
        ensure!(switch(&site, id)?.outcome == outcome::DONE, "it did not become live");
        let report = tried(context, &site, next, case, "9.0.0-fault")?;
        note(context, case, &report);
        if case.outcome != outcome::DONE {
            context.step(&format!("{}: again", case.what));
            alive(&site, id)?;
            wait::until("a retry succeeds", PATIENCE, || {
                Ok(switch(&site, next)?.outcome == outcome::DONE)
            })?;
        }
        ensure!(site.live()? == "1.1.0", "{} is live", site.live()?);
        kmod::remove("payload_test_fault")?;
    }
    unload(load)?;
    site.leave()
}

fn loaded(site: &Site) -> Result<Vec<Fio>> {
    (0..2)
        .map(|index| {
            let device = site.volume(&format!("v{index}"), Spec::ram(16).depth(8))?;
            Fio::start(&device, Shape { depth: 32, bytes: 4 << 20, verify: true })
        })
        .collect()
}

fn unload(load: Vec<Fio>) -> Result<()> {
    load.into_iter().try_for_each(|fio| fio.stop().map(drop))
}

fn insert(site: &Site, case: &Case, times: u32) -> Result<u32> {
    let Case { step, kind, value, .. } = case;
    let faults =
        format!("fault_step={step} fault_kind={kind} fault_value={value} fault_times={times}");
    site.insert_with(&site.file("fault"), &faults)
}

fn switch(site: &Site, target: u32) -> Result<Report> {
    Ok(site.node().control().switch(target, DEADLINE)?)
}

/// A handoff with a fault in it, and what must hold after it.
fn tried(
    context: &mut Context,
    site: &Site,
    target: u32,
    case: &Case,
    before: &str,
) -> Result<Report> {
    let sequence = newest(site)?;
    let report = match switch(site, target) {
        Ok(report) => report,
        // The task lost its turn; whoever went back has written the report.
        Err(_) => {
            let reports = site.node().control().reports()?;
            *reports.first().filter(|report| report.sequence > sequence).context("no report")?
        }
    };
    ensure!(report.outcome == case.outcome, "{}: {report:?}", case.what);
    let status = site.node().status()?;
    ensure!(status.place == 1 && status.held_ns == 0, "{}: {status:?}", case.what);
    if case.outcome == outcome::DONE {
        return Ok(report);
    }
    ensure!(site.live()? == before, "{}: {} serves", case.what, site.live()?);
    let pause = Duration::from_nanos(report.pause_ns);
    context.ensure_within(&format!("{}: the pause", case.what), pause, DEADLINE + SLACK)?;
    Ok(report)
}

fn newest(site: &Site) -> Result<u64> {
    let reports = site.node().control().reports()?;
    Ok(reports.first().map_or(0, |report| report.sequence))
}

/// Waits until nothing hangs in an operation of the payload any more.
fn alive(site: &Site, id: u32) -> Result<()> {
    wait::until("the payload comes back", PATIENCE, || {
        let payloads = site.node().payloads()?;
        Ok(payloads.iter().any(|entry| entry.id == id && entry.state != payload_state::DEAD))
    })
}

fn note(context: &mut Context, case: &Case, report: &Report) {
    context.fact(case.what, format!("{} in {} us", report.refusal, report.pause_ns / 1000));
}
