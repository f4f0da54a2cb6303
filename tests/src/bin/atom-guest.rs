// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The guest's one program of ours: its first process, its agent, and the runner of scenarios.

use std::process::ExitCode;

use anyhow::{bail, Context as _, Result};
use atom_tests::guest::{agent, init, kmsg};
use atom_tests::{bench, demo, greedy, hang, leaks, load, matrix, scenarios, soak};

const USAGE: &str =
    "usage: atom-guest scenarios | scenario NAME | upgrade MODULES ATOMCTL | bench SUITE quick|thorough|counted SETUP | load DEVICE FOLDER STOP | matrix points|CELLS | soak begin WANTED | soak run | soak look KNOWN | kernel-log | leaks | hang";

fn main() -> ExitCode {
    if nix::unistd::getpid().as_raw() == 1 {
        init::run()
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("atom-guest: {error:#}");
            ExitCode::FAILURE
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
        ["leaks"] => print!("{}", leaks::find()?),
        ["hang"] => print!("{}", hang::describe()),
        ["scenarios"] => {
            let all: Vec<_> = scenarios::ALL.iter().map(|s| s.describe()).collect();
            println!("{}", serde_json::to_string(&all)?);
        }
        ["scenario", name] => {
            let outcome = scenarios::named(name)?.run();
            if let Some(error) = &outcome.error {
                // Where I/O is held, our threads may never end, and the document never be read.
                eprintln!("error: {error}");
            }
            println!("{}", serde_json::to_string(&outcome)?);
            return Ok(outcome.passed);
        }
        // The half of a scenario that is executed from an Atom device.
        ["on-root", part, device] => {
            println!("{}", serde_json::to_string(&scenarios::root::inside::run(part, device)?)?);
        }
        ["bench", suite, how, only] => {
            let suite = bench::Suite::ALL.into_iter().find(|one| one.name() == *suite);
            let how = bench::How::ALL.into_iter().find(|one| one.name() == *how);
            let (suite, how) = (suite.context(USAGE)?, how.context(USAGE)?);
            let document = bench::run(bench::Wish { suite, how, only })?;
            println!("{}", serde_json::to_string(&document)?);
        }
        // The load of a node that is operated from outside.
        ["load", device, folder, stop] => {
            let seen = load::node::run(device, folder.as_ref(), stop.as_ref())?;
            println!("{}", serde_json::to_string(&seen)?);
        }
        // The faults that the modules have, and cells: a file with one in each line.
        ["matrix", "points"] => {
            println!("{}", serde_json::to_string(&matrix::stage::Stage::start()?.faults()?)?);
        }
        ["matrix", cells] => {
            let text = std::fs::read_to_string(cells).with_context(|| (*cells).to_owned())?;
            let cells = text.lines().map(str::parse).collect::<Result<Vec<_>>>()?;
            matrix::run::run_all(&mut matrix::stage::Stage::start()?, &cells)?;
        }
        // Upgrades by the thousand: a run that goes on by itself, and a look at it.
        ["soak", "begin", wanted] => soak::background::begin(wanted.as_ref())?,
        ["soak", "run"] => soak::background::run()?,
        ["soak", "look", known] => soak::background::look(known.parse()?)?,
        // What scenarios with little memory run several of.
        ["greedy", mib] => greedy::run(mib.parse()?)?,
        ["upgrade", modules, atomctl] => {
            let places = demo::Places { modules: modules.into(), atomctl: atomctl.into() };
            println!("{}", serde_json::to_string(&demo::run(&places)?)?);
        }
        _ => bail!(USAGE),
    }
    Ok(true)
}
