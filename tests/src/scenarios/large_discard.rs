// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! ublk's defect: a discard that is larger than the device takes at a time was cut short silently.
//!
//! Here a discard, and a write of zeroes, of many times the limit is carried out to its end while payloads come and
//! go: what it covers reads as zeroes, what lies beside is untouched, and the block layer counts each sector.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atom_abi::control::outcome;
use atom_abi::request::op;
use atomctl::kmod;
use atomctl::node::Node;
use atomctl::report::{Mode, Outcome};
use atomctl::volume;

use super::Context;
use crate::queue;
use crate::site::{Site, Spec};
use crate::wait;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
/// What is discarded: neither its beginning nor its end lies on a multiple of the limit.
const FROM: u64 = 5 * MIB + 4096;
const BYTES: u64 = 50 * MIB + 8192;
const LONG: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);
/// Discards, and writes of zeroes, that must have met an upgrade.
const MET: u64 = 4;

pub fn a_discard_above_the_limit_is_carried_out_to_its_end(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("stuck")?;
    // Few tags, so that most of the pieces wait behind the first ones.
    let spec = Spec { hw_queues: 1, ..Spec::ram(SIZE / MIB).depth(2) };
    let device = site.volume("data", spec)?;
    for name in ["discard_max_bytes", "write_zeroes_max_bytes"] {
        let limit = queue::limit(&device, name)?;
        ensure!((1..BYTES / 8).contains(&limit), "{name} is {limit}");
        context.fact(name, limit);
    }

    context.step("one piece is kept, and upgrades run into their deadline");
    fill(context, &device)?;
    let before = queue::stat(&device)?;
    // Nothing else is under way, so what is owed is the piece that is kept.
    volume::hold(site.node().control(), op::DISCARD, 1)?;
    let mut discard = begin(&device, false)?;
    wait::until("a piece is kept", PATIENCE, || Ok(site.owed()? == 1))?;
    for mode in [Mode::Warm, Mode::Cold] {
        let short = Duration::from_millis(100);
        let report = site.try_upgrade(&site.file("1.1.0"), mode, short)?;
        ensure!(report.outcome == Outcome::Aborted, "{report:?}");
        ensure!(report.blockers.first().is_some_and(|b| b.op == "discard"), "{report:?}");
    }
    let done = queue::stat(&device)?.discarded_sectors - before.discarded_sectors;
    ensure!(done < BYTES / 512, "all of it was done while a piece of it was kept");
    ensure!(discard.try_wait()?.is_none(), "the discard ended while a piece of it was kept");
    volume::release(site.node().control())?;
    ended(&mut discard)?;
    check(context, &device)?;
    counted(&device, before, 1)?;
    site.upgrade("1.1.0", Mode::Warm)?;

    context.step("all of it is held, and another payload adopts");
    for zero in [false, true] {
        fill(context, &device)?;
        let before = queue::stat(&device)?;
        let report = site.node().abandon(1, LONG)?;
        ensure!(report.outcome == outcome::DONE, "abandon: {}", report.refusal);
        let gone = site.node().payloads()?.first().context("it is loaded")?.version;
        let (gone, next) =
            if gone.as_str() == "1.1.0" { ("1_1_0", "1.0.0") } else { ("1_0_0", "1.1.0") };
        kmod::remove(&format!("payload_{gone}"))?;
        let mut clear = begin(&device, zero)?;
        wait::until("it is held", PATIENCE, || Ok(queue::in_flight(&device)? > 0))?;
        let id = site.insert(&site.file(next))?;
        site.adopt(id)?;
        ended(&mut clear)?;
        check(context, &device)?;
        if !zero {
            counted(&device, before, 1)?;
        }
    }

    context.step("upgrades while it is carried out");
    let met = under_upgrades(context, &site, &device)?;
    context.fact("met_by_an_upgrade", met);
    site.leave()
}

/// Clears again and again while upgrades go on, until enough of the former were met by one of the latter.
fn under_upgrades(context: &Context, site: &Site, device: &str) -> Result<u64> {
    let (upgrades, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let clearing = scope.spawn(|| -> Result<u64> {
            let (mut met, mut round) = (0, 0u64);
            while met < MET {
                ensure!(round < 200, "only {met} of {round} were met by an upgrade");
                let zero = round % 2 == 1;
                fill(context, device)?;
                let before = queue::stat(device)?;
                let seen = upgrades.load(Ordering::SeqCst);
                ended(&mut begin(device, zero)?)?;
                met += u64::from(upgrades.load(Ordering::SeqCst) != seen);
                check(context, device)?;
                if !zero {
                    counted(device, before, 1)?;
                }
                round += 1;
            }
            Ok(met)
        });
        let upgrading = scope.spawn(|| -> Result<()> {
            let mut round = 0;
            while !stop.load(Ordering::SeqCst) {
                let version = if site.live()? == "1.1.0" { "1.0.0" } else { "1.1.0" };
                let mode = if round % 3 == 2 { Mode::Cold } else { Mode::Warm };
                site.upgrade(version, mode)?;
                upgrades.fetch_add(1, Ordering::SeqCst);
                round += 1;
            }
            Ok(())
        });
        let met = clearing.join().map_err(|_| anyhow::anyhow!("a thread panicked"));
        stop.store(true, Ordering::SeqCst);
        upgrading.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        met?
    })
}

/// Begins to discard the range, or to write zeroes there.
fn begin(device: &str, zero: bool) -> Result<Child> {
    let mut command = Command::new("blkdiscard");
    command.args(["-f", "-o", &FROM.to_string(), "-l", &BYTES.to_string()]);
    if zero {
        command.arg("-z");
    }
    // It says there that it was forced, which is no news.
    command.arg(device).stdin(Stdio::null()).stderr(Stdio::piped());
    command.spawn().context("cannot start blkdiscard")
}

fn ended(child: &mut Child) -> Result<()> {
    wait::until("blkdiscard ends", PATIENCE, || Ok(child.try_wait()?.is_some()))?;
    let status = child.wait()?;
    let mut said = String::new();
    child.stderr.take().context("no standard error")?.read_to_string(&mut said)?;
    ensure!(status.success(), "blkdiscard failed: {status}: {said}");
    Ok(())
}

/// Writes each block with a number of its own.
fn fill(context: &Context, device: &str) -> Result<()> {
    let file = OpenOptions::new().write(true).open(device)?;
    let mut piece = vec![0; MIB as usize];
    for start in (0..SIZE).step_by(MIB as usize) {
        for (at, block) in (start..).step_by(4096).zip(piece.chunks_mut(4096)) {
            block.fill(mark(at));
        }
        file.write_all_at(&piece, start)?;
    }
    file.sync_all()?;
    context.run(&["blockdev", "--flushbufs", device]).map(drop)
}

/// What the block at a byte was filled with.
fn mark(at: u64) -> u8 {
    (at / 4096 % 251) as u8 + 1
}

fn check(context: &Context, device: &str) -> Result<()> {
    context.run(&["blockdev", "--flushbufs", device])?;
    let found = std::fs::read(device)?;
    ensure!(found.len() as u64 == SIZE, "{device} has {} bytes", found.len());
    for (at, block) in (0u64..).step_by(4096).zip(found.chunks(4096)) {
        let wanted = if (FROM..FROM + BYTES).contains(&at) { 0 } else { mark(at) };
        let wrong = block.iter().find(|byte| **byte != wanted);
        ensure!(wrong.is_none(), "{device} has {wrong:?} in the block at {at}, not {wanted}");
    }
    Ok(())
}

/// Every sector was discarded, neither fewer nor any twice.
fn counted(device: &str, before: queue::Stat, discards: u64) -> Result<()> {
    let sectors = queue::stat(device)?.discarded_sectors - before.discarded_sectors;
    ensure!(sectors == discards * BYTES / 512, "{sectors} sectors were discarded");
    Ok(())
}
