// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Little memory: what is written back goes through volumes, and volumes need no memory that has to be written back first.
//!
//! The server is outside of the guest: one inside would need memory itself, and wait for its own client.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atom_payload::spec::Layout;
use atomctl::report::Mode;

use super::Context;
use crate::composed::{self, first_target, stripe, Target};
use crate::load::files::Files;
use crate::outside;
use crate::site::Site;
use crate::{memory, patience, wait};

const PATIENCE: Duration = Duration::from_secs(120);
/// How much more memory than there is greedy programs want, in MiB: less than the swap has.
const TOO_MUCH: u64 = 192;

/// Programs that write to memory of their own, more than there is, and read it again.
struct Greedy(Vec<Child>);

impl Greedy {
    fn start(count: usize, mib: u64) -> Result<Self> {
        let mut children = Vec::new();
        for _ in 0..count {
            let child = Command::new("/init")
                .args(["greedy", &mib.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .context("cannot start a greedy program")?;
            children.push(child);
        }
        Ok(Self(children))
    }

    /// An error when one has found a wrong byte, or was killed.
    fn check(&mut self) -> Result<()> {
        for child in &mut self.0 {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("a greedy program has ended: {status}");
            }
        }
        Ok(())
    }
}

impl Drop for Greedy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn heavy_writes_through_a_file_system_go_on_with_little_memory(
    context: &mut Context,
) -> Result<()> {
    // A queue full of the longest writes goes to the server before a payload lets go. On a debug kernel five times ten seconds
    // were too short for it.
    let times = if patience::factor() == 1 { 1 } else { 3 };
    let site = Site::on_guest("2.0.0")?.within(Duration::from_secs(10) * times);
    let target = outside::server(context)?;
    let volume = composed::create(&site, "data", Layout::Linear, &[target])?;
    context.run(&["mkfs.ext4", "-q", &volume.device])?;
    fs::create_dir_all("/mnt/data")?;
    context.run(&["mount", &volume.device, "/mnt/data"])?;
    let mut files = Files::start("/mnt/data/files".as_ref())?;
    // Writers that never sync fill the page cache with dirty pages, over and over.
    let script = "while dd if=/dev/zero of=/mnt/data/big$0 bs=1M count=120 2>/dev/null; do :; done";
    let mut writers = Vec::new();
    for number in ["0", "1", "2"] {
        writers.push(Command::new("sh").args(["-c", script, number]).spawn()?);
    }
    let mut pauses = Vec::new();
    for version in ["2.1.0", "2.0.0", "2.1.0", "2.0.0"] {
        let (checked, written) = (files.checked(), crate::queue::stat(&volume.device)?.writes);
        wait::until("more is written", PATIENCE, || {
            files.check()?;
            let writes = crate::queue::stat(&volume.device)?.writes;
            Ok(files.checked() > checked + 2 && writes > written + 100)
        })?;
        context.step(&format!("to {version}"));
        pauses.push(site.upgrade(version, Mode::Warm)?.pause_us / 1000);
    }
    context.fact("pauses_ms", &pauses);
    for mut writer in writers {
        writer.kill()?;
        writer.wait()?;
    }
    context.fact("files_checked", files.stop()?.checked);
    let view = first_target(&site, "data")?;
    ensure!(view.status.reconnects == 0 && view.status.failures == 0, "{view:?}");
    wait::until("nobody uses it", PATIENCE, || {
        Ok(Command::new("umount").arg("/mnt/data").stderr(Stdio::null()).status()?.success())
    })?;
    context.run(&["e2fsck", "-f", "-n", &volume.device])?;
    site.leave()
}

pub fn swap_lies_on_volumes_through_upgrades(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let network = outside::server(context)?.mib(384);
    let disks = [Target::bdev("/dev/vda"), Target::bdev("/dev/vdb")];
    for (name, layout, targets) in
        [("network", Layout::Linear, vec![network]), ("disks", stripe(64), disks.to_vec())]
    {
        context.step(name);
        let volume = composed::create(&site, name, layout, &targets)?;
        context.run(&["mkswap", &volume.device])?;
        context.run(&["swapon", &volume.device])?;
        let wanted = (memory::available_bytes()? >> 20) + TOO_MUCH;
        let mut greedy = Greedy::start(2, wanted / 2)?;
        for version in ["2.1.0", "2.0.0"] {
            let (before, read) = counts(&volume.device)?;
            wait::until("swap goes out and in", PATIENCE, || {
                greedy.check()?;
                let (writes, reads) = counts(&volume.device)?;
                Ok(writes > before + 200 && reads > read + 200)
            })?;
            site.upgrade(version, Mode::Warm)?;
        }
        greedy.check()?;
        drop(greedy);
        let (writes, reads) = counts(&volume.device)?;
        context.fact(&format!("{name}_swap_writes"), writes);
        context.fact(&format!("{name}_swap_reads"), reads);
        context.run(&["swapoff", &volume.device])?;
        site.destroy(name)?;
    }
    site.leave()
}

fn counts(device: &str) -> Result<(u64, u64)> {
    let stat = crate::queue::stat(device)?;
    Ok((stat.writes, stat.reads))
}
