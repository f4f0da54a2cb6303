// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Upgrades in a row, under load, warm and cold, up and down.

use std::time::Duration;

use anyhow::Result;
use atomctl::report::Mode;
use serde_json::json;

use super::Context;
use crate::load::fio::{Fio, Shape};
use crate::load::probe::Probe;
use crate::site::{Site, Spec};
use crate::wait;

/// Upgrades in each direction, and with many devices, when time is short.
const EACH_WAY: usize = 50;
const EACH_WAY_OF_MANY: usize = 10;
/// Tags in each hardware queue: few, so that they are all taken.
const TAGS: u16 = 8;
/// Bytes that are written over and over on each device.
const WORKING_SET: u64 = 4 << 20;

pub fn one_device_at_depth_one(context: &mut Context) -> Result<()> {
    upgrade_under_load(context, 1, 1)
}

pub fn one_device_saturated(context: &mut Context) -> Result<()> {
    upgrade_under_load(context, 1, 64)
}

pub fn sixteen_devices_at_depth_one(context: &mut Context) -> Result<()> {
    upgrade_under_load(context, 16, 1)
}

pub fn sixteen_devices_saturated(context: &mut Context) -> Result<()> {
    upgrade_under_load(context, 16, 64)
}

fn upgrade_under_load(context: &mut Context, devices: usize, depth: u32) -> Result<()> {
    let rounds = match devices > 1 && !context.is_slow() {
        true => EACH_WAY_OF_MANY,
        false => EACH_WAY,
    };
    let site = Site::on_guest("1.0.0")?;
    let volumes =
        (0..devices).map(|index| site.volume(&format!("v{index}"), Spec::ram(16).depth(TAGS)));
    let volumes = volumes.collect::<Result<Vec<_>>>()?;
    let probe = volumes.first().map(|device| Probe::start(device)).transpose()?;
    let shape = Shape { depth, bytes: WORKING_SET, verify: true };
    let loads = Fio::start_all(&volumes, shape)?;
    for mode in [Mode::Warm, Mode::Cold] {
        let mut pauses = Vec::new();
        for round in 0..rounds {
            context.step(&format!("{mode} upgrade {round} up and down"));
            for version in ["1.1.0", "1.0.0"] {
                let before = probe.as_ref().map_or(0, Probe::reads);
                pauses.push(site.upgrade(version, mode)?.pause_us);
                wait_for_progress(probe.as_ref(), before)?;
            }
        }
        context.fact(&format!("{mode}_pause_us"), quantiles(&mut pauses));
    }
    context.step("stopping the load");
    context.fact("verified_ios", Fio::stop_all(loads)?.ios);
    context.fact("probe_reads", probe.map(Probe::stop).transpose()?);
    context.step("taking everything down");
    site.leave()
}

/// Each upgrade is followed by I/O of the payload that it brought.
fn wait_for_progress(probe: Option<&Probe>, before: u64) -> Result<()> {
    let Some(probe) = probe else { return Ok(()) };
    wait::until("I/O of the new payload", Duration::from_secs(30), || {
        Ok(probe.reads() >= before + 2)
    })
}

/// Least, middle, ninth tenth and most.
pub fn quantiles(values: &mut [u64]) -> serde_json::Value {
    values.sort_unstable();
    let at = |part: usize| values.get(values.len().saturating_sub(1) * part / 100).copied();
    json!({"n": values.len(), "min": at(0), "median": at(50), "p90": at(90), "max": at(100)})
}
