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
    /// A feature of the package, without which the others are built.
    feature: Option<&'static str>,
    manifest: &'static str,
}

/// The node tool with its failpoints, for tests.
pub const TOOL_WITH_FAILPOINTS: &str = "atomctl-failpoints";

const PROGRAMS: &[Program] = &[
    Program {
        package: "atom-tests",
        name: "atom-guest",
        feature: None,
        manifest: "tests/Cargo.toml",
    },
    Program {
        package: "atomctl",
        name: "atomctl",
        feature: None,
        manifest: "xtask/ctl/Cargo.toml",
    },
    Program {
        package: "atomctl",
        name: TOOL_WITH_FAILPOINTS,
        feature: Some("failpoints"),
        manifest: "xtask/ctl/Cargo.toml",
    },
];

/// The file of a program that was built.
pub fn path(name: &str) -> PathBuf {
    places::target().join(TRIPLE).join("release").join(name)
}

/// Builds all that this clone has and returns their files.
pub fn build() -> Result<Vec<PathBuf>> {
    let programs: Vec<_> =
        PROGRAMS.iter().filter(|p| places::repository().join(p.manifest).exists()).collect();
    let step = Step::start(
        "build the programs for guests and nodes",
        &places::target().join("logs/programs.log"),
    )?;
    // A feature of one would be one of all that are built together.
    for feature in [None, Some("failpoints")] {
        let mut command = CommandLine::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
            .args(["build", "--release", "--target", TRIPLE])
            .args(feature.map(|feature| format!("--features={feature}")))
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .dir(&places::repository());
        for program in programs.iter().filter(|program| program.feature == feature) {
            command = command.args(["--package", program.package, "--bin", program.name]);
        }
        step.run(&command)?;
    }
    step.done();
    Ok(programs.iter().map(|p| path(p.name)).collect())
}
