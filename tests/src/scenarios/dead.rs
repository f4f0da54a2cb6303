// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A payload that oopses: the task that ran it is gone, the devices are not. Atom gets another payload, and the dead one
//! stays loaded, marked.
//!
//! The modules of dead payloads cannot be unloaded, so these scenarios end with the machine.

use std::fs::OpenOptions;
use std::process::Command;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atom_abi::control::{cause, outcome, payload_state, setting, Report, Settings};
use atom_abi::lifecycle::Place;
use atom_abi::version::reason;
use atom_payload::shown::TargetState;
use atom_payload::spec::Layout;
use atomctl::control::Control;
use atomctl::drain::{AtDeadline, Drain};
use atomctl::kmod;
use atomctl::node::Node;
use atomctl::volume;

use super::Context;
use crate::composed::{self, first_target, until_target_is, Target};
use crate::load::fio::{Fio, Shape};
use crate::queue;
use crate::server::{self, At, Server};
use crate::site::{Site, Spec};
use crate::wait;

const DEADLINE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(30);

const PREPARE: u32 = 1;
const FREEZE: u32 = 5;
const ADOPT: u32 = 7;
const COMMAND: u32 = 11;
const QUEUE_RQ: u32 = 12;

pub fn a_candidate_that_oopses_is_left_and_the_old_payload_serves(
    context: &mut Context,
) -> Result<()> {
    let (site, load) = loaded("1.1.0")?;
    for (variant, step) in [("fault", ADOPT), ("fault-too", PREPARE)] {
        context.step(&format!("{variant}: an oops in step {step}"));
        let id = site.insert_with(&site.file(variant), &faults(step, 1))?;
        dies(move |control| control.switch(id, DEADLINE).map(drop));
        let report = gone_back(&site, id)?;
        ensure!(report.refusal.code == reason::DIED, "{}", report.refusal);
        ensure!(site.live()? == "1.1.0", "{} serves", site.live()?);
        let pause = Duration::from_nanos(report.pause_ns);
        context.ensure_within("the pause", pause, Duration::from_secs(2))?;
        context.fact(variant, report.pause_ns / 1000);
        let again = site.node().control().switch(id, DEADLINE)?;
        ensure!(again.refusal.code == reason::DEAD, "{again:?}");
    }
    context.step("another payload takes over");
    let next = site.insert(&site.file("1.0.0"))?;
    let report = site.node().control().switch(next, DEADLINE)?;
    ensure!(report.outcome == outcome::DONE, "{}", report.refusal);
    load.stop().map(drop)
}

pub fn a_live_payload_that_oopses_is_replaced_by_its_checkpoint(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("1.1.0")?;
    let good = site.node().status()?.live;
    let device = site.volume("data", Spec::ram(16))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;

    context.step("an oops in freeze, with a lock of the payload held");
    let bad = site.insert_with(&site.file("fault"), &faults(FREEZE, 1))?;
    site.node().control().switch(bad, DEADLINE)?;
    // A volume that the image of its adopt does not have: only a checkpoint does.
    let late = site.volume("late", Spec::ram(8))?;
    queue::write_block(&late, 1, 0x77)?;
    dies(move |control| control.switch(good, DEADLINE).map(drop));
    gone_back(&site, bad)?;
    ensure!(site.node().status()?.live == bad, "it does not serve any more");
    ensure!(queue::read_block(&late, 1)?.iter().all(|byte| *byte == 0x77), "wrong data");
    let report = site.node().control().switch(good, DEADLINE)?;
    ensure!(report.outcome == outcome::DONE, "{}", report.refusal);
    ensure!(queue::read_block(&late, 1)?.iter().all(|byte| *byte == 0x77), "wrong data");
    site.destroy("late")?;

    context.step("an oops in a command");
    let bad = site.insert_with(&site.file("fault-too"), &faults(COMMAND, 1))?;
    site.node().control().switch(bad, DEADLINE)?;
    dies(|control| volume::list(control).map(drop));
    gone_back(&site, bad)?;
    let report = site.node().control().switch(good, DEADLINE)?;
    ensure!(report.outcome == outcome::DONE, "{}", report.refusal);
    ensure!(site.live()? == "1.1.0", "{} serves", site.live()?);
    ensure!(state_of(&site, bad)? == payload_state::DEAD, "it is not marked");
    let module = kmod::remove("payload_test_fault_too");
    ensure!(module.is_err(), "a dead module was unloaded");
    load.stop().map(drop)
}

pub fn a_payload_that_dies_leaves_its_servers_to_the_next_one(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let good = site.node().status()?.live;
    let file = server::file("server.disk", 64)?;
    let disk = file.display().to_string();
    let mut server = Server::nbdkit("server", At::free_port()?, &["file", &disk])?;
    let target = Target::nbd(server.at(), "").retries_each(Duration::from_millis(500));
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    let load = Fio::start(&volume.device, Shape { depth: 16, bytes: 8 << 20, verify: true })?;
    queue::write_words(&volume.device, 4000, &[40, 41])?;
    flush(&volume.device)?;

    context.step("an oops in a command, under load");
    let before = first_target(&site, "data")?.ports();
    let bad = site.insert_with(&site.file("fault-client"), &faults(COMMAND, 1))?;
    let report = site.node().control().switch(bad, DEADLINE)?;
    ensure!(report.outcome == outcome::DONE, "{}", report.refusal);
    dies(|control| volume::list(control).map(drop));
    gone_back(&site, bad)?;
    let report = site.node().control().switch(good, PATIENCE)?;
    ensure!(report.outcome == outcome::DONE, "{}", report.refusal);
    let view = until_target_is(&site, "data", TargetState::Ready, PATIENCE)?;
    ensure!(view.ports() != before, "it is the connection of the dead one: {view:?}");
    let begun = queue::stat(&volume.device)?.writes;
    wait::until("more writes", PATIENCE, || Ok(queue::stat(&volume.device)?.writes > begun + 200))?;
    context.fact("verified_ios", load.stop()?.ios);
    ensure!(queue::read_words(&volume.device, 4000, 2)? == [Some(40), Some(41)], "wrong data");
    wait::until("one connection is left", PATIENCE, || {
        let seen = server.seen()?;
        Ok(seen.connects >= 2 && seen.disconnects + 1 == seen.connects)
    })?;

    context.step("another is forsaken, and the export shrinks meanwhile");
    queue::write_words(&volume.device, 5000, &[50])?;
    flush(&volume.device)?;
    server.kill()?;
    until_target_is(&site, "data", TargetState::Retrying, PATIENCE)?;
    let next = site.insert(&site.file("2.1.0"))?;
    let drain = Drain { deadline: DEADLINE, at_deadline: AtDeadline::Abort, forsake: true };
    let report = site.node().control().switch(next, drain)?;
    ensure!(report.outcome == outcome::DONE, "{}", report.refusal);
    let small = server::file("small", 32)?.display().to_string();
    server.start_again_with(&disk, &small)?;
    wait::until("it is said that it is smaller", PATIENCE, || {
        let status = first_target(&site, "data")?.status;
        ensure!(status.state != TargetState::Ready, "a smaller export is used");
        Ok(status.last_error.as_str().contains("shrunk"))
    })?;
    let view = first_target(&site, "data")?;
    ensure!(view.status.state == TargetState::Failed, "{view:?}");

    context.step("it is back as it was");
    server.kill()?;
    server.start_again_with(&small, &disk)?;
    until_target_is(&site, "data", TargetState::Ready, PATIENCE)?;
    ensure!(queue::read_words(&volume.device, 4000, 2)? == [Some(40), Some(41)], "wrong data");
    ensure!(queue::read_words(&volume.device, 5000, 1)? == [Some(50)], "wrong data");
    queue::write_words(&volume.device, 6000, &[60])?;
    ensure!(queue::read_words(&volume.device, 6000, 1)? == [Some(60)], "wrong data");
    site.destroy("data")?;
    server.stop()
}

fn flush(device: &str) -> Result<()> {
    Ok(OpenOptions::new().write(true).open(device)?.sync_data()?)
}

pub fn an_oops_in_queue_rq_kills_who_asked_and_nothing_else(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.1.0")?;
    let good = site.node().status()?.live;
    let device = site.volume("data", Spec::ram(16))?;
    let load = Fio::start(&device, Shape { depth: 8, bytes: 4 << 20, verify: true })?;
    let victim = site.volume("victim", Spec::ram(8))?;
    queue::write_block(&victim, 0, 0x33)?;
    // The load is on another device, and stands still while the fault strikes.
    load.stop()?;

    context.step("a reader dies in the payload");
    let bad = site.insert_with(&site.file("fault"), &faults(QUEUE_RQ, 1))?;
    site.node().control().switch(bad, DEADLINE)?;
    let status = Command::new("dd")
        .args([&format!("if={victim}"), "of=/dev/null", "bs=4k", "count=1", "iflag=direct"])
        .status()?;
    ensure!(!status.success(), "the reader came back");
    ensure!(site.owed()? == 1, "{} requests are owed", site.owed()?);

    context.step("I/O goes on, with the payload and with the next one");
    queue::write_block(&device, 0, 0x44)?;
    // What the block layer would touch at the end of that request is memory of the task that is gone.
    let reissue = Drain { deadline: DEADLINE, at_deadline: AtDeadline::Reissue, forsake: true };
    let report = site.node().control().switch(good, reissue)?;
    ensure!(report.refusal.code == reason::TASK_DIED, "{report:?}");
    ensure!(site.live()? == "9.0.0-fault", "{} serves", site.live()?);
    let leave = Drain { at_deadline: AtDeadline::Leave, ..reissue };
    let report = site.node().control().switch(good, leave)?;
    ensure!(report.outcome == outcome::DONE && report.revoked == 1, "{report:?}");
    wait::until("nothing is owed", PATIENCE, || Ok(site.owed()? == 0))?;
    for (device, byte) in [(&device, 0x44), (&victim, 0x33)] {
        ensure!(queue::read_block(device, 0)?.iter().all(|found| *found == byte), "wrong data");
    }
    ensure!(state_of(&site, bad)? == payload_state::DEAD, "it is not marked");
    Ok(())
}

pub fn a_payload_that_dies_during_the_soak_is_left(context: &mut Context) -> Result<()> {
    let (site, load) = loaded("1.1.0")?;
    site.node().settings(&Settings {
        change: setting::SOAK,
        soak_ns: 600_000_000_000,
        ..Settings::DEFAULT
    })?;
    let bad = site.insert_with(&site.file("fault"), &faults(COMMAND, 1))?;
    site.node().control().switch(bad, DEADLINE)?;
    context.step("it dies in a command");
    dies(|control| volume::list(control).map(drop));
    wait::until("Atom goes back", PATIENCE, || Ok(site.live()? == "1.1.0"))?;
    wait::until("it has said why", PATIENCE, || {
        let reports = site.node().reports()?;
        Ok(reports
            .iter()
            .any(|report| report.cause == cause::DIED && report.outcome == outcome::DONE))
    })?;
    load.stop().map(drop)
}

fn loaded(version: &str) -> Result<(Site, Fio)> {
    let site = Site::on_guest(version)?;
    let device = site.volume("data", Spec::ram(16))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    Ok((site, load))
}

fn faults(step: u32, value: u32) -> String {
    format!("fault_step={step} fault_kind=3 fault_value={value} fault_times=1")
}

/// Does something in a thread that is not expected to come back: the kernel ends it in the middle.
fn dies(what: impl FnOnce(&Control) -> atomctl::problem::Result<()> + Send + 'static) {
    std::thread::spawn(move || Control::open().and_then(|control| what(&control)));
}

fn state_of(site: &Site, id: u32) -> Result<u32> {
    let payloads = site.node().payloads()?;
    let payload =
        payloads.iter().find(|payload| payload.id == id).context("it is not registered")?;
    Ok(payload.state)
}

/// Waits until Atom has gone back for the task that died, and returns the report of that.
fn gone_back(site: &Site, culprit: u32) -> Result<Report> {
    wait::until("the payload is marked", PATIENCE, || {
        Ok(state_of(site, culprit)? == payload_state::DEAD)
    })?;
    wait::until("Atom has gone back", PATIENCE, || {
        let reports = site.node().reports()?;
        Ok(reports.first().is_some_and(|report| report.cause == cause::DIED))
    })?;
    let status = site.node().status()?;
    ensure!(status.place == Place::Live.code(), "{}", Place::name_of(status.place));
    Ok(*site.node().reports()?.first().context("no report")?)
}
