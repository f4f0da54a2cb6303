// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The tests that need no guest.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

use super::{failpoints, fuzzing, interrupted, packages, Verdict};
use crate::command_line::CommandLine;
use crate::kbuild::{self, Mode};
use crate::sysroot::Sysroot;
use crate::{fleet, host, modules, places, product};

/// Folders with files that Cargo does not format, because they are in no package of the workspace.
const BESIDE_THE_WORKSPACE: &[&str] =
    &["atom", "payload", "fuzz", "tests/failpoint", "tests/modules"];

/// Seconds for which each fuzz target runs.
const FUZZ_SECONDS: u32 = 10;

/// A gate: its name and the command that must succeed.
fn commands() -> Vec<(&'static str, CommandLine)> {
    let cargo = || {
        CommandLine::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
            .dir(&places::repository())
    };
    let mut gates = vec![
        ("host tests", cargo().args(["test", "--quiet", "--workspace"])),
        ("format of the host side", cargo().args(["fmt", "--all", "--check"])),
        (
            "clippy on the host side",
            cargo().args([
                "clippy",
                "--quiet",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ]),
        ),
    ];
    // What the fuzzers share; they themselves are built with flags of their own.
    let fuzz_crate = cargo()
        .args(["test", "--quiet", "--lib", "--manifest-path", "fuzz/Cargo.toml", "--target-dir"])
        .arg(places::target());
    gates.push(("host tests of the fuzz crate", fuzz_crate));
    let model_check = cargo()
        .args(["test", "--quiet", "--package", "atom-core", "--release", "--test", "loom"])
        .arg("--target-dir")
        .arg(places::target().join("loom"))
        // The checker's atomics are in structures that cross to C, and nothing crosses there.
        .env("RUSTFLAGS", "--cfg loom -A improper_ctypes");
    gates.push(("model check", model_check));
    let kernel_files: Vec<PathBuf> = BESIDE_THE_WORKSPACE
        .iter()
        .flat_map(|dir| rust_files(&places::repository().join(dir)))
        .collect();
    if !kernel_files.is_empty() && host::find("rustfmt").is_some() {
        let rustfmt = CommandLine::new("rustfmt")
            .args(["--check", "--edition", "2021", "--config", "skip_children=true"])
            .args(kernel_files)
            .dir(&places::repository());
        gates.push(("format of the kernel side", rustfmt));
    }
    gates
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Runs the gates that only need Cargo.
pub fn host_side(wanted: impl Fn(&str) -> bool, mut report: impl FnMut(Verdict)) -> Result<()> {
    for (name, command) in commands() {
        if !wanted(name) {
            continue;
        }
        eprintln!("{name} ...");
        report(verdict(name, || {
            // Standard output is for our own result.
            let output = command.expression().stdout_to_stderr().unchecked().run()?;
            anyhow::ensure!(output.status.success(), "this command failed: {command}");
            Ok(())
        }));
    }
    let name = "fuzzing";
    if wanted(name) {
        let mut facts = serde_json::Map::new();
        let fuzzed = verdict(name, || {
            fuzzing::build()?;
            for (target, figures) in fuzzing::run_all(FUZZ_SECONDS)? {
                facts.insert(format!("{target}_executions"), figures.executions.into());
                facts.insert(format!("{target}_edges_covered"), figures.covered.into());
            }
            Ok(())
        });
        report(Verdict { facts, ..fuzzed });
    }
    Ok(())
}

/// Runs what needs the sysroot: clippy on the kernel modules, and packages of them.
pub fn kernel_side(
    sysroot: &Sysroot,
    wanted: impl Fn(&str) -> bool,
    mut report: impl FnMut(Verdict),
) -> Result<()> {
    let name = "clippy on the kernel side";
    let specs = modules::of(sysroot)?;
    if wanted(name) && !specs.is_empty() {
        report(verdict(name, || kbuild::build(&specs, sysroot, Mode::Clippy).map(|_| ())));
    }
    let name = "releases have no failpoints";
    if wanted(name) && !specs.is_empty() {
        report(verdict(name, || {
            product::build(sysroot)?;
            failpoints::check(sysroot)
        }));
    }
    let name = "packages say what they need and install where nothing runs";
    if wanted(name) && !specs.is_empty() {
        report(verdict(name, || packages::check(sysroot)));
    }
    Ok(())
}

/// Runs the tests of the Ansible collection: its parts, and its playbooks over a fleet of fake nodes; and `cargo xtask fleet`
/// over the same.
pub fn collection(
    sysroot: &Sysroot,
    wanted: impl Fn(&str) -> bool,
    mut report: impl FnMut(Verdict),
) {
    let name = "fleet that is interrupted";
    if wanted(name) {
        eprintln!("{name} ...");
        report(verdict(name, || interrupted::check(sysroot)));
    }
    let name = "fleet collection";
    if !wanted(name) {
        return;
    }
    eprintln!("{name} ...");
    let tests = "/mnt/collections/ansible_collections/atom/fleet/tests/unit";
    let command = sysroot
        .chroot()
        .bind(&fleet::collections(), "collections/ansible_collections")
        .command("python3")
        .args(["-m", "unittest", "discover", "--start-directory", tests])
        .env("PYTHONPATH", "/mnt/collections")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("TMPDIR", "/mnt");
    report(verdict(name, || {
        anyhow::ensure!(command.passes()?, "this command failed: {command}");
        Ok(())
    }));
}

fn verdict(name: &str, body: impl FnOnce() -> Result<()>) -> Verdict {
    let started = Instant::now();
    let result = body();
    Verdict {
        name: name.to_owned(),
        passed: result.is_ok(),
        seconds: started.elapsed().as_secs_f64(),
        why: result.err().map(|error| format!("{error:#}")),
        facts: serde_json::Map::new(),
    }
}
