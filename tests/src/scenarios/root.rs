// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The root file system lies on an Atom device, with the tool, the modules, the shell and the first process on it.
//!
//! Each scenario has two halves. This one stays in memory: it makes the root file system, moves the first process
//! there, watches the other half, and takes everything down. The other one ([`inside`]) is executed from the Atom
//! device and drives `atomctl`, which is executed from there as well, with all caches dropped and under memory
//! pressure. A tool that needed its own disk in the pause would never come back; then this half says where everybody
//! waits.

pub mod inside;
mod locked_folder;

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use serde_json::{Map, Value};

use super::Context;
use crate::guest::moving::PROGRAM;
use crate::new_root::NewRoot;
use crate::pressure::Pressure;
use crate::site::{Site, Spec};
use crate::wait;
use inside::Part;

/// Size of the root file system.
const MIB: u64 = 256;
/// How long the other half may take.
const OTHER_HALF: Duration = Duration::from_secs(400);

pub fn the_root_file_system_outlives_warm_upgrades(context: &mut Context) -> Result<()> {
    on_the_root(context, "1.0.0", Part::Warm)
}

pub fn the_root_file_system_outlives_cold_upgrades(context: &mut Context) -> Result<()> {
    on_the_root(context, "1.0.0", Part::Cold)
}

pub fn the_root_file_system_outlives_rollbacks(context: &mut Context) -> Result<()> {
    on_the_root(context, "1.0.0", Part::Rollback)
}

pub fn the_root_file_system_outlives_a_forced_abort(context: &mut Context) -> Result<()> {
    on_the_root(context, "stuck", Part::Abort)
}

fn on_the_root(context: &mut Context, version: &str, part: Part) -> Result<()> {
    let site = Site::on_guest(version)?;
    let device = site.volume("root", Spec::ram(MIB))?;
    Pressure::prepare()?;
    context.step("a root file system, to which the first process moves");
    let root = NewRoot::make(&device)?;
    context.step("the other half begins");
    let pressure = Pressure::start()?;
    let facts = other_half(&root, part, &device)?;
    let done = pressure.stop()?;
    ensure!(done.pages_taken > 0, "nothing was taken from the tool");
    // A warm pause is shorter than the time between two looks.
    let long_pauses = matches!(part, Part::Cold | Part::Abort);
    ensure!(!long_pauses || done.rounds_in_pauses > 0, "there was no pressure in the pauses");
    context.fact("pages_taken_from_the_tool", done.pages_taken);
    context.fact("rounds_of_pressure_in_pauses", done.rounds_in_pauses);
    for (name, value) in facts {
        context.fact(&name, value);
    }
    context.step("the first process moves back");
    root.leave()?;
    site.leave()
}

fn other_half(root: &NewRoot, part: Part, device: &str) -> Result<Map<String, Value>> {
    let mut child = root
        .command(PROGRAM)
        .args(["on-root", part.name(), device])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("cannot start the other half")?;
    let ended = wait::until("the other half ends", OTHER_HALF, || Ok(child.try_wait()?.is_some()));
    if let Err(error) = ended {
        // It is left as it is: what waits for a disk cannot be killed.
        bail!("{error:#}; waiting: {}", who_waits()?);
    }
    let status = child.wait()?;
    ensure!(status.success(), "the other half failed ({status}); what it said stands above");
    let mut said = String::new();
    child.stdout.take().context("no standard output")?.read_to_string(&mut said)?;
    serde_json::from_str(&said).with_context(|| format!("the other half said {said:?}"))
}

/// Every task that waits without being interruptible, and all of the tool's, with where in the kernel.
fn who_waits() -> Result<String> {
    let mut text = String::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let Ok(tasks) = fs::read_dir(process.path().join("task")) else { continue };
        for task in tasks.flatten() {
            let read = |name: &str| read_or_nothing(&task.path().join(name));
            let (name, stat) = (read("comm"), read("stat"));
            let waits = stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('D'));
            if waits || name.trim() == "atomctl" {
                let stack = read("stack");
                let stack: Vec<&str> = stack.lines().take(12).map(str::trim).collect();
                text.push_str(&format!("\n{}: {}", name.trim(), stack.join(" ")));
            }
        }
    }
    Ok(text)
}

/// A task may be gone by the time it is read.
fn read_or_nothing(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
