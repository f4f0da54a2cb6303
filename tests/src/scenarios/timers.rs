// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Time in which the gate was closed is no time: no request times out for it.

use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Result};
use atom_abi::control::outcome;
use atom_abi::request::op;
use atomctl::volume;

use super::Context;
use crate::queue;
use crate::site::{Site, Spec};
use crate::{variant, wait};

/// The variant's devices ask after a second; the block layer rounds up to whole seconds.
const TIMEOUT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(30);

pub fn no_timeout_fires_for_the_time_of_a_pause(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("stuck")?;
    let device = site.volume("data", Spec::ram(8))?;
    let next = site.insert(&site.file("1.1.0"))?;

    context.step("a request that is not ended is asked about");
    volume::hold(site.node().control(), op::READ, 1)?;
    let path = device.clone();
    let started = Instant::now();
    let reader = std::thread::spawn(move || queue::read_block(&path, 0));
    wait::until("it is stuck", PATIENCE, || Ok(site.owed()? == 1))?;
    wait::until("timeout is asked", PATIENCE, || {
        Ok(variant::asked(site.node().control())?.timeouts > 0)
    })?;
    let first = started.elapsed();
    ensure!(first >= TIMEOUT, "asked after {first:?}");
    context.fact("first_asked_ms", first.as_millis());

    context.step("an aborted handoff with a pause longer than the timeout");
    let before = variant::asked(site.node().control())?.timeouts;
    let report = site.node().control().switch(next, PAUSE)?;
    ensure!(report.outcome == outcome::UNDONE, "{report:?}");
    let asked = variant::asked(site.node().control())?;
    let opened = Instant::now();
    ensure!(asked.timeouts <= before + 1, "asked {} times in the pause", asked.timeouts - before);
    let told = Duration::from_nanos(asked.paused_ns);
    ensure!(told >= PAUSE, "resume was told of {told:?}");
    ensure!(
        told.as_nanos() == u128::from(report.pause_ns),
        "{told:?}, the report says {}",
        report.pause_ns
    );
    let at_once = asked.timeouts;
    wait::until("timeout is asked again", PATIENCE, || {
        Ok(variant::asked(site.node().control())?.timeouts > at_once)
    })?;
    context.fact("asked_again_after_ms", opened.elapsed().as_millis());

    volume::release(site.node().control())?;
    reader.join().map_err(|_| anyhow!("the reader died"))??;
    site.leave()
}
