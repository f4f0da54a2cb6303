// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A node on which Atom comes from packages, as an operator sees it: a package manager, units, a file of volumes, a file
//! system that is in use, and what serves it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atomctl::node::{Local, Node};

use crate::guest::node::PACKAGES;
use crate::load::files::Files;
use crate::load::probe::Probe;
use crate::scenarios::Context;
use crate::wait;

/// What the host puts behind the name of a package of another build of the same versions.
pub const SECOND_BUILD: &str = "2";
/// The volume, and where it is mounted.
pub const VOLUME: &str = "data";
pub const PLACE: &str = "/srv";
/// The device of the volume, by its name.
pub const DEVICE: &str = "/dev/atom/data";

/// The configuration of a node.
const CONFIGURATION: &str = "/etc/atom/atom.toml";
const VOLUMES: &str = "/etc/atom/volumes.toml";
const FSTAB: &str = "/etc/fstab";

/// Longest time until a unit is started, or systemd is done.
const PATIENCE: Duration = Duration::from_secs(90);
/// Files that must have been written and found right after each step.
const FILES_OF_A_STEP: u64 = 3;
/// Longest time in which nothing may come back from the volume. It is what the deadlines of a switch and of the way back
/// add up to, and not what they take.
const LONGEST_GAP: Duration = Duration::from_secs(30);

/// What a program said, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Whether it exited with 0.
    pub passed: bool,
    /// Both of its outputs.
    pub text: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Self { passed: output.status.success(), text }
    }
}

/// Runs a program that may fail.
pub fn run(program: &str, args: &[&str]) -> Result<Said> {
    let output = Command::new(program).args(args).output();
    Ok(output.with_context(|| format!("cannot start {program}"))?.into())
}

/// Runs a program that must succeed, with something in its output.
pub fn run_saying(program: &str, args: &[&str], part: &str) -> Result<()> {
    let said = run(program, args)?;
    ensure!(said.passed && said.text.contains(part), "{program} {args:?}, not {part:?}: {said:?}");
    Ok(())
}

/// Runs a program that must fail, with something in its output.
pub fn run_failing(program: &str, args: &[&str], part: &str) -> Result<()> {
    let said = run(program, args)?;
    ensure!(!said.passed && said.text.contains(part), "{program} {args:?}, not {part:?}: {said:?}");
    Ok(())
}

/// The package of that name for rpm: the host has put one version and build of it there.
pub fn rpm(name: &str, version: &str, build: &str) -> Result<String> {
    package(name, &format!("{name}-{version}-{build}.x86_64.rpm"), &format!("-{build}.x86_64.rpm"))
}

/// The same for dpkg.
pub fn deb(name: &str, version: &str, build: &str) -> Result<String> {
    package(name, &format!("{name}_{version}-{build}_amd64.deb"), &format!("-{build}_amd64.deb"))
}

/// The file of that name; one with `*` for a version is the only one that begins and ends as it does.
fn package(name: &str, file: &str, end: &str) -> Result<String> {
    if !file.contains('*') {
        let path = format!("{PACKAGES}/{file}");
        ensure!(Path::new(&path).exists(), "the host has not given {file}");
        return Ok(path);
    }
    for entry in fs::read_dir(PACKAGES)?.flatten() {
        let found = entry.file_name().to_string_lossy().into_owned();
        let rest = found.strip_prefix(name).and_then(|rest| rest.strip_suffix(end));
        let is_version = |rest: &str| rest[1..].starts_with(|c: char| c.is_ascii_digit());
        if rest.is_some_and(|rest| rest.len() > 1 && is_version(rest)) {
            return Ok(format!("{PACKAGES}/{found}"));
        }
    }
    anyhow::bail!("the host has not given {file}")
}

/// The version of the payload that serves.
pub fn live() -> Result<String> {
    let node = Local::open()?;
    let live = node.status()?.live;
    let payload = node.payloads()?.into_iter().find(|payload| payload.id == live);
    Ok(payload.context("no payload is live")?.version.as_str().to_owned())
}

/// An error unless this version serves, and Atom knows no other payload.
pub fn serves(version: &str) -> Result<()> {
    let node = Local::open()?;
    let known: Vec<_> =
        node.payloads()?.iter().map(|payload| payload.version.as_str().to_owned()).collect();
    ensure!(live()? == version, "{} serves, not {version}", live()?);
    ensure!(known == [version], "{version} serves, and Atom knows {known:?}");
    Ok(())
}

/// An error unless the files of all packages are as they were packed. What the operator has configured is the operator's.
pub fn rpms_are_whole() -> Result<()> {
    let said = run("rpm", &["-Va", "--noconfig"])?;
    ensure!(said.passed && said.text.trim().is_empty(), "rpm -V: {said:?}");
    Ok(())
}

/// The same for dpkg.
pub fn debs_are_whole() -> Result<()> {
    let names = run("dpkg-query", &["-W", "-f", "${Package}\n"])?;
    let is_ours = |name: &&str| name.starts_with("kmod-atom") || name.starts_with("atom-");
    let ours = names.text.lines().filter(is_ours);
    for name in ours {
        let said = run("dpkg", &["-V", name])?;
        let changed: Vec<_> =
            said.text.lines().filter(|line| !line.contains(" c /etc/atom/")).collect();
        ensure!(changed.is_empty(), "dpkg -V {name}: {changed:?}");
    }
    let audit = run("dpkg", &["--audit"])?;
    ensure!(audit.passed && audit.text.trim().is_empty(), "dpkg --audit: {audit:?}");
    Ok(())
}

/// Writes the node's configuration.
pub fn configure(text: &str) -> Result<()> {
    fs::write(CONFIGURATION, text).with_context(|| format!("cannot write {CONFIGURATION}"))
}

/// Writes the file of volumes, each with its targets.
pub fn volumes(text: &str) -> Result<()> {
    fs::write(VOLUMES, text).with_context(|| format!("cannot write {VOLUMES}"))
}

/// A striped volume over the node's two disks, as the file of volumes has it.
pub fn over_disks() -> String {
    format!(
        "[[volume]]\nname = \"{VOLUME}\"\nlayout = \"stripe\"\nchunk = \"64K\"\n\
         targets = [\"bdev:/dev/vda\", \"bdev:/dev/vdb\"]\n"
    )
}

/// Adds a line to the table of file systems.
pub fn fstab(line: &str) -> Result<()> {
    let mut table = fs::read_to_string(FSTAB)?;
    table.push_str(line);
    table.push('\n');
    fs::write(FSTAB, table)?;
    run_saying("systemctl", &["daemon-reload"], "")
}

/// Starts units, one after the other.
pub fn start(units: &[&str]) -> Result<()> {
    for unit in units {
        let said = run("systemctl", &["start", unit])?;
        if !said.passed {
            let status = run("systemctl", &["status", "--no-pager", "-l", unit])?;
            anyhow::bail!("{unit} was not started: {}{}", said.text, status.text);
        }
    }
    Ok(())
}

/// Waits until systemd has started everything; an error when something has failed.
pub fn until_up() -> Result<()> {
    let state = || run("systemctl", &["is-system-running"]);
    let up = wait::until("systemd is done", PATIENCE, || {
        let state = state()?.text;
        Ok(["running", "degraded"].contains(&state.trim()))
    });
    if up.is_ok() && state()?.text.trim() == "running" {
        return Ok(());
    }
    let failed = run("systemctl", &["--failed", "--no-legend", "--plain"])?.text;
    let jobs = run("systemctl", &["list-jobs", "--no-legend"])?.text;
    let log = run("journalctl", &["-b", "--no-pager", "-p", "warning", "-n", "40"])?.text;
    anyhow::bail!("the node is not up: {failed}{jobs}{log}")
}

/// Makes an ext4 on the volume and mounts it.
pub fn make_file_system(context: &Context) -> Result<()> {
    wait::until(&format!("there is {DEVICE}"), PATIENCE, || Ok(Path::new(DEVICE).exists()))?;
    context.run(&["mkfs.ext4", "-q", DEVICE])?;
    context.run(&["mount", DEVICE, PLACE])?;
    Ok(())
}

/// Verified load on the file system and on the device below it, while packages come and go.
pub struct Load {
    files: Files,
    probe: Probe,
    longest: Duration,
}

impl Load {
    /// Starts it on [`PLACE`].
    pub fn start() -> Result<Self> {
        let device = fs::canonicalize(DEVICE)?;
        let probe = Probe::start(&device.to_string_lossy())?;
        let files = Files::start(&Path::new(PLACE).join("files"))?;
        let mut load = Self { files, probe, longest: Duration::ZERO };
        load.goes_on()?;
        load.longest = Duration::ZERO;
        Ok(load)
    }

    /// Waits until more files were found right, and looks how long nothing has come back since the last call.
    pub fn goes_on(&mut self) -> Result<()> {
        let wanted = self.files.checked() + FILES_OF_A_STEP;
        wait::until("files are written and found right", PATIENCE, || {
            self.files.check()?;
            Ok(self.files.checked() >= wanted)
        })?;
        let gap = self.probe.longest_gap();
        self.probe.open_window();
        self.longest = self.longest.max(gap);
        ensure!(gap < LONGEST_GAP, "nothing came back from the volume for {gap:?}");
        Ok(())
    }

    /// Stops. An error when anything was wrong; the facts say how much there was.
    pub fn stop(self, context: &mut Context) -> Result<()> {
        context.fact("longest_gap_ms", self.longest.as_millis() as u64);
        context.fact("files_checked", self.files.stop()?.checked);
        context.fact("reads", self.probe.stop()?);
        Ok(())
    }
}
