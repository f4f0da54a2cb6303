// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A node that is rebooted, as an operator would do it, while an upgrade is under way: what is written is on the disk, the file
//! systems are unmounted, and the next boot brings up a payload and knows what became of the upgrade.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{anyhow, ensure, Context as _, Result};
use atom_abi::lifecycle::Place;
use atomctl::control::Control;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::Value;

use super::node::{ON_CONSOLE, STOPS_IN_ORDER};
use super::Context;
use crate::guest::kmsg;
use crate::guest::node::CONSOLE_BEFORE;
use crate::packaged::{
    configure, fstab, live, make_file_system, over_disks, rpm, run_saying, start, until_up,
    volumes, Load, DEVICE, PLACE,
};
use crate::{console, wait};

const PATIENCE: Duration = Duration::from_secs(60);
const VERSIONS: [&str; 2] = ["2.0.0", "2.1.0"];
/// A file of the boot before, which nobody has synced.
const FILE: &str = "/srv/file";
/// Cold upgrades that are tried until one is met while nobody serves.
const TRIES: u32 = 5;

/// Where an upgrade is when the node goes down.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The new payload is loaded and has not taken over.
    Loaded,
    /// Nobody serves and I/O is held; the tool that is to go on stands still.
    Held,
    /// The new payload serves on trial, and the tool watches it.
    Watched,
    /// The same, and the tool is gone.
    OnTrial,
}

const PHASES: [Phase; 4] = [Phase::Loaded, Phase::Held, Phase::Watched, Phase::OnTrial];

/// A boot for each phase, and one more.
pub fn a_node_that_is_rebooted_in_any_phase_of_an_upgrade_comes_back(
    context: &mut Context,
) -> Result<()> {
    until_up()?;
    let boot = context.boot()? as usize;
    match boot.checked_sub(1).and_then(|before| PHASES.get(before)) {
        None => install(context)?,
        Some(phase) => came_back(context, *phase)?,
    }
    let from = live()?;
    let to = VERSIONS.into_iter().find(|version| *version != from).context("no other version")?;
    fs::write(FILE, format!("boot {boot} of {from}"))?;
    if let Some(phase) = PHASES.get(boot).filter(|_| !context.is_last_boot()) {
        context.step(&format!("down, {phase:?}"));
        return enter(context, *phase, to);
    }
    context.step("an upgrade that comes to its end");
    let mut load = Load::start()?;
    context.run(&["atomctl", "upgrade", to])?;
    ensure!(live()? == to, "{} serves", live()?);
    load.goes_on()?;
    load.stop(context)
}

/// Both payloads, of which 2.0.0 is committed, and a file system on a volume.
fn install(context: &Context) -> Result<()> {
    let folder = "/etc/systemd/system/atom-volumes.service.d";
    fs::create_dir_all(folder)?;
    fs::write(format!("{folder}/console.conf"), ON_CONSOLE)?;
    let (atom, tools) = (rpm("kmod-atom", "*", "1")?, rpm("atom-tools", "*", "1")?);
    let [old, new] = VERSIONS.map(|version| rpm("kmod-atom-payload", version, "1"));
    run_saying("rpm", &["-i", &atom, &tools, &old?], "")?;
    configure("[packages]\nsoak = \"1s\"\n")?;
    volumes(&over_disks())?;
    start(&["atom.service", "atom-volumes.service"])?;
    make_file_system(context)?;
    fstab(&format!("{DEVICE} {PLACE} ext4 defaults 0 2"))?;
    let install = ["ATOM_PACKAGE_UPGRADE=off", "rpm", "-i", &new?];
    run_saying("env", &install, "ATOM_PACKAGE_UPGRADE")
}

/// Brings an upgrade to a phase, and leaves it there.
fn enter(context: &Context, phase: Phase, to: &str) -> Result<()> {
    match phase {
        Phase::Loaded => {
            let file =
                context.run(&["modinfo", "-n", &format!("payload_{}", to.replace('.', "_"))])?;
            context.run(&["atomctl", "load", file.trim()]).map(drop)
        }
        Phase::Held => {
            for _ in 0..TRIES {
                let to = if live()? == VERSIONS[0] { VERSIONS[1] } else { VERSIONS[0] };
                let mut tool = spawn(&["upgrade", "--cold", to])?;
                if stop_while_held(&mut tool)? {
                    return Ok(());
                }
                ensure!(tool.wait()?.success(), "the upgrade failed");
            }
            Err(anyhow!("{TRIES} cold upgrades were over before they could be stopped"))
        }
        Phase::Watched | Phase::OnTrial => {
            let mut tool = spawn(&["upgrade", "--soak", "600s", to])?;
            let control = Control::open()?;
            wait::until("the new payload is on trial", PATIENCE, || {
                ensure!(tool.try_wait()?.is_none(), "the upgrade has ended");
                Ok(control.status()?.soak_left_ns != 0)
            })?;
            if matches!(phase, Phase::OnTrial) {
                tool.kill()?;
                tool.wait()?;
            }
            Ok(())
        }
    }
}

/// A tool of which nobody reads what it says, and which outlives this process.
fn spawn(args: &[&str]) -> Result<Child> {
    let mut command = Command::new("setsid");
    command.arg("atomctl").args(args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("atomctl does not start")
}

/// Stops a cold upgrade while nobody serves. False when it was over before.
fn stop_while_held(tool: &mut Child) -> Result<bool> {
    let control = Control::open()?;
    let process = Pid::from_raw(i32::try_from(tool.id())?);
    let held = || -> Result<bool> { Ok(control.status()?.place == Place::Held.code()) };
    // No sleep: it lasts a part of a second.
    while tool.try_wait()?.is_none() {
        if held()? {
            kill(process, Signal::SIGSTOP)?;
            break;
        }
    }
    if tool.try_wait()?.is_some() {
        return Ok(false);
    }
    let file = format!("/proc/{process}/stat");
    wait::until("the tool stands still", PATIENCE, || {
        let text = fs::read_to_string(&file)?;
        let (_, rest) = text.rsplit_once(") ").context("no state")?;
        Ok(rest.starts_with('T') || rest.starts_with('Z'))
    })?;
    if held()? {
        return Ok(true);
    }
    kill(process, Signal::SIGCONT)?;
    Ok(false)
}

/// What must hold after the node went down in a phase.
fn came_back(context: &mut Context, phase: Phase) -> Result<()> {
    context.step(&format!("up again, after it went down {phase:?}"));
    let text = fs::read_to_string(FILE).with_context(|| format!("{FILE} was not kept"))?;
    let boot = context.boot()?.saturating_sub(1);
    let before = text.strip_prefix(&format!("boot {boot} of "));
    let before = before.with_context(|| format!("{FILE} has {text:?}"))?;
    let log = kmsg::read()?;
    ensure!(!log.contains("recovery complete"), "a file system was not unmounted: {log}");
    let console = fs::read_to_string(CONSOLE_BEFORE).context("no console of the boot before")?;
    let end = console.find("Stopping ").map_or("", |at| &console[at..]);
    console::has_in_order(end, STOPS_IN_ORDER).map_err(|why| anyhow!("{why}; it said: {end}"))?;
    let complaints = console::complaints(&console);
    ensure!(complaints.is_empty(), "{complaints:?}");

    let serves = live()?;
    let journal: Value = serde_json::from_str(&context.run(&["atomctl", "--json", "history"])?)?;
    ensure!(journal["damaged"] == 0, "{journal}");
    let attempts = journal["attempts"].as_array().context("no attempts")?;
    let open: Vec<_> = attempts.iter().filter(|one| one["state"] == "interrupted").collect();
    ensure!(open.is_empty(), "nobody found out what became of {open:?}");
    // What was on trial was not committed, and what had only been loaded even less.
    let may = matches!(phase, Phase::Held) || serves == before;
    ensure!(may, "{serves} serves, and {before} was committed last");
    context.fact(&format!("after_{phase:?}").to_lowercase(), serves);
    let status = Control::open()?.status()?;
    ensure!(status.payloads == 1 && status.soak_left_ns == 0, "it is not at rest: {status:?}");
    context.run(&["atomctl", "verify"]).map(drop)
}
