// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The guest's one program of ours: its first process, its agent, and the runner of scenarios.

use std::process::ExitCode;

use anyhow::{bail, Result};
use atom_tests::guest::{agent, init, kmsg};
use atom_tests::scenarios;

const USAGE: &str = "usage: atom-guest scenarios | scenario NAME | kernel-log";

fn main() -> ExitCode {
    if nix::unistd::getpid().as_raw() == 1 {
        init::run()
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("atom-guest: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Does what the arguments say and tells whether it went well.
fn run() -> Result<bool> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["agent"] => match agent::run()? {},
        ["kernel-log"] => print!("{}", kmsg::read()?),
        ["scenarios"] => {
            let all: Vec<_> = scenarios::ALL.iter().map(|s| s.describe()).collect();
            println!("{}", serde_json::to_string(&all)?);
        }
        ["scenario", name] => {
            let outcome = scenarios::named(name)?.run();
            println!("{}", serde_json::to_string(&outcome)?);
            return Ok(outcome.passed);
        }
        _ => bail!(USAGE),
    }
    Ok(true)
}
