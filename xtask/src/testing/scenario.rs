// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A scenario in a guest of its own.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use atom_tests::kernel_log;
use atom_tests::scenarios::{Description, Outcome};

use super::Verdict;
use crate::command_line::CommandLine;
use crate::programs;
use crate::sysroot::Sysroot;
use crate::vm::initramfs::Initramfs;
use crate::vm::link::Stream;
use crate::vm::{Vm, VmConfig};

/// The scenarios that the guest's program knows; asked of the very program that goes into the guest.
pub fn all() -> Result<Vec<Description>> {
    let text = CommandLine::new(programs::path("atom-guest")).arg("scenarios").read()?;
    serde_json::from_str(&text).context("the list of scenarios cannot be read")
}

/// Boots a guest, runs the scenario, and judges its outcome and the kernel's log.
pub fn run(sysroot: &Sysroot, initramfs: &Initramfs, scenario: &Description) -> Verdict {
    let started = Instant::now();
    let mut steps = Vec::new();
    let result = attempt(sysroot, initramfs, scenario, &mut steps);
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

fn attempt(
    sysroot: &Sysroot,
    initramfs: &Initramfs,
    scenario: &Description,
    steps: &mut Vec<String>,
) -> Result<Outcome> {
    let config = VmConfig {
        memory_mib: scenario.memory_mib,
        vcpus: scenario.vcpus,
        disks_mib: scenario.disks_mib.clone(),
        ..VmConfig::named(&scenario.name)
    };
    let vm = Vm::boot(sysroot, initramfs, &config)?;
    let mut document = String::new();
    let code = vm.exec(
        &["/init", "scenario", &scenario.name],
        Duration::from_secs(scenario.limit_seconds),
        |stream, line| match stream {
            Stream::Stdout => document = line.to_owned(),
            Stream::Stderr => steps.push(line.to_owned()),
        },
    )?;
    let mut outcome: Outcome = serde_json::from_str(&document).with_context(|| {
        format!("the scenario exited with {code} and left no result, but `{document}`")
    })?;
    let log = vm.kernel_log()?;
    std::fs::write(vm.dir().join("kernel.log"), &log)?;
    let findings = kernel_log::scan(&log, &scenario.expected_log);
    let dir = vm.dir().to_owned();
    vm.poweroff()?;
    // The disks may be large, and nobody looks at them after a pass.
    if !findings.is_empty() {
        let mut text = outcome.error.take().unwrap_or_default();
        text.push_str("\nthe kernel's log has lines that must not be there:");
        for finding in findings.iter().take(20) {
            text.push_str(&format!("\n  {}: {} ({})", finding.line, finding.text, finding.meaning));
        }
        text.push_str(&format!("\nread kernel.log in {}", dir.display()));
        outcome.error = Some(text);
    }
    if outcome.passed && code != 0 && outcome.error.is_none() {
        outcome.error = Some(format!("the scenario says that it passed, and exited with {code}"));
    }
    if !outcome.passed && outcome.error.is_none() {
        outcome.error = Some("the scenario failed without saying why".to_owned());
    }
    Ok(outcome)
}
