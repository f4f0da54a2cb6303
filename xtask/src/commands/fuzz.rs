// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask fuzz`: what reads hostile bytes, with inputs that seek what was not covered yet.

use anyhow::Result;

use crate::problem::refused;
use crate::testing::fuzzing;

/// Fuzzes all targets, or one of them, and prints executions and covered edges.
#[derive(clap::Args)]
pub struct Args {
    /// One of image, state, command, module-file, stamp.
    target: Option<String>,
    /// Seconds for each target.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

pub fn run(args: &Args) -> Result<()> {
    let wanted = |name: &&str| args.target.as_deref().is_none_or(|target| target == *name);
    let targets: Vec<&str> = fuzzing::names().filter(wanted).collect();
    if targets.is_empty() {
        return Err(refused(
            format!("there is no target {}", args.target.as_deref().unwrap_or_default()),
            "the targets are those of the fuzz crate",
            format!("use one of {}", fuzzing::names().collect::<Vec<_>>().join(", ")),
        ));
    }
    fuzzing::build()?;
    for target in targets {
        let figures = fuzzing::run(target, args.seconds)?;
        println!(
            "{target}: {} executions, {} of {} edges covered",
            figures.executions, figures.covered, figures.edges
        );
    }
    Ok(())
}
