// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask`: builds Atom, runs it in virtual machines, and tests it.
//!
//! Exit codes: 0 done; 1 failed; 2 wrong usage; 3 refused before anything changed.

mod command_line;
mod commands;
mod fingerprint;
mod host;
mod kbuild;
mod kernel;
mod lock;
mod modules;
mod node;
mod package;
mod places;
mod problem;
mod product;
mod programs;
mod progress;
mod sysroot;
mod testing;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use sysroot::Target;

/// Builds Atom, runs it in virtual machines, and tests it.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(commands::setup::Args),
    Build(commands::build::Args),
    Vm(commands::vm::Args),
    Status(commands::status::Args),
    List(commands::list::Args),
    Upgrade(commands::upgrade::Args),
    Test(commands::test::Args),
    Fuzz(commands::fuzz::Args),
    Bench(commands::bench::Args),
    Package(commands::package::Args),
}

fn main() -> ExitCode {
    let Arguments { target, command } = Arguments::parse();
    let done = |()| ExitCode::SUCCESS;
    let result = match &command {
        Command::Setup(args) => commands::setup::run(args, &target).map(done),
        Command::Build(args) => commands::build::run(args, &target).map(done),
        Command::Vm(args) => commands::vm::run(args, &target),
        Command::Status(args) => commands::status::run(args, &target).map(done),
        Command::List(args) => commands::list::run(args, &target).map(done),
        Command::Upgrade(args) => commands::upgrade::run(args, &target),
        Command::Test(args) => commands::test::run(args, &target),
        Command::Bench(args) => commands::bench::run(args, &target),
        Command::Package(args) => commands::package::run(args, &target).map(done),
        Command::Fuzz(args) => commands::fuzz::run(args).map(done),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(problem::exit_code(&error))
    })
}
