// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a payload has queued and not started waits at the gate, and no drain waits for it.

use std::time::Duration;

use anyhow::{ensure, Result};
use atom_abi::control::outcome;
use atom_abi::version::reason;
use atom_payload::shown::TargetState;
use atom_payload::spec::Layout;
use atomctl::drain::Drain;
use atomctl::report::Mode;

use super::Context;
use crate::composed::{self, first_target, stripe, until_target_is, Target};
use crate::load::crowd::Crowd;
use crate::load::fio::{Fio, Shape};
use crate::server::{self, At, Server};
use crate::site::Site;
use crate::{queue, wait};

const PATIENCE: Duration = Duration::from_secs(60);
/// Writes of 1 MiB in flight. The server takes 4 MiB in a second, so that they would take longer than the deadline.
const QUEUED: Shape = Shape { depth: 64, bytes: 80 << 20, verify: true };
/// What is on its way to the server, and so is waited for, are at most the sixteen of a batch and what the sockets hold.
const HANDED_BACK: u32 = 24;

/// A server for 96 MiB behind a slow network.
fn narrow(name: &str) -> Result<Server> {
    let args = ["-t", "1", "--filter=rate", "memory", "96M", "rate=32M"];
    Server::nbdkit(name, At::free_port()?, &args)
}

pub fn what_is_queued_for_a_slow_network_waits_at_the_gate(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let server = narrow("narrow")?;
    let target = Target::nbd(server.at(), "");
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    let load = Fio::start_in_blocks(&volume.device, QUEUED, "1m")?;
    let is_full = || wait::until("the queue is full", PATIENCE, || Ok(site.owed()? >= 60));
    let mut pauses = Vec::new();
    for (version, mode) in [("2.1.0", Mode::Warm), ("2.0.0", Mode::Cold), ("2.1.0", Mode::Warm)] {
        is_full()?;
        context.step(&format!("{version}, {mode}"));
        let report = site.upgrade(version, mode)?;
        ensure!(report.requests_handed_back >= HANDED_BACK, "{report:?}");
        pauses.push(report.pause_us / 1000);
    }
    context.fact("pauses_ms", &pauses);

    is_full()?;
    context.step("a switch that is undone: the same payload gets them again");
    let other = site.insert(&site.file("2.0.0"))?;
    let drain = Drain::from(Duration::from_millis(1));
    let report = site.node().control().switch(other, drain)?;
    ensure!(report.outcome == outcome::UNDONE, "{report:?}");
    ensure!(report.refusal.code == reason::DEADLINE, "{}: {report:?}", report.refusal);
    ensure!(report.handed_back >= HANDED_BACK, "{report:?}");
    ensure!(site.live()? == "2.1.0", "{} serves", site.live()?);
    let before = queue::stat(&volume.device)?.writes;
    wait::until("as many are written", PATIENCE, || {
        Ok(queue::stat(&volume.device)?.writes >= before + u64::from(QUEUED.depth))
    })?;
    let done = load.stop()?;
    context.fact("requests", done.ios);
    let view = first_target(&site, "data")?;
    ensure!(view.status.reconnects == 0 && view.status.resent == 0, "{view:?}");
    site.destroy("data")?;
    server.stop()?;
    site.leave()
}

pub fn what_is_queued_for_a_target_that_is_away_waits_at_the_gate(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let file = server::file("away.disk", 64)?.display().to_string();
    let mut server = Server::nbdkit("away", At::free_port()?, &["file", &file])?;
    let away = Target::nbd(server.at(), "").retries_each(Duration::from_millis(200));
    // Half of the writers go on in memory meanwhile.
    let volume = composed::create(&site, "data", stripe(64), &[away, Target::ram(64)])?;
    let mut crowd = Crowd::start(&volume.device, 16)?;
    for (version, mode) in [("2.1.0", Mode::Warm), ("2.0.0", Mode::Cold)] {
        context.step(&format!("the server is away: {version}, {mode}"));
        server.kill()?;
        until_target_is(&site, "data", TargetState::Retrying, PATIENCE)?;
        wait::until("half of them wait", PATIENCE, || Ok(site.owed()? >= 8))?;
        let report = site.upgrade(version, mode)?;
        ensure!(report.requests_handed_back >= 8 && report.requests_taken_back == 0, "{report:?}");
        server.start_again()?;
        until_target_is(&site, "data", TargetState::Ready, PATIENCE)?;
        let checked = crowd.checked();
        wait::until("the crowd writes", PATIENCE, || {
            crowd.check()?;
            Ok(crowd.checked() > checked + 32)
        })?;
    }
    context.fact("checked", crowd.stop()?);
    site.destroy("data")?;
    server.stop()?;
    site.leave()
}
