// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask fleet` over the collection's fake nodes, interrupted as from a terminal: the node in its turn comes to its
//! end, the report is there, and the same command goes on.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;
use serde_json::{json, Value};

use crate::fleet::collections;
use crate::fleet::report::Report;
use crate::places;
use crate::sysroot::Sysroot;

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const OLD: &str = "2.0.0";
const NEW: &str = "2.1.0";
/// Seconds that the upgrade of the node takes in whose turn the interrupt comes.
const TURN: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(180);
const GLANCE: Duration = Duration::from_millis(50);
/// The folder of the fake nodes' parts, below the collections.
const FAKE: &str = "atom/fleet/tests/fake";

/// Interrupts a rollout in the turn of the second of three nodes, and lets another run go on.
pub fn check(sysroot: &Sysroot) -> Result<()> {
    let fleet = Fleet::make(sysroot)?;
    let mut run = fleet.start()?;
    let group = Pid::from_raw(run.id().try_into()?);
    let result = fleet.await_turn(NODES[1], &mut run).and_then(|()| {
        killpg(group, Signal::SIGINT)?;
        Ok(())
    });
    if result.is_err() {
        // What it waits for is not known, so it is not waited for.
        let _ = killpg(group, Signal::SIGKILL);
    }
    let output = run.wait_with_output()?;
    result.and_then(|()| fleet.judge(&output)).with_context(|| said(&output))?;
    let output = fleet.start()?.wait_with_output()?;
    fleet.is_complete(&output).with_context(|| said(&output))
}

struct Fleet<'a> {
    sysroot: &'a Sysroot,
    folder: PathBuf,
}

impl<'a> Fleet<'a> {
    /// Nodes that serve the old payload and have the new one installed.
    fn make(sysroot: &'a Sysroot) -> Result<Self> {
        let folder = places::target().join("fleet/interrupted");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        let mut inventory = String::new();
        for name in NODES {
            let node = folder.join(name);
            std::fs::create_dir_all(&node)?;
            std::fs::copy(collections().join(FAKE).join("atomctl"), node.join("atomctl"))?;
            let slow = if name == NODES[1] { TURN } else { 0 };
            let state = json!({"live": OLD, "place": "live", "parked": [], "faults": [], "installed": [OLD, NEW],
                               "slow": slow});
            std::fs::write(node.join("state.json"), state.to_string())?;
            let seen = format!("{{{{ inventory_dir }}}}/{name}");
            inventory.push_str(&format!(
                "{name} atom_fleet_atomctl=\"{seen}/atomctl\" atom_fake_folder=\"{seen}\"\n"
            ));
        }
        inventory.push_str(
            "[all:vars]\nansible_connection=dying\nansible_python_interpreter=/usr/bin/python3\n",
        );
        std::fs::write(folder.join("inventory"), inventory)?;
        Ok(Self { sysroot, folder })
    }

    fn report_file(&self) -> PathBuf {
        self.folder.join("report.json")
    }

    /// Starts the rollout, one node at a time, in a process group of its own, as a shell does.
    fn start(&self) -> Result<Child> {
        let plugins = Path::new(FAKE).join("connection_plugins");
        // As this machine's Ansible sees them, and the sysroot's.
        let plugins = format!(
            "{}:/mnt/collections/ansible_collections/{}",
            collections().join(&plugins).display(),
            plugins.display()
        );
        Command::new(std::env::current_exe()?)
            .args(["fleet", "--suite", self.sysroot.suite().name])
            .args(["upgrade", "--version", NEW, "--batches", "1", "--retries", "0", "--json"])
            .arg("--inventory")
            .arg(self.folder.join("inventory"))
            .arg("--report")
            .arg(self.report_file())
            .env("ANSIBLE_CONNECTION_PLUGINS", plugins)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start cargo xtask fleet")
    }

    /// Waits until a node was told to upgrade.
    fn await_turn(&self, name: &str, run: &mut Child) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !self.folder.join(name).join("calls").exists() {
            ensure!(run.try_wait()?.is_none(), "it ended before the turn of {name}");
            ensure!(Instant::now() < until, "the turn of {name} did not come");
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// What holds after the interrupt.
    fn judge(&self, output: &Output) -> Result<()> {
        let report = self.report(output, 1)?;
        let states = NODES.map(|name| report.state(name).to_owned());
        ensure!(states == ["upgraded", "upgraded", "not-reached"], "{states:?}");
        ensure!(!self.folder.join(NODES[2]).join("calls").exists(), "a node was touched after it");
        let record = std::fs::read_to_string(self.folder.join("atom-rollout.json"))?;
        let record: Value = serde_json::from_str(&record)?;
        for (name, touched) in NODES.iter().zip([true, true, false]) {
            ensure!(record["nodes"][name]["touched"] == touched, "{name}: {record}");
        }
        self.serve([NEW, NEW, OLD])
    }

    fn is_complete(&self, output: &Output) -> Result<()> {
        let report = self.report(output, 0)?;
        ensure!(NODES.iter().all(|name| report.state(name) == "upgraded"), "not all are upgraded");
        self.serve([NEW; 3])
    }

    /// The report, which is printed and in the file as well, and tells how the process has ended.
    fn report(&self, output: &Output, code: i32) -> Result<Report> {
        ensure!(output.status.code() == Some(code), "it ended with {}", output.status);
        let printed = String::from_utf8_lossy(&output.stdout);
        let written = std::fs::read_to_string(self.report_file()).context("no report")?;
        ensure!(printed == written, "the file has another report than what was printed");
        let report = Report::parse(&printed)?;
        ensure!(i32::from(report.exit_code()) == code, "the report has another exit code");
        Ok(report)
    }

    fn serve(&self, versions: [&str; 3]) -> Result<()> {
        for (name, version) in NODES.iter().zip(versions) {
            let state = std::fs::read_to_string(self.folder.join(name).join("state.json"))?;
            let state: Value = serde_json::from_str(&state)?;
            if state["live"] != version {
                bail!("{name} serves {} and not {version}", state["live"]);
            }
        }
        Ok(())
    }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("it said:\n{}{}", text(&output.stdout), text(&output.stderr))
}
