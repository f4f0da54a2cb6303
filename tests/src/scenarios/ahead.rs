// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! State that is copied while it changes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atom_abi::control::outcome;
use atomctl::drain::{AtDeadline, Drain};
use atomctl::report::Mode;
use atomctl::volume;

use super::Context;
use crate::guest::kmsg;
use crate::load::fio::{Fio, Shape};
use crate::site::{Site, Spec};
use crate::variant;

/// Upgrades, half of them each way.
const TIMES: usize = 20;
/// Volumes, and how many of them are written all the while.
const VOLUMES: usize = 6;
const BUSY: usize = 2;
const DEADLINE: Duration = Duration::from_secs(5);
/// 4 KiB pages of a large state.
const PAGES: u32 = 2048;

pub fn what_is_counted_while_state_is_copied_is_not_lost(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let mut devices = Vec::new();
    for at in 0..VOLUMES {
        let spec = if at % 2 == 0 { Spec::ram(8) } else { Spec::null(8) };
        devices.push(site.volume(&format!("v{at}"), spec)?);
    }
    // Verified where something is kept.
    let loads = devices.iter().take(BUSY).enumerate().map(|(at, device)| {
        Fio::start(device, Shape { depth: 16, bytes: 4 << 20, verify: at % 2 == 0 })
    });
    let loads = loads.collect::<Result<Vec<_>>>()?;
    for round in 0..TIMES {
        // Another of the quiet ones has changed each time.
        let quiet = devices.get(BUSY + round % (VOLUMES - BUSY)).context("a quiet one")?;
        crate::queue::read_block(quiet, round as u64)?;
        let to = if round % 2 == 0 { "2.1.0" } else { "2.0.0" };
        context.step(&format!("{round}: to {to}"));
        site.upgrade(to, Mode::Warm)?;
    }
    loads.into_iter().try_for_each(|load| load.stop().map(drop))?;

    context.step("what the payload has counted is what the block layer has counted");
    for (at, device) in devices.iter().enumerate() {
        let (ours, theirs) = (counted(&site, &format!("v{at}"))?, accounted(device)?);
        ensure!(ours == theirs, "{device}: {ours:?} instead of {theirs:?}");
        ensure!(ours.0 > 0, "{device} was not read");
    }
    site.leave()
}

pub fn a_large_state_comes_whole_to_the_next_payload(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("9.0.0-large")?;
    let device = site.volume("data", Spec::ram(8))?;
    variant::fill(site.node().control(), PAGES)?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    let mut times = 0;
    for mode in [Mode::Warm, Mode::Warm, Mode::Cold, Mode::Warm, Mode::Cold] {
        times += 1;
        let to = if times % 2 == 1 { "9.0.0-large-too" } else { "9.0.0-large" };
        context.step(&format!("{mode} to {to}"));
        let report = site.upgrade(to, mode)?;
        ensure!(report.image_bytes > u64::from(PAGES) * 4096, "{report:?}");
    }
    let log = kmsg::read()?;
    ensure!(!log.contains("the large state is damaged"), "it is damaged");
    let whole = log.matches("the large state is whole").count();
    ensure!(whole == times, "it came whole {whole} times, and not {times}");

    context.step("whoever takes over when nobody can be asked has the copy of the last upgrade");
    let id = site.insert(&site.file("9.0.0-large"))?;
    let drain = Drain { deadline: DEADLINE, at_deadline: AtDeadline::Reissue, forsake: true };
    let report = site.node().control().switch(id, drain)?;
    ensure!(report.outcome == outcome::DONE, "{}", report.refusal);
    ensure!(!kmsg::read()?.contains("the large state is damaged"), "it is damaged");
    load.stop().map(drop)
}

/// Reads and writes of a volume, and the bytes of both, by its payload.
fn counted(site: &Site, name: &str) -> Result<(u64, u64, u64, u64)> {
    let volumes = volume::list(site.node().control())?;
    let volume = volumes.iter().find(|volume| volume.name == name).context("no such volume")?;
    let of = |op: &str| volume.done.get(op).map_or((0, 0), |done| (done.ios, done.bytes));
    let (reads, writes) = (of("read"), of("write"));
    Ok((reads.0, writes.0, reads.1, writes.1))
}

/// The same of its device, by the block layer (`Documentation/block/stat.rst`).
fn accounted(device: &str) -> Result<(u64, u64, u64, u64)> {
    let name = Path::new(device).file_name().context("no name")?.to_string_lossy().into_owned();
    let text = fs::read_to_string(format!("/sys/block/{name}/stat"))?;
    let fields = text.split_whitespace().map(|word| Ok(word.parse()?));
    let fields = fields.collect::<Result<Vec<u64>>>()?;
    let field = |at: usize| fields.get(at).copied().unwrap_or(0);
    Ok((field(0), field(4), field(2) * 512, field(6) * 512))
}
