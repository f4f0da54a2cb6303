// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Requests that a payload does not end: at the deadline they are taken back, or not, as the policy says.

use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atom_abi::control::{outcome, stage, Report};
use atom_abi::request::{flags, op};
use atom_abi::version::reason;
use atomctl::drain::{AtDeadline, Drain};
use atomctl::node::Node;
use atomctl::volume;

use super::Context;
use crate::load::fio::{Fio, Shape};
use crate::site::{Site, Spec};
use crate::{variant, wait};

const DEADLINE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(30);

pub fn what_a_stuck_payload_owes_is_handed_to_the_next_one(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("stuck")?;
    let device = site.volume("data", Spec::ram(16).depth(32))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    let next = site.insert(&site.file("1.1.0"))?;
    let stuck = site.node().status()?.live;
    for (round, stale) in [(1, 3), (2, 6)] {
        context.step(&format!("round {round}: three writes that do not end"));
        hold(&site, op::WRITE, 3)?;
        let report = switch(&site, next, AtDeadline::Reissue)?;
        ensure!(report.outcome == outcome::DONE, "{}", report.refusal);
        ensure!(report.revoked == 3 && report.owed == 3, "{report:?}");
        let data = report.stages[stage::DATA];
        ensure!(data.began >= 3 && data.left == 3, "{data:?}");
        ensure!(report.reasons[0].as_str() == "kept by a command", "{}", report.reasons[0]);
        let pause = Duration::from_nanos(report.pause_ns);
        ensure!(pause >= DEADLINE, "the deadline was not waited for: {pause:?}");
        context.fact("pause_us", report.pause_ns / 1000);
        wait::until("nothing is owed", PATIENCE, || Ok(site.owed()? < 3 || !stands(&site)?))?;

        context.step("the old payload ends them after all: refused, and counted");
        switch(&site, stuck, AtDeadline::Abort)?;
        let refused = variant::late(site.node().control())?;
        ensure!(refused == 3, "{refused} ends were refused");
        let counted = site.node().status()?.stale_completions;
        ensure!(counted == stale, "{counted} were counted, not {stale}");
    }
    // Nothing was lost, torn or ended twice: fio has verified all it wrote.
    load.stop()?;
    site.leave()
}

pub fn a_flush_a_fua_write_and_a_discard_are_reissued_by_their_rules(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("stuck")?;
    let device = site.volume("data", Spec::ram(16))?;
    let next = site.insert(&site.file("1.1.0"))?;
    let stuck = site.node().status()?.live;
    let path = std::path::PathBuf::from(&device);

    for (what, held, run) in [
        ("a flush", op::FLUSH, &["sync", "-d", "@"][..]),
        (
            "a write with FUA",
            op::WRITE,
            &[
                "dd",
                "if=/dev/zero",
                "of=@",
                "bs=64k",
                "count=1",
                "seek=1",
                "oflag=direct,dsync",
                "conv=notrunc",
            ],
        ),
        ("a discard", op::DISCARD, &["blkdiscard", "-o", "0", "-l", "65536", "@"][..]),
        ("zeroes", op::WRITE_ZEROES, &["blkdiscard", "-z", "-o", "65536", "-l", "65536", "@"][..]),
    ] {
        context.step(what);
        // Something to be lost: a discard that is carried out late would take it away.
        context.run(&[
            "dd",
            "if=/dev/zero",
            &format!("of={device}"),
            "bs=64k",
            "count=2",
            "oflag=direct",
        ])?;
        fill(&path, 0xa5)?;
        volume::hold(site.node().control(), held, 1)?;
        let argv: Vec<String> = run.iter().map(|word| word.replace('@', &device)).collect();
        let task = std::thread::spawn(move || {
            let (program, args) = argv.split_first().context("no command")?;
            let status = std::process::Command::new(program).args(args).status()?;
            ensure!(status.success(), "{program} failed: {status}");
            Ok(())
        });
        wait::until("it is stuck", PATIENCE, || is_stuck(&site))?;
        let report = switch(&site, next, AtDeadline::Reissue)?;
        ensure!(report.outcome == outcome::DONE && report.revoked == 1, "{report:?}");
        let fua = report.blockers[0].flags & flags::FUA != 0;
        ensure!(fua == (held == op::WRITE), "{what}: flags {:#x}", report.blockers[0].flags);
        task.join().map_err(|_| anyhow::anyhow!("{what}: the task died"))??;
        let expected = match held {
            op::WRITE_ZEROES | op::WRITE => (0xa5, 0),
            _ => (0xa5, 0xa5),
        };
        let found = (byte_at(&path, 0)?, byte_at(&path, 65536)?);
        ensure!(found == expected, "{what}: {found:x?} instead of {expected:x?}");
        switch(&site, stuck, AtDeadline::Abort)?;
        ensure!(variant::late(site.node().control())? == 1, "{what}: the late end was not refused");
    }
    site.leave()
}

pub fn without_a_promise_nothing_is_taken_back(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("stuck-late")?;
    let device = site.volume("data", Spec::ram(16))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    let next = site.insert(&site.file("1.1.0"))?;
    context.step("two writes that do not end");
    hold(&site, op::WRITE, 2)?;
    for policy in [AtDeadline::Reissue, AtDeadline::Fail] {
        let report = switch(&site, next, policy)?;
        ensure!(report.outcome == outcome::UNDONE, "{policy}: {report:?}");
        ensure!(report.refusal.code == reason::NO_PROMISE, "{policy}: {}", report.refusal);
        ensure!(site.live()? == "9.0.0-stuck-late", "{policy}: {} serves", site.live()?);
    }
    context.step("they end, and a retry succeeds");
    volume::release(site.node().control())?;
    let report = switch(&site, next, AtDeadline::Reissue)?;
    ensure!(report.outcome == outcome::DONE && report.revoked == 0, "{report:?}");
    load.stop()?;
    site.leave()
}

pub fn what_a_stuck_payload_owes_fails_when_the_policy_says_so(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("stuck")?;
    let device = site.volume("data", Spec::ram(16))?;
    let next = site.insert(&site.file("1.1.0"))?;
    context.step("a read that does not end");
    volume::hold(site.node().control(), op::READ, 1)?;
    let path = device.clone();
    let reader = std::thread::spawn(move || byte_at_direct(&path));
    wait::until("it is stuck", PATIENCE, || is_stuck(&site))?;
    let report = switch(&site, next, AtDeadline::Fail)?;
    ensure!(report.outcome == outcome::DONE && report.revoked == 1, "{report:?}");
    let read = reader.join().map_err(|_| anyhow::anyhow!("the reader died"))?;
    let error = read.err().context("the read succeeded")?;
    ensure!(format!("{error:#}").contains("os error 110"), "{error:#}");
    let device_errors = site.node().devices()?.first().map(|device| device.errors);
    ensure!(device_errors == Some(1), "{device_errors:?} errors are counted");
    site.leave()
}

fn hold(site: &Site, op: u8, requests: u32) -> Result<()> {
    volume::hold(site.node().control(), op, requests)?;
    wait::until("they are stuck", PATIENCE, || Ok(site.owed()? >= requests))
}

/// A request that is only on its way is not owed for so long.
fn is_stuck(site: &Site) -> Result<bool> {
    Ok(site.node().devices()?.iter().any(|device| device.oldest_ns > 100_000_000))
}

fn stands(site: &Site) -> Result<bool> {
    Ok(site.node().devices()?.iter().any(|device| device.oldest_ns > 1_000_000_000))
}

fn switch(site: &Site, target: u32, at_deadline: AtDeadline) -> Result<Report> {
    let drain = Drain { deadline: DEADLINE, at_deadline, forsake: false };
    Ok(site.node().control().switch(target, drain)?)
}

fn fill(path: &std::path::Path, byte: u8) -> Result<()> {
    use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
    let file = std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_SYNC.bits())
        .open(path)?;
    Ok(file.write_all_at(&[byte; 131_072], 0)?)
}

/// A byte of what is on the device, past the page cache.
fn byte_at(path: &std::path::Path, offset: u64) -> Result<u8> {
    let block = crate::queue::read_block(&path.to_string_lossy(), offset / 4096)?;
    block.first().copied().context("an empty block")
}

fn byte_at_direct(path: &str) -> Result<u8> {
    crate::queue::read_block(path, 0)?.first().copied().context("an empty block")
}
