// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The live upgrade that `cargo xtask upgrade` shows: a mounted, busy disk, and the module behind it replaced.
//!
//! The upgrades are made by `atomctl`, the program that a node has. The workload is made here: fio verifies
//! what it writes on a raw volume, files with known content are written and read back on an ext4, and a probe reads
//! each device and notices for how long nothing came back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context as _, Result};
use atomctl::node::Node;
use atomctl::report::{Mode, UpgradeReport, Workload};
use serde::{Deserialize, Serialize};

use crate::load::files::Files;
use crate::load::fio::{Fio, Shape};
use crate::load::probe::Probe;
use crate::site::{Site, Spec};

/// Name and version of the document that [`run`] ends with.
pub const SCHEMA: &str = "atom.upgrade-run/1";
/// The upgrades, in order.
const UPGRADES: [(&str, Mode); 3] =
    [("2.1.0", Mode::Warm), ("2.0.0", Mode::Cold), ("2.1.0", Mode::Warm)];
/// How long the gaps are watched with an upgrade, and before it without one.
const WINDOW: Duration = Duration::from_secs(3);
const MOUNT: &str = "/run/atom-upgrade";

/// All that was done and seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// One entry for each upgrade.
    pub upgrades: Vec<UpgradeReport>,
    /// What the workload did from its start to its end.
    pub workload: Whole,
}

/// The workload as a whole, judged after everything was read back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Whole {
    /// Requests of fio, each write read back and verified.
    pub verified_ios: u64,
    /// Files that were written, synced, read back and compared.
    pub files_checked: u64,
    /// Reads of the probes.
    pub probe_reads: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Reads that did not return what was written.
    pub corruptions: u64,
}

/// Where things are on the machine.
#[derive(Clone, Debug)]
pub struct Places {
    /// The modules.
    pub modules: PathBuf,
    /// The node tool.
    pub atomctl: PathBuf,
}

struct Demo {
    site: Site,
    places: Places,
    devices: Vec<String>,
    fio: Fio,
    files: Files,
    probes: Vec<Probe>,
}

/// Upgrades under load. Progress goes to standard error, a line each.
pub fn run(places: &Places) -> Result<Document> {
    let mut demo = Demo::set_up(places)?;
    let mut upgrades = Vec::new();
    for (version, mode) in UPGRADES {
        upgrades.push(demo.upgrade(version, mode)?);
    }
    let kernel = demo.site.node().release()?;
    let workload = demo.tear_down()?;
    Ok(Document { schema: SCHEMA.to_owned(), kernel, upgrades, workload })
}

impl Demo {
    fn set_up(places: &Places) -> Result<Self> {
        say("loading Atom and payload 2.0.0");
        let site = Site::start(&places.modules, "2.0.0")?;
        say("creating volumes: an ext4, a raw one, one that keeps nothing");
        let ext4 = site.volume("files", Spec::ram(128))?;
        let raw = site.volume("raw", Spec::ram(64))?;
        let null = site.volume("null", Spec::null(1024))?;
        call("mkfs.ext4", &["-q", &ext4])?;
        fs::create_dir_all(MOUNT)?;
        call("mount", &[&ext4, MOUNT])?;
        say("starting the workload: fio with verification on the raw volume, files on the ext4");
        let fio = Fio::start(&raw, Shape { depth: 16, bytes: 16 << 20, verify: true })?;
        let files = Files::start(&Path::new(MOUNT).join("files"))?;
        let devices = vec![ext4, raw, null];
        let probes = devices.iter().map(|device| Probe::start(device)).collect::<Result<_>>()?;
        Ok(Self { site, places: places.clone(), devices, fio, files, probes })
    }

    fn upgrade(&mut self, version: &str, mode: Mode) -> Result<UpgradeReport> {
        say(&format!("watching the workload for {} s without an upgrade", WINDOW.as_secs()));
        let baseline = self.watch(|| Ok(()))?.1;
        say(&format!("upgrading, {mode}, to {version}"));
        let before = self.completed()?;
        let (report, gap) = self.watch(|| self.atomctl(version, mode))?;
        let ios = self.completed()?.saturating_sub(before);
        ensure!(ios > 0, "no request was completed around the upgrade to {version}");
        self.fio.check()?;
        self.files.check()?;
        let live = self.site.live()?;
        ensure!(live == version, "{live} is live after the upgrade to {version}");
        // A load that has seen an error or a wrong byte has ended, and the checks above said so.
        Ok(report.with_workload(Workload {
            ios,
            errors: 0,
            corruptions: 0,
            longest_gap_us: micros(gap),
            baseline_longest_gap_us: micros(baseline),
        }))
    }

    /// Does something and returns, after the whole window, the longest gap that any probe saw in it.
    fn watch<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
        self.probes.iter().for_each(Probe::open_window);
        let begun = Instant::now();
        let done = work()?;
        // The window is what is measured: it has the same length with and without an upgrade.
        std::thread::sleep(WINDOW.saturating_sub(begun.elapsed()));
        let gap = self.probes.iter().map(Probe::longest_gap).max().unwrap_or_default();
        Ok((done, gap))
    }

    fn atomctl(&self, version: &str, mode: Mode) -> Result<UpgradeReport> {
        let mut command = Command::new(&self.places.atomctl);
        command.arg("--json").arg("--dir").arg(&self.places.modules).arg("upgrade");
        command.arg(self.site.file(version));
        if mode == Mode::Cold {
            command.arg("--cold");
        }
        let output = command
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot start {}", self.places.atomctl.display()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "`{command:?}` ended with {}: {said}", output.status);
        serde_json::from_str(&said).with_context(|| format!("`{command:?}` said {said}"))
    }

    /// Requests that the block layer has completed on all devices.
    fn completed(&self) -> Result<u64> {
        let mut sum = 0;
        for device in &self.devices {
            let name = device.trim_start_matches("/dev/");
            let path = format!("/sys/block/{name}/stat");
            let text = fs::read_to_string(&path).with_context(|| path)?;
            // Documentation/block/stat.rst: reads, writes, discards and flushes that were completed.
            let numbers: Vec<u64> =
                text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
            sum += [0, 4, 11, 15].iter().filter_map(|at| numbers.get(*at)).sum::<u64>();
        }
        Ok(sum)
    }

    fn tear_down(self) -> Result<Whole> {
        say("stopping the workload and reading everything back");
        let mut probe_reads = 0;
        for probe in self.probes {
            probe_reads += probe.stop()?;
        }
        let verified_ios = self.fio.stop()?.ios;
        let files_checked = self.files.stop()?.checked;
        call("umount", &[MOUNT])?;
        let ext4 = self.devices.first().context("the ext4 has a device")?;
        call("e2fsck", &["-f", "-n", ext4])?;
        say("unloading everything");
        self.site.leave()?;
        Ok(Whole { verified_ios, files_checked, probe_reads, errors: 0, corruptions: 0 })
    }
}

fn call(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!(
            "`{program} {}` failed ({}): {}{}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

fn say(what: &str) {
    eprintln!("step: {what}");
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
