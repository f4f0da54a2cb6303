// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The programs that run in a guest or on a node. They are linked statically, so that neither the glibc of the host
//! that builds them nor that of the machine that runs them matters.

use std::path::PathBuf;

use anyhow::Result;

use crate::command_line::CommandLine;
use crate::places;
use crate::progress::Step;

/// What they are compiled for.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// A program: its package and its name.
#[derive(Clone, Copy, Debug)]
struct Program {
    package: &'static str,
    name: &'static str,
    manifest: &'static str,
}

const PROGRAMS: &[Program] = &[
    Program { package: "atom-tests", name: "atom-guest", manifest: "tests/Cargo.toml" },
    Program { package: "atomctl", name: "atomctl", manifest: "xtask/ctl/Cargo.toml" },
];

/// The file of a program that was built.
pub fn path(name: &str) -> PathBuf {
    places::target().join(TRIPLE).join("release").join(name)
}

/// Builds all that this clone has and returns their files.
pub fn build() -> Result<Vec<PathBuf>> {
    let programs: Vec<_> =
        PROGRAMS.iter().filter(|p| places::repository().join(p.manifest).exists()).collect();
    let mut command = CommandLine::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["build", "--release", "--target", TRIPLE])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .dir(&places::repository());
    for program in &programs {
        command = command.args(["--package", program.package, "--bin", program.name]);
    }
    let step = Step::start(
        "build the programs for guests and nodes",
        &places::target().join("logs/programs.log"),
    )?;
    step.run(&command)?;
    step.done();
    Ok(programs.iter().map(|p| path(p.name)).collect())
}
