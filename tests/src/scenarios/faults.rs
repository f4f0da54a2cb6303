// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A payload that fails in a step: the old one serves on, nobody notices, and a retry succeeds.

use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atom_abi::request::op;
use atomctl::kmod;
use atomctl::node::Node;
use atomctl::report::{Mode, Outcome};
use atomctl::volume;

use super::Context;
use crate::kept::keep;
use crate::load::fio::{Fio, Shape};
use crate::site::{Site, Spec};

const DEADLINE: Duration = Duration::from_secs(5);

pub fn a_candidate_that_fails_is_thrown_out(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let mut loads = Vec::new();
    for index in 0..4 {
        let device = site.volume(&format!("v{index}"), Spec::ram(16).depth(8))?;
        loads.push(Fio::start(&device, Shape { depth: 32, bytes: 4 << 20, verify: true })?);
    }
    for round in 0..5 {
        for (variant, wanted, word) in [
            ("prepare", Outcome::Refused, "12"),
            ("adopt", Outcome::RolledBack, "5"),
            ("bind", Outcome::RolledBack, "atom"),
        ] {
            context.step(&format!("round {round}: {variant}"));
            let report = site.try_upgrade(&site.file(variant), Mode::Warm, DEADLINE)?;
            ensure!(report.outcome == wanted, "{variant}: {report:?}");
            let why = report.reason.unwrap_or_default();
            ensure!(why.contains(word), "{variant}: {why}");
            serves(&site, "1.0.0")?;
        }
        context.step("a retry with a whole payload");
        site.upgrade("1.1.0", Mode::Warm)?;
        site.upgrade("1.0.0", Mode::Warm)?;
    }
    for load in loads {
        load.stop()?;
    }
    site.leave()
}

pub fn a_live_payload_that_cannot_freeze_serves_on(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("freeze")?;
    let device = site.volume("data", Spec::ram(16))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    for mode in [Mode::Warm, Mode::Cold] {
        context.step(&format!("{mode}"));
        let report = site.try_upgrade(&site.file("1.1.0"), mode, DEADLINE)?;
        ensure!(report.outcome == Outcome::Aborted, "{report:?}");
        serves(&site, "9.0.0-freeze")?;
    }
    load.stop()?;
    // It can never be replaced, and never abandoned: only the machine's end helps against it. The
    // module that says so is a test variant, and the guest is powered off after the scenario.
    Ok(())
}

pub fn a_cold_upgrade_that_fails_goes_back_to_the_old_file(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let device = site.volume("data", Spec::ram(16))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    for (variant, round) in [("adopt", 0), ("bind", 1), ("prepare", 2)] {
        context.step(&format!("{round}: {variant}"));
        let report = site.try_upgrade(&site.file(variant), Mode::Cold, DEADLINE)?;
        ensure!(report.outcome == Outcome::RolledBack, "{variant}: {report:?}");
        serves(&site, "1.0.0")?;
    }
    context.step("a retry with a whole payload");
    site.upgrade("1.1.0", Mode::Cold)?;
    load.stop()?;
    site.leave()
}

pub fn a_stuck_payload_runs_into_the_deadline_and_serves_on(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("stuck")?;
    let device = site.volume("data", Spec::ram(16))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    let stuck = 3;

    context.step("three writes that do not end");
    keep(site.node().control(), op::WRITE, stuck)?;

    for mode in [Mode::Warm, Mode::Cold] {
        context.step(&format!("the deadline of a {mode} upgrade"));
        let deadline = Duration::from_millis(300);
        let report = site.try_upgrade(&site.file("1.1.0"), mode, deadline)?;
        ensure!(report.outcome == Outcome::Aborted, "{report:?}");
        ensure!(report.owed == Some(stuck), "{:?} requests were owed", report.owed);
        let blocker = report.blockers.first().context("no blocker is named")?;
        ensure!(blocker.op == "write" && blocker.bytes == 4096, "{blocker:?}");
        // The deadline counts from the moment at which the gates begin to close. Each phase is told in whole microseconds.
        let phase = |name| report.phases_us.get(name).unwrap_or(0);
        let waited = phase("close") + phase("drain");
        ensure!((299_998..2_000_000).contains(&waited), "it was waited for {waited} us");
        serves(&site, "9.0.0-stuck")?;
        context.fact(&format!("{mode}_blocker"), blocker);
    }

    context.step("they end, and a retry succeeds");
    volume::release(site.node().control())?;
    site.upgrade("1.1.0", Mode::Warm)?;
    ensure!(site.node().status()?.stale_completions == 0, "a completion was refused");
    load.stop()?;
    site.leave()
}

fn serves(site: &Site, version: &str) -> Result<()> {
    let status = site.node().status()?;
    ensure!(
        site.live()? == version && status.payloads == 1 && status.held_ns == 0,
        "{version} does not serve alone: {status:?}"
    );
    let modules = kmod::loaded()?.iter().filter(|m| m.name.starts_with("payload_")).count();
    ensure!(modules == 1, "{modules} payload modules are loaded");
    Ok(())
}
