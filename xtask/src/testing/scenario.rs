// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A scenario in a guest of its own, which may be booted several times, and cut off in between.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use atom_tests::guest::node::CONSOLE_BEFORE;
use atom_tests::power::Wish;
use atom_tests::random::{self, Random};
use atom_tests::scenarios::{Description, Outcome, Power, Tools};
use atom_tests::{console, kernel_log, power};

use super::cuts::{Cut, Cuts, PowerSwitch};
use super::Verdict;
use crate::command_line::CommandLine;
use crate::kernel::flavour::Flavour;
use crate::sysroot::Sysroot;
use crate::vm::initramfs::{Initramfs, SEED};
use crate::vm::link::Stream;
use crate::vm::{qemu, Vm, VmConfig};
use crate::{places, programs};

/// The scenarios that the guest's program knows; asked of the very program that goes into the guest.
pub fn all() -> Result<Vec<Description>> {
    let text = CommandLine::new(programs::path("atom-guest")).arg("scenarios").read()?;
    serde_json::from_str(&text).context("the list of scenarios cannot be read")
}

/// Boots a guest, runs the scenario, and judges its outcome and the kernel's log; as often as the machine is booted.
pub fn run(
    sysroot: &Sysroot,
    initramfs: &Initramfs,
    scenario: &Description,
    slow: bool,
) -> Verdict {
    let started = Instant::now();
    let mut steps = Vec::new();
    let result = all_boots(sysroot, initramfs, scenario, slow, &mut steps);
    // After a failure they may tell why.
    if result.as_ref().is_ok_and(|outcome| outcome.error.is_none()) {
        qemu::forget_disks(&scenario.name);
    }
    let (why, facts) = match result {
        Ok(outcome) => (outcome.error, outcome.facts),
        Err(error) => (Some(format!("{error:#}")), Default::default()),
    };
    Verdict {
        name: scenario.name.clone(),
        passed: why.is_none(),
        seconds: started.elapsed().as_secs_f64(),
        why: why.map(|why| match steps.as_slice() {
            [] => why,
            steps => format!("{}\n{why}", steps.join("\n")),
        }),
        facts,
    }
}

fn all_boots(
    sysroot: &Sysroot,
    initramfs: &Initramfs,
    scenario: &Description,
    slow: bool,
    steps: &mut Vec<String>,
) -> Result<Outcome> {
    let last = match scenario.power {
        Power::Stays => 0,
        Power::Cycled => 1,
        Power::Again { times, slow: more } | Power::Cut { times, slow: more } => {
            if slow {
                more
            } else {
                times
            }
        }
    };
    let seed = seed()?;
    let mut random = Random::new(seed);
    let mut notes = Vec::new();
    let mut cuts = Cuts::default();
    for number in 0..=last {
        if last > 0 {
            steps.clear();
            steps.push(format!("boot {number} of {last}, seed {seed}"));
        }
        let mut boot = Boot { sysroot, initramfs, scenario, number, last, slow, notes, steps };
        if number < last && matches!(scenario.power, Power::Cut { .. }) {
            let (cut, theirs) = boot.cut(Random::new(random.number()))?;
            cuts.add(cut);
            notes = theirs;
            continue;
        }
        let (mut outcome, theirs) = boot.run_out()?;
        if number == last || outcome.error.is_some() {
            if matches!(scenario.power, Power::Cut { .. }) {
                cuts.judge(&mut outcome);
            }
            return Ok(outcome);
        }
        notes = theirs;
    }
    anyhow::bail!("there was no boot")
}

/// The seed that the person at the keyboard wants, or one that nobody has chosen.
fn seed() -> Result<u64> {
    match std::env::var(SEED) {
        Ok(text) => text.parse().with_context(|| format!("{SEED}: {text:?}")),
        Err(_) => random::seed(),
    }
}

/// One boot of a scenario's machine.
struct Boot<'a> {
    sysroot: &'a Sysroot,
    initramfs: &'a Initramfs,
    scenario: &'a Description,
    number: u32,
    last: u32,
    slow: bool,
    /// What the boot before has noted.
    notes: Vec<String>,
    steps: &'a mut Vec<String>,
}

/// What a guest says on its standard output: notes, and at last a document.
#[derive(Default)]
struct Said {
    notes: Vec<String>,
    document: String,
}

impl Said {
    fn hear(&mut self, line: &str) {
        match line.strip_prefix(power::NOTE) {
            Some(note) => self.notes.push(note.to_owned()),
            None => self.document = line.to_owned(),
        }
    }
}

impl Boot<'_> {
    fn power_on(&self) -> Result<Vm> {
        let scenario = self.scenario;
        let mut cmdline = vec![format!("atom.boot={}", self.number)];
        if self.number == self.last {
            cmdline.push("atom.last".to_owned());
        }
        if self.slow {
            cmdline.push("atom.slow".to_owned());
        }
        let is_node = scenario.tools == Tools::Node;
        let own_initramfs = scenario.own_initramfs && self.number > 0;
        if own_initramfs {
            cmdline.extend(["root=/dev/atom/root", "ro"].map(str::to_owned));
        }
        if self.number > 0 && scenario.power == Power::Cycled && !is_node {
            cmdline.push("atom.systemd".to_owned());
        }
        let config = VmConfig {
            memory_mib: scenario.memory_mib,
            vcpus: scenario.vcpus,
            disks_mib: scenario.disks_mib.clone(),
            keep_disks: self.number > 0,
            will_be_cut: matches!(scenario.power, Power::Cut { .. }),
            server_mib: scenario.server_mib,
            tools: scenario.tools,
            own_initramfs,
            cmdline,
            ..VmConfig::named(&scenario.name)
        };
        let console = places::target().join("vm").join(&scenario.name).join("console.log");
        let before = (self.number > 0).then(|| std::fs::read(console)).transpose()?;
        let vm = Vm::boot(self.sysroot, self.initramfs, &config)?;
        if let Some(before) = before.filter(|_| is_node) {
            vm.put(CONSOLE_BEFORE, 0o644, &before)?;
        }
        if !self.notes.is_empty() {
            let text: String = self.notes.iter().map(|note| format!("{note}\n")).collect();
            vm.put(power::FILE, 0o644, text.as_bytes())?;
        }
        Ok(vm)
    }

    fn looks_for_leaks(&self) -> bool {
        self.sysroot.flavour() == Some(Flavour::Debug)
    }

    fn exec(&mut self, vm: &Vm, mut on_note: impl FnMut(&str)) -> (Result<i32>, Said) {
        let mut said = Said::default();
        let name = self.scenario.name.as_str();
        let limit = Duration::from_secs(self.scenario.limit_seconds);
        let code = vm.exec(&["/init", "scenario", name], limit, |stream, line| match stream {
            Stream::Stdout => {
                said.hear(line);
                on_note(line.strip_prefix(power::NOTE).unwrap_or_default());
            }
            Stream::Stderr => self.steps.push(line.to_owned()),
        });
        (code, said)
    }

    /// Boots, and cuts the power when the scenario has asked for it and chance wants it. Returns what was noted until then.
    fn cut(&mut self, random: Random) -> Result<(Cut, Vec<String>)> {
        let vm = self.power_on()?;
        let mut switch = PowerSwitch::new(&vm, random)?;
        let (code, said) = self.exec(&vm, |note| {
            if let Some(wish) = Wish::read(note) {
                switch.turn_off(wish);
            }
        });
        let cut = switch.was_turned_off()?;
        // One that came to its end has failed, also when the cut came right after it.
        let (Some(cut), Err(_)) = (cut, &code) else {
            anyhow::bail!(
                "the scenario ended before its power was cut: {code:?}, {}",
                said.document
            );
        };
        let console = vm.dir().join("console.log");
        let log = String::from_utf8_lossy(&std::fs::read(&console)?).into_owned();
        let findings = kernel_log::scan(&log, &self.scenario.expected_log);
        anyhow::ensure!(findings.is_empty(), "{}", listed(&findings, vm.dir()));
        Ok((cut, said.notes))
    }

    /// Boots, lets the scenario come to its end, judges, and turns the machine off.
    fn run_out(&mut self) -> Result<(Outcome, Vec<String>)> {
        let vm = self.power_on()?;
        let (code, said) = self.exec(&vm, |_| {});
        let code = code?;
        let document = said.document;
        let mut outcome: Outcome = serde_json::from_str(&document).with_context(|| {
            format!("the scenario exited with {code} and left no result, but `{document}`")
        })?;
        let leaks = if self.looks_for_leaks() { vm.leaks()? } else { String::new() };
        std::fs::write(vm.dir().join("kmemleak.log"), &leaks)?;
        let log = [vm.kernel_log()?, leaks].concat();
        std::fs::write(vm.dir().join("kernel.log"), &log)?;
        let findings = kernel_log::scan(&log, &self.scenario.expected_log);
        let dir = vm.dir().to_owned();
        vm.poweroff()?;
        let complaints = if self.scenario.tools == Tools::Node {
            let console = std::fs::read(dir.join("console.log"))?;
            console::complaints(&String::from_utf8_lossy(&console))
        } else {
            Vec::new()
        };
        if !complaints.is_empty() {
            let mut text = outcome.error.take().unwrap_or_default();
            text.push_str("\nthe console has lines that must not be there:\n  ");
            text.push_str(&complaints.join("\n  "));
            outcome.error = Some(text);
        }
        if !findings.is_empty() {
            let mut text = outcome.error.take().unwrap_or_default();
            text.push_str(&listed(&findings, &dir));
            outcome.error = Some(text);
        }
        if outcome.passed && code != 0 && outcome.error.is_none() {
            outcome.error =
                Some(format!("the scenario says that it passed, and exited with {code}"));
        }
        if !outcome.passed && outcome.error.is_none() {
            outcome.error = Some("the scenario failed without saying why".to_owned());
        }
        Ok((outcome, said.notes))
    }
}

fn listed(findings: &[kernel_log::Finding], dir: &Path) -> String {
    let mut text = "\nthe kernel's log has lines that must not be there:".to_owned();
    for finding in findings.iter().take(20) {
        text.push_str(&format!("\n  {}: {} ({})", finding.line, finding.text, finding.meaning));
    }
    text.push_str(&format!("\nread kernel.log or console.log in {}", dir.display()));
    text
}
