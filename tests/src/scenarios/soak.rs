// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! After a switch the new payload soaks: Atom goes back by itself when nobody commits, when requests stall, or when the
//! payload dies, also when the tool is gone.

use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atom_abi::control::{cause, outcome, policy, setting, Report, Settings};
use atom_abi::request::op;
use atomctl::kmod;
use atomctl::node::Node;
use atomctl::volume;

use super::Context;
use crate::load::fio::{Fio, Shape};
use crate::site::{Site, Spec};
use crate::wait;

const DEADLINE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(600);

pub fn a_switch_that_nobody_commits_is_taken_back(context: &mut Context) -> Result<()> {
    let (site, load) = loaded("1.0.0")?;
    let old = site.node().status()?.live;
    terms(&site, Duration::from_millis(1500), Duration::ZERO)?;
    let new = site.insert(&site.file("1.1.0"))?;

    context.step("nobody commits");
    switch(&site, new)?;
    ensure!(kmod::remove("payload_1_0_0").is_err(), "the parked payload was unloaded");
    let status = site.node().status()?;
    ensure!(status.parked == old && status.soak_left_ns > 0, "{status:?}");
    let report = goes_back(&site, "1.0.0")?;
    ensure!(report.cause == cause::NO_COMMIT, "{report:?}");
    context.fact("pause_of_the_way_back_us", report.pause_ns / 1000);

    context.step("somebody commits");
    terms(&site, LONG, Duration::ZERO)?;
    switch(&site, new)?;
    ensure!(site.node().commit(old).is_err(), "another payload was committed");
    site.node().commit(new)?;
    ensure!(site.node().commit(new).is_err(), "it was committed twice");
    kmod::remove("payload_1_0_0")?;
    ensure!(site.live()? == "1.1.0", "{} is live", site.live()?);

    context.step("one switch goes back during the soak, and that is the end of it");
    let back = site.insert(&site.file("1.0.0"))?;
    switch(&site, back)?;
    terms(&site, Duration::ZERO, Duration::ZERO)?;
    switch(&site, new)?;
    let status = site.node().status()?;
    ensure!(status.parked == 0 && status.soak_left_ns == 0, "{status:?}");
    load.stop()?;
    site.leave()
}

pub fn a_payload_that_stalls_during_the_soak_is_left(context: &mut Context) -> Result<()> {
    let (site, load) = loaded("1.1.0")?;
    let new = site.insert(&site.file("stuck"))?;
    terms(&site, LONG, Duration::from_millis(500))?;
    for round in 0..3 {
        context.step(&format!("round {round}: two writes that do not end"));
        switch(&site, new)?;
        volume::hold(site.node().control(), op::WRITE, 2)?;
        let report = goes_back(&site, "1.1.0")?;
        ensure!(report.cause == cause::STALL && report.revoked == 2, "{report:?}");
        context.fact("pause_of_the_way_back_us", report.pause_ns / 1000);
    }
    load.stop()?;
    site.leave()
}

fn loaded(version: &str) -> Result<(Site, Fio)> {
    let site = Site::on_guest(version)?;
    let device = site.volume("data", Spec::ram(16))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    Ok((site, load))
}

/// Settings of the soak. The way back is given little time, so that it takes requests back soon.
fn terms(site: &Site, soak: Duration, stall: Duration) -> Result<()> {
    site.node().settings(&Settings {
        change: setting::SOAK,
        soak_ns: u64::try_from(soak.as_nanos())?,
        stall_ns: u64::try_from(stall.as_nanos())?,
        back_policy: policy::REISSUE,
        back_deadline_ns: 200_000_000,
        ..Settings::DEFAULT
    })?;
    Ok(())
}

fn switch(site: &Site, target: u32) -> Result<()> {
    let report = site.node().control().switch(target, DEADLINE)?;
    ensure!(report.outcome == outcome::DONE, "{}", report.refusal);
    Ok(())
}

/// Waits until Atom has gone back to a version by itself, and returns its report.
fn goes_back(site: &Site, version: &str) -> Result<Report> {
    wait::until("Atom goes back", PATIENCE, || Ok(site.live()? == version))?;
    // The report is there when the turn is free again.
    wait::until("it is done", PATIENCE, || {
        Ok(site.node().reports()?.first().is_some_and(|report| report.cause != cause::ASKED))
    })?;
    let reports = site.node().reports()?;
    let report = *reports.first().context("no report")?;
    ensure!(report.outcome == outcome::DONE, "{report:?}");
    let status = site.node().status()?;
    ensure!(status.parked == 0 && status.soak_left_ns == 0, "{status:?}");
    Ok(report)
}
