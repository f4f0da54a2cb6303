// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Handles, mounts, holders and partitions outlive the payload.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use atom_abi::control::outcome;
use atomctl::node::Node;
use atomctl::report::Mode;
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::Context;
use crate::load::files::Files;
use crate::site::{Site, Spec};
use crate::wait;

pub fn handles_mounts_holders_and_partitions_stay(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let parted = site.volume("parted", Spec::ram(64))?;
    let held = site.volume("held", Spec::ram(8))?;

    context.step("partitions, a file system, handles");
    partition(&parted)?;
    let part = format!("{parted}p1");
    context.run(&["mkfs.ext4", "-q", &part])?;
    fs::create_dir_all("/mnt/part")?;
    context.run(&["mount", &part, "/mnt/part"])?;
    let files = Files::start("/mnt/part/files".as_ref())?;
    let holder = exclusive(&held)?;
    let handle = OpenOptions::new().read(true).write(true).open(&held)?;
    handle.write_all_at(b"written before", 4096)?;
    handle.sync_all()?;

    for (version, mode) in
        [("1.1.0", Mode::Warm), ("1.0.0", Mode::Cold), ("1.1.0", Mode::Cold), ("1.0.0", Mode::Warm)]
    {
        context.step(&format!("{mode} to {version}"));
        let before = files.checked();
        let report = site.upgrade(version, mode)?;
        ensure!(report.opens >= 3, "only {} handles were seen", report.opens);
        let error = exclusive(&held).err().context("a second exclusive holder")?;
        ensure!(error.raw_os_error() == Some(Errno::EBUSY as i32), "{error}");
        let mut bytes = [0; 14];
        File::open(&held)?.read_exact_at(&mut bytes, 4096)?;
        handle.read_exact_at(&mut bytes, 4096)?;
        ensure!(&bytes == b"written before", "the handle reads {bytes:?}");
        ensure!(fs::metadata(&part).is_ok(), "the partition is gone");
        wait::until("two more files", Duration::from_secs(30), || {
            Ok(files.checked() >= before + 2)
        })?;
    }

    context.step("the end");
    context.fact("files_checked", files.stop()?.checked);
    context.run(&["umount", "/mnt/part"])?;
    context.run(&["e2fsck", "-f", "-n", &part])?;
    drop((holder, handle));
    exclusive(&held).context("the holder's claim outlived it")?;
    site.leave()
}

pub fn devices_open_and_close_while_io_is_held(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let device = site.volume("data", Spec::ram(8))?;
    let before = File::open(&device)?;

    context.step("holding");
    let report = site.node().abandon(0, Duration::from_secs(5))?;
    ensure!(report.outcome == outcome::DONE, "abandon: {}", report.refusal);
    // A reader that waits for the device proves that I/O is held and not failed.
    let reader = std::thread::spawn({
        let device = device.clone();
        move || direct_read(&device)
    });
    let begun = Instant::now();
    for _ in 0..100 {
        drop(File::open(&device)?);
        drop(exclusive(&device)?);
    }
    drop(before);
    let took = begun.elapsed();
    context.fact("opens_while_held_us", took.as_micros() / 200);
    context.ensure_within("200 opens while I/O was held", took, Duration::from_secs(5))?;
    ensure!(!reader.is_finished(), "a read came back while nobody was adopted");

    context.step("serving again");
    let live = site.node().payloads()?;
    site.adopt(live.first().context("the payload is still loaded")?.id)?;
    reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    site.leave()
}

fn direct_read(device: &str) -> Result<()> {
    let mut memory = vec![0u8; 8192];
    let start = memory.as_ptr().align_offset(4096);
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECT.bits()).open(device)?;
    Ok(file.read_exact_at(&mut memory[start..start + 4096], 0)?)
}

fn exclusive(device: &str) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_EXCL.bits()).open(device)
}

fn partition(device: &str) -> Result<()> {
    let mut child = Command::new("sfdisk").args(["-q", device]).stdin(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(b"label: gpt\n,48M\n,\n")?;
    drop(stdin);
    ensure!(child.wait()?.success(), "sfdisk failed");
    Ok(())
}
