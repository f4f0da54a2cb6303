// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A new payload changes the devices that it adopts, and what would break a holder is refused.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atom_abi::control::outcome;
use atomctl::kmod;
use atomctl::node::Node;
use atomctl::report::Mode;

use super::Context;
use crate::load::fio::{Fio, Shape};
use crate::queue;
use crate::site::{Site, Spec};

const DEADLINE: Duration = Duration::from_secs(5);

pub fn a_device_grows_and_loses_its_write_cache_under_a_mounted_file_system(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("1.1.0")?;
    let device = site.volume("data", Spec::ram(32))?;
    let raw = site.volume("raw", Spec::ram(16))?;
    let load = Fio::start(&raw, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    context.run(&["mkfs.ext4", "-q", &device])?;
    std::fs::create_dir_all("/mnt/grow")?;
    context.run(&["mount", &device, "/mnt/grow"])?;
    std::fs::write("/mnt/grow/before", vec![7; 1 << 20])?;
    let (sectors, longest) =
        (queue::limit(&device, "../size")?, queue::limit(&device, "max_hw_sectors_kb")?);
    let cache = cache(&device)?;

    context.step("twice the size, no write cache any more, half the longest request");
    let id = site.insert(&site.file("grow"))?;
    let report = site.node().control().switch(id, DEADLINE)?;
    ensure!(report.outcome == outcome::DONE && report.changed == 2, "{report:?}");
    ensure!(queue::limit(&device, "../size")? == 2 * sectors, "it has not grown");
    ensure!(queue::limit(&device, "max_hw_sectors_kb")? == longest / 2, "requests are as long");
    let now = self::cache(&device)?;
    ensure!(
        (cache.as_str(), now.as_str()) == ("write back", "write through"),
        "the cache was {cache}, is {now}"
    );
    context.run(&["resize2fs", &device])?;
    let room = context.run(&["df", "-m", "/mnt/grow"])?;
    context.fact("df", &room);
    std::fs::write("/mnt/grow/after", vec![8; 40 << 20])?;
    File::open("/mnt/grow/after")?.sync_all()?;

    context.step("a release serves it as it is then");
    site.upgrade("1.1.0", Mode::Warm)?;
    ensure!(queue::limit(&device, "../size")? == 2 * sectors, "it has shrunk");
    ensure!(std::fs::read("/mnt/grow/after")?.iter().all(|byte| *byte == 8), "wrong data");
    ensure!(std::fs::read("/mnt/grow/before")?.iter().all(|byte| *byte == 7), "wrong data");
    context.run(&["umount", "/mnt/grow"])?;
    context.run(&["fsck.ext4", "-fn", &device])?;
    load.stop()?;
    site.leave()
}

pub fn a_change_that_would_break_a_holder_is_refused(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.1.0")?;
    let device = site.volume_of_blocks("data", Spec::ram(32), 512)?;
    for variant in ["shrink", "block"] {
        context.step(&format!("{variant}, with a holder"));
        let before =
            (queue::limit(&device, "../size")?, queue::limit(&device, "logical_block_size")?);
        let holder = File::open(&device)?;
        let id = site.insert(&site.file(variant))?;
        let report = site.node().control().switch(id, DEADLINE)?;
        ensure!(report.outcome == outcome::UNDONE, "{variant}: {report:?}");
        ensure!(report.refusal.found == 16, "{variant}: {}", report.refusal);
        ensure!(site.live()? == "1.1.0", "{} serves", site.live()?);
        let after =
            (queue::limit(&device, "../size")?, queue::limit(&device, "logical_block_size")?);
        ensure!(before == after, "{before:?} became {after:?}");
        ensure!(holder.as_raw_fd() >= 0, "it was closed");
        drop(holder);

        context.step(&format!("{variant}, without one"));
        let report = site.node().control().switch(id, DEADLINE)?;
        ensure!(report.outcome == outcome::DONE && report.changed == 1, "{variant}: {report:?}");
        let after =
            (queue::limit(&device, "../size")?, queue::limit(&device, "logical_block_size")?);
        let wanted = if variant == "shrink" { (before.0 / 2, 512) } else { (before.0, 4096) };
        ensure!(after == wanted, "{variant}: {after:?} instead of {wanted:?}");
        site.upgrade("1.1.0", Mode::Warm)?;
    }
    context.step("read-only, and nobody writes any more");
    let id = site.insert(&site.file("readonly"))?;
    let report = site.node().control().switch(id, DEADLINE)?;
    ensure!(report.outcome == outcome::DONE && report.changed == 1, "{report:?}");
    ensure!(queue::limit(&device, "../ro")? == 1, "it is not read-only");
    let error = queue::write_block(&device, 0, 1).err().context("it was written")?;
    context.fact("the_error_of_a_write", format!("{error:#}"));
    ensure!(site.node().status()?.devices == 1, "a device is gone");
    site.upgrade("1.1.0", Mode::Warm)?;
    ensure!(kmod::find("payload_test_readonly")?.is_none(), "it is still loaded");
    site.leave()
}

fn cache(device: &str) -> Result<String> {
    let path = format!("/sys/block/{}/queue/write_cache", device.trim_start_matches("/dev/"));
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}
