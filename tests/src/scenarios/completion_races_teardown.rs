// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! ublk's defect: a completion raced the teardown.
//!
//! Here requests end in other contexts than the one that takes things down: on another processor, in the kernel's
//! write-back, in the block layer's own workers after a gate has opened, and in a command that ends what was kept.
//! Handoffs, and the destruction of the device, follow at once. Each request ends once, and nothing is left.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use anyhow::{anyhow, ensure, Context as _, Result};
use atom_abi::control::outcome;
use atom_abi::request::op;
use atom_abi::version::reason;
use atomctl::control::Control;
use atomctl::node::Node;
use atomctl::volume;

use super::Context;
use crate::kept::keep;
use crate::load::fio::{Fio, Shape};
use crate::queue;
use crate::random::{seed, Random};
use crate::site::{Site, Spec};
use crate::wait;

const LONG: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);
/// Rounds of each kind.
const ROUNDS: u64 = 25;
const KEPT: u32 = 4;

pub fn completions_race_handoffs_and_the_destruction_of_devices(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("stuck")?;
    let parked = site.insert(&site.file("1.1.0"))?;
    let stuck = site.node().status()?.live;

    context.step("a command ends requests while a handoff waits for them");
    let (done, undone) = releases_against_handoffs(context, &site, stuck, parked)?;
    context.fact("handoffs_after_the_release", done);
    context.fact("handoffs_before_the_release", undone);

    context.step("write-back and killed writers, handoffs, and the device is destroyed at once");
    let mut early = 0;
    for round in 0..ROUNDS {
        context.step(&format!("round {round}"));
        early += teardown(&site, [stuck, parked], round)?;
    }
    context.fact("destructions_refused_while_open", early);
    let status = site.node().status()?;
    ensure!(status.stale_completions == 0, "{} completions were refused", status.stale_completions);
    ensure!(status.devices == 0 && status.preserved == 0, "something is left: {status:?}");
    site.leave()
}

/// The release and the handoff want the same lock: whoever is first, the requests end once, and both say the truth.
fn releases_against_handoffs(
    context: &mut Context,
    site: &Site,
    stuck: u32,
    other: u32,
) -> Result<(u64, u64)> {
    let seed = seed()?;
    context.step(&format!("seed {seed}"));
    context.fact("seed", seed);
    let mut random = Random::new(seed);
    let device = site.volume("raced", Spec::ram(16).depth(16))?;
    let mut load = Fio::start(&device, Shape { depth: 32, bytes: 4 << 20, verify: true })?;
    let (mut done, mut undone) = (0, 0);
    for _ in 0..ROUNDS {
        keep(site.node().control(), op::WRITE, KEPT)?;
        let start = Arc::new(Barrier::new(2));
        let theirs = Arc::clone(&start);
        let control = Control::open()?;
        let spins = random.below(20_000);
        let release = std::thread::Builder::new().spawn(move || -> Result<()> {
            theirs.wait();
            // Chance decides who is first; nothing waits for the outcome of it.
            (0..spins).for_each(|_| std::hint::spin_loop());
            Ok(volume::release(&control)?)
        })?;
        start.wait();
        let report = site.node().switch(other, Duration::from_millis(1 + random.below(20)))?;
        release.join().map_err(|_| anyhow!("the releasing thread panicked"))??;
        match report.outcome {
            outcome::DONE => {
                done += 1;
                ensure!(report.owed == 0, "{report:?}");
                let back = site.node().switch(stuck, LONG)?;
                ensure!(back.outcome == outcome::DONE, "{}", back.refusal);
            }
            _ => {
                undone += 1;
                ensure!(report.refusal.code == reason::DEADLINE, "{}", report.refusal);
                // None, when they ended in time and the image came too late.
                ensure!(report.owed <= KEPT, "{report:?}");
            }
        }
        wait::until("all of them have ended", PATIENCE, || Ok(site.owed()? == 0))?;
        load.check()?;
    }
    ensure!(load.stop()?.ios > 0, "there was no load");
    ensure!(queue::in_flight(&device)? == 0, "requests are left");
    site.destroy("raced")?;
    Ok((done, undone))
}

/// One device from its creation to its destruction. Returns how often the latter was refused because it was open.
fn teardown(site: &Site, payloads: [u32; 2], round: u64) -> Result<u64> {
    let device = site.volume("fleeting", Spec::ram(16).depth(8))?;
    let byte = (round % 250) as u8 + 1;
    // Dirty pages, which the kernel's own threads write back, in requests that end in their context.
    let file = OpenOptions::new().read(true).write(true).open(&device)?;
    file.write_all_at(&vec![byte; 4 << 20], 8 << 20)?;
    let mut writer = Command::new("fio")
        .args(["--name=killed", "--direct=1", "--ioengine=libaio", "--bs=4k", "--rw=randwrite"])
        .args(["--iodepth=64", "--size=4M", "--time_based", "--runtime=3600", "--eta=never"])
        .args(["--thread", "--output=/dev/null", &format!("--filename={device}")])
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start fio")?;
    let begun = queue::stat(&device)?.writes;
    wait::until("fio writes", PATIENCE, || {
        ensure!(writer.try_wait()?.is_none(), "fio ended by itself");
        Ok(queue::stat(&device)?.writes > begun + 64)
    })?;
    let sync = std::thread::Builder::new().spawn(move || -> Result<File> {
        file.sync_all()?;
        Ok(file)
    })?;
    for _ in 0..2 {
        let live = site.node().status()?.live;
        let next = payloads.into_iter().find(|id| *id != live).context("one payload")?;
        let report = site.node().switch(next, LONG)?;
        ensure!(report.outcome == outcome::DONE, "{}", report.refusal);
    }
    let file = sync.join().map_err(|_| anyhow!("a thread panicked"))??;
    let mut found = vec![0; 4 << 20];
    site.node().control().status()?;
    fs::write("/proc/sys/vm/drop_caches", "1")?;
    file.read_exact_at(&mut found, 8 << 20)?;
    ensure!(found.iter().all(|found| *found == byte), "what was written back is not there");
    drop(file);
    // Its requests are in flight; they end on their own, and the last of them closes the device.
    writer.kill()?;
    let mut refused = 0;
    wait::until("the device is destroyed", PATIENCE, || match site.destroy("fleeting") {
        Ok(()) => Ok(true),
        Err(error) => {
            ensure!(error.to_string().contains("usy") || fs::exists(&device)?, "{error:#}");
            refused += 1;
            Ok(false)
        }
    })?;
    ensure!(!fs::exists(&device)?, "{device} is still there");
    writer.wait()?;
    Ok(refused)
}
