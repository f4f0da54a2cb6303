// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! ublk's defect: a queue whose tags were all taken was noticed by the 30 s time-out of its requests only.
//!
//! Here a handoff never waits for a tag: it gives up at its own deadline, or goes on at once.

use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use atom_abi::control::outcome;
use atom_abi::request::op;
use atomctl::kmod;
use atomctl::node::Node;
use atomctl::report::{Mode, Outcome};
use atomctl::volume;

use super::Context;
use crate::kept::keep;
use crate::load::crowd::Crowd;
use crate::queue;
use crate::site::{Site, Spec};
use crate::wait;

const DEADLINE: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);
/// What "at once" is, on a slow and busy machine. The block layer's usual time-out is ten times as long.
const AT_ONCE: Duration = Duration::from_secs(3);
/// Tags of the only hardware queue.
const TAGS: u16 = 8;

pub fn a_handoff_does_not_wait_for_a_tag(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("stuck")?;
    let spec = Spec { hw_queues: 1, ..Spec::ram(16).depth(TAGS) };
    let device = site.volume("data", spec)?;
    let mut load = Crowd::start(&device, 2 * u64::from(TAGS))?;

    for mode in [Mode::Warm, Mode::Cold] {
        context.step(&format!("{mode}: the live payload keeps a request on every tag"));
        keep(site.node().control(), op::WRITE, TAGS.into())?;
        full(&device)?;
        let begun = Instant::now();
        let report = site.try_upgrade(&site.file("1.1.0"), mode, DEADLINE)?;
        let took = begun.elapsed();
        ensure!(report.outcome == Outcome::Aborted, "{report:?}");
        ensure!(report.owed == Some(TAGS.into()), "{report:?}");
        // The deadline counts from the first gate that closes.
        let pause = Duration::from_micros(report.pause_us);
        ensure!(pause >= DEADLINE, "{report:?}");
        context.ensure_within("giving up", took, AT_ONCE)?;
        context.fact(&format!("{mode}_abort_with_every_tag_kept_us"), took.as_micros() as u64);
        volume::release(site.node().control())?;
        load.check()?;
    }

    context.step("an upgrade at once, with every tag in demand");
    let begun = Instant::now();
    let report = site.upgrade("1.1.0", Mode::Warm)?;
    context.ensure_within("an upgrade", begun.elapsed(), AT_ONCE)?;
    context.fact("upgrade_pause_us", report.pause_us);

    context.step("an adopt, with a held request on every tag");
    let report = site.node().abandon(1, LONG)?;
    ensure!(report.outcome == outcome::DONE, "abandon: {}", report.refusal);
    kmod::remove("payload_1_1_0")?;
    wait::until("every tag is taken", PATIENCE, || {
        Ok(queue::in_flight(&device)? == u64::from(TAGS))
    })?;
    let before = queue::stat(&device)?.requests();
    let begun = Instant::now();
    let id = site.insert(&site.file("1.0.0"))?;
    site.adopt(id)?;
    wait::until("every tag has served", AT_ONCE, || {
        Ok(queue::stat(&device)?.requests() >= before + u64::from(TAGS))
    })?;
    context.fact("adopt_with_every_tag_held_us", begun.elapsed().as_micros() as u64);
    context.fact("writes_checked", load.stop()?);
    site.leave()
}

fn full(device: &str) -> Result<()> {
    let taken = queue::in_flight(device)?;
    ensure!(taken == u64::from(TAGS), "{taken} of {TAGS} tags are taken");
    Ok(())
}
