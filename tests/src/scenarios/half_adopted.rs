// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! ublk's defect: a replacement that died half-adopted left requests behind that nobody could end.
//!
//! Here every request stays in Atom until all devices are adopted: a replacement that fails half-way and is gone has
//! none of them, and the next one ends them all.

use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use atom_abi::control::outcome;
use atom_abi::version::reason;
use atomctl::kmod;
use atomctl::node::Node;

use super::Context;
use crate::load::crowd::Crowd;
use crate::queue;
use crate::site::{Site, Spec};
use crate::wait;

const LONG: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);
const DEVICES: usize = 4;
/// Tags of the only hardware queue of a device, and writers that want one.
const TAGS: u16 = 4;
const WRITERS: u64 = 8;

pub fn a_replacement_that_fails_half_way_leaves_no_request_behind(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let (mut devices, mut loads) = (Vec::new(), Vec::new());
    for index in 0..DEVICES {
        let spec = Spec { hw_queues: 1, ..Spec::ram(16).depth(TAGS) };
        let device = site.volume(&format!("v{index}"), spec)?;
        loads.push(Crowd::start(&device, WRITERS)?);
        devices.push(device);
    }
    let mut slowest = Duration::ZERO;
    for (from, to) in [("1_0_0", "1.1.0"), ("1_1_0", "1.0.0"), ("1_0_0", "1.1.0")] {
        context.step("holding, with every tag taken");
        let report = site.node().abandon(1, LONG)?;
        ensure!(report.outcome == outcome::DONE, "abandon: {}", report.refusal);
        kmod::remove(&format!("payload_{from}"))?;
        let held = u64::from(TAGS);
        wait::until("every tag is taken", PATIENCE, || {
            let now: Result<Vec<u64>> = devices.iter().map(|d| queue::in_flight(d)).collect();
            Ok(now?.iter().all(|now| *now == held))
        })?;

        for (variant, code) in [("adopt", reason::OPERATION), ("bind", reason::UNBOUND_DEVICE)] {
            context.step(&format!("{variant} adopts half of it and is gone"));
            let id = site.insert(&site.file(variant))?;
            let report = site.node().adopt(id)?;
            ensure!(report.outcome == outcome::UNDONE, "{variant}: {report:?}");
            ensure!(report.refusal.code == code, "{variant}: {}", report.refusal);
            kmod::remove(&format!("payload_test_{variant}"))?;
            ensure!(site.owed()? == 0, "{variant} is gone and owes {}", site.owed()?);
            ensure!(site.live()?.is_empty(), "{} is live", site.live()?);
            for device in &devices {
                let now = queue::in_flight(device)?;
                ensure!(now == held, "{device}: {held} requests were held, now {now} are");
            }
        }

        context.step("the next one ends them all");
        let before: Vec<u64> = requests(&devices)?;
        let begun = Instant::now();
        let id = site.insert(&site.file(to))?;
        site.adopt(id)?;
        wait::until("every held request has ended", PATIENCE, || {
            let now = requests(&devices)?;
            Ok(now.iter().zip(&before).all(|(now, before)| *now >= before + held))
        })?;
        slowest = slowest.max(begun.elapsed());
        loads.iter_mut().try_for_each(Crowd::check)?;
    }
    context.fact("slowest_end_of_all_held_us", slowest.as_micros() as u64);
    let mut checked = 0;
    for load in loads {
        checked += load.stop()?;
    }
    context.fact("writes_checked", checked);
    for device in &devices {
        let left = queue::in_flight(device)?;
        ensure!(left == 0, "{left} requests of {device} are left behind");
    }
    ensure!(site.node().status()?.stale_completions == 0, "a completion was refused");
    site.leave()
}

fn requests(devices: &[String]) -> Result<Vec<u64>> {
    devices.iter().map(|device| Ok(queue::stat(device)?.requests())).collect()
}
