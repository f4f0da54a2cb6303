// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a scenario is given.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::guest::command_line::CommandLine;
use crate::{patience, power};

/// The fact with what was measured and not judged, because it is a time and the kernel a debug kernel.
pub const NOT_JUDGED: &str = "not_judged";

/// The guest as a scenario sees it, and the notes that it takes.
pub struct Context {
    command_line: CommandLine,
    facts: Map<String, Value>,
}

impl Context {
    /// A context for the guest that we run in.
    pub(super) fn new() -> Result<Self> {
        Ok(Self { command_line: CommandLine::read()?, facts: Map::new() })
    }

    pub(super) fn into_facts(self) -> Map<String, Value> {
        self.facts
    }

    /// What the host put on the kernel's command line for us.
    pub fn command_line(&self) -> &CommandLine {
        &self.command_line
    }

    /// Makes sure that something took no longer than this. On a debug kernel, where the length says nothing, it is noted as
    /// not judged.
    pub fn ensure_within(&mut self, what: &str, took: Duration, limit: Duration) -> Result<()> {
        if patience::factor() == 1 {
            anyhow::ensure!(took <= limit, "{what} took {took:?}, more than {limit:?}");
            return Ok(());
        }
        let list = self.facts.entry(NOT_JUDGED).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(format!("{what}: {took:?}").into());
        }
        Ok(())
    }

    /// Tells the host what the scenario is about to do: the last step names the place of a hang.
    pub fn step(&self, what: &str) {
        eprintln!("step: {what}");
    }

    /// Records something that was measured.
    pub fn fact(&mut self, name: &str, value: impl Serialize) {
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        self.facts.insert(name.to_owned(), value);
    }

    /// Which boot of this machine it is, from 0 on.
    pub fn boot(&self) -> Result<u32> {
        self.command_line.value("boot").unwrap_or("0").parse().context("which boot is it?")
    }

    /// Whether no other boot follows.
    pub fn is_last_boot(&self) -> bool {
        self.command_line.value("last").is_some()
    }

    /// Whether there is time for many rounds (`--slow`).
    pub fn is_slow(&self) -> bool {
        self.command_line.value("slow").is_some()
    }

    /// Tells the host something that the next boot will have to know.
    pub fn note(&self, text: &str) {
        println!("{}{text}", power::NOTE);
    }

    /// Runs a program that must succeed and returns what it printed.
    pub fn run(&self, argv: &[&str]) -> Result<String> {
        let (program, args) = argv.split_first().context("an empty command")?;
        let output = Command::new(program)
            .args(args)
            .output()
            .with_context(|| format!("cannot start {program}"))?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        anyhow::ensure!(
            output.status.success(),
            "`{}` failed ({}): {}{}",
            argv.join(" "),
            output.status,
            stdout,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(stdout)
    }
}
