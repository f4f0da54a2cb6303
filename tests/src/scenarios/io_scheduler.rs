// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! An I/O scheduler on an Atom device: nobody asks for one by default, and administrators and udev rules set it all the same.
//! Requests are others then, which the block layer allocates when the scheduler is set.

use std::fs;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atom_abi::control::outcome;
use atomctl::kmod;
use atomctl::node::Node;
use atomctl::report::Mode;

use super::Context;
use crate::load::crowd::Crowd;
use crate::load::fio::{Fio, Shape};
use crate::load::flushes::Flushes;
use crate::queue;
use crate::site::{Site, Spec};
use crate::wait;

const LONG: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
const LOAD: Shape = Shape { depth: 16, bytes: 4 << 20, verify: true };
/// Tags of the only hardware queue of the device whose I/O is held.
const TAGS: u16 = 8;
/// What both versions read and write.
const SCHEMA: u32 = 4;

pub fn upgrades_go_on_with_an_io_scheduler(context: &mut Context) -> Result<()> {
    for module in ["mq-deadline", "kyber-iosched"] {
        context.run(&["modprobe", module])?;
    }
    let site = Site::on_guest("2.0.0")?;
    let device = site.volume("data", Spec::ram(16))?;
    let flushed = site.volume("flushed", Spec::ram(16))?;
    let held = site.volume("held", Spec { hw_queues: 1, ..Spec::ram(16).depth(TAGS) })?;
    let all = [device.as_str(), flushed.as_str(), held.as_str()];
    let load = Fio::start(&device, LOAD)?;
    let flushes = Flushes::start(&flushed)?;
    let mut crowd = Crowd::start(&held, 2 * u64::from(TAGS))?;
    for name in ["mq-deadline", "kyber", "none"] {
        context.step(&format!("{name} under load"));
        for one in all {
            set(one, name)?;
        }
        for (mode, version) in [(Mode::Warm, "2.1.0"), (Mode::Cold, "2.0.0")] {
            context.step(&format!("{name}: {mode} to {version}"));
            site.upgrade(version, mode)?;
            let (written, checked) = (flushes.count(), crowd.checked());
            wait::until("everybody writes", PATIENCE, || {
                Ok(flushes.count() > written + 4 && crowd.checked() > checked + 16)
            })?;
        }
        context.step(&format!("{name}: requests are held, and go on with another payload"));
        let report = site.node().abandon(SCHEMA, LONG)?;
        ensure!(report.outcome == outcome::DONE, "abandon: {}", report.refusal);
        kmod::remove("payload_2_0_0")?;
        wait::until("requests are held", PATIENCE, || Ok(queue::in_flight(&held)? > 0))?;
        let checked = crowd.checked();
        let id = site.insert(&site.file("2.0.0"))?;
        site.adopt(id)?;
        wait::until("they go on", PATIENCE, || Ok(crowd.checked() > checked + u64::from(TAGS)))?;
        crowd.check()?;
    }
    load.stop()?;
    context.fact("flushes", flushes.stop()?.flushes);
    context.fact("writes_checked", crowd.stop()?);
    site.leave()
}

/// Sets the scheduler of a device and sees that it has it.
fn set(device: &str, name: &str) -> Result<()> {
    let file = format!("/sys/block/{}/queue/scheduler", device.trim_start_matches("/dev/"));
    fs::write(&file, name).with_context(|| format!("{file}: {name}"))?;
    let now = fs::read_to_string(&file)?;
    ensure!(now.contains(&format!("[{name}]")), "{file} says {now}");
    Ok(())
}
