// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The devices are block devices as any other, also across an upgrade.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use anyhow::{ensure, Context as _, Result};
use atomctl::node::Node;
use atomctl::report::Mode;
use atomctl::volume;

use super::Context;
use crate::site::{Site, Spec};

const MIB: u64 = 1 << 20;

pub fn ram_volumes_keep_trim_and_zero_what_they_should(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let device = site.volume("data", Spec::ram(32))?;
    let queue = |name: &str| -> Result<u64> {
        let path = format!("/sys/block/{}/queue/{name}", device.trim_start_matches("/dev/"));
        Ok(fs::read_to_string(&path).with_context(|| path)?.trim().parse()?)
    };
    ensure!(queue("logical_block_size")? == 4096, "logical block size");
    ensure!(queue("discard_max_bytes")? > 0, "no discard");
    ensure!(queue("write_zeroes_max_bytes")? > 0, "no write-zeroes");
    ensure!(queue("fua")? == 1, "no FUA");

    context.step("written and kept");
    let file = OpenOptions::new().read(true).write(true).open(&device)?;
    let pattern: Vec<u8> = (0..8 * MIB).map(|at| (at / 512 % 251) as u8 + 1).collect();
    file.write_all_at(&pattern, MIB)?;
    file.sync_all()?;
    let full = resident(&site)?;
    ensure!(full == 8 * MIB, "{full} bytes are resident");

    context.step("discarded and zeroed");
    blkdiscard(context, &device, &[], 2 * MIB, MIB)?;
    blkdiscard(context, &device, &["-z"], 4 * MIB, MIB + 4096)?;
    ensure!(resident(&site)? < full, "a discard gave no memory back");

    for (version, mode) in [("1.1.0", Mode::Warm), ("1.0.0", Mode::Cold), ("1.1.0", Mode::Cold)] {
        context.step(&format!("read back, then {mode} to {version}"));
        check(context, &device, &pattern)?;
        site.upgrade(version, mode)?;
        check(context, &device, &pattern)?;
    }
    drop(file);

    context.step("the statistics went along");
    let status = site.node().status()?;
    ensure!(status.preserved == 1, "{} preserved objects", status.preserved);
    let entry = volume::list(site.node().control())?.pop().context("the volume is listed")?;
    let writes = entry.done.get("write").map_or(0, |work| work.ios);
    ensure!(writes > 0, "no write was counted: {entry:?}");
    ensure!(entry.errors == 0, "{} errors were counted", entry.errors);
    site.leave()
}

/// Discards with `blkdiscard`, which invalidates the page cache of the range.
fn blkdiscard(context: &Context, device: &str, how: &[&str], at: u64, bytes: u64) -> Result<()> {
    let (at, bytes) = (at.to_string(), bytes.to_string());
    let mut argv = vec!["blkdiscard", "-f"];
    argv.extend(how);
    argv.extend(["-o", &at, "-l", &bytes, device]);
    context.run(&argv).map(drop)
}

fn check(context: &Context, device: &str, pattern: &[u8]) -> Result<()> {
    context.run(&["blockdev", "--flushbufs", device])?;
    let found = fs::read(device)?;
    let gone =
        |at: u64| (2 * MIB..3 * MIB).contains(&at) || (4 * MIB..5 * MIB + 4096).contains(&at);
    for (at, byte) in (0u64..).zip(&found) {
        let written = at.checked_sub(MIB).and_then(|at| pattern.get(at as usize));
        let wanted = if gone(at) { 0 } else { written.copied().unwrap_or(0) };
        ensure!(*byte == wanted, "{device} has {byte:#x} at {at}, not {wanted:#x}");
    }
    Ok(())
}

fn resident(site: &Site) -> Result<u64> {
    let volumes = volume::list(site.node().control())?;
    Ok(volumes.iter().map(|volume| volume.resident_bytes).sum())
}
