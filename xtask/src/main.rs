// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask`: builds Atom, runs it in virtual machines, and tests it.
//!
//! Exit codes: 0 done; 1 failed; 2 wrong usage; 3 refused before anything changed;
//! 4 a node holds I/O.

mod bench;
mod command_line;
mod commands;
mod fingerprint;
mod fleet;
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
mod revision;
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
    /// Show what runs.
    Status(commands::atomctl::Args),
    /// List the payloads: live, parked, loaded and installed.
    List(commands::atomctl::Args),
    /// Show what an upgrade would do, with every check; nothing is changed.
    Plan(commands::atomctl::Args),
    /// Check that what runs is what is installed.
    Verify(commands::atomctl::Args),
    /// Switch back to the payload that was live before.
    Rollback(commands::atomctl::Args),
    /// End the soak of the live payload: it stays.
    Commit(commands::atomctl::Args),
    /// Finish or undo what a tool has left when it died.
    Recover(commands::atomctl::Args),
    /// Show what was attempted, and what became of it.
    History(commands::atomctl::Args),
    /// Show what a monitoring system wants to know.
    Metrics(commands::atomctl::Args),
    /// Make a page about an attempt.
    Report(commands::atomctl::Args),
    Upgrade(commands::upgrade::Args),
    Test(commands::test::Args),
    Fuzz(commands::fuzz::Args),
    Bench(commands::bench::Args),
    Soak(commands::soak::Args),
    Package(commands::package::Args),
    Fleet(commands::fleet::Args),
}

fn main() -> ExitCode {
    let Arguments { target, command } = Arguments::parse();
    let done = |()| ExitCode::SUCCESS;
    let result = match &command {
        Command::Setup(args) => commands::setup::run(args, &target).map(done),
        Command::Build(args) => commands::build::run(args, &target).map(done),
        Command::Vm(args) => commands::vm::run(args, &target),
        Command::Status(args) => commands::atomctl::run("status", args, &target),
        Command::List(args) => commands::atomctl::run("list", args, &target),
        Command::Plan(args) => commands::atomctl::run("plan", args, &target),
        Command::Verify(args) => commands::atomctl::run("verify", args, &target),
        Command::Rollback(args) => commands::atomctl::run("rollback", args, &target),
        Command::Commit(args) => commands::atomctl::run("commit", args, &target),
        Command::Recover(args) => commands::atomctl::run("recover", args, &target),
        Command::History(args) => commands::atomctl::run("history", args, &target),
        Command::Metrics(args) => commands::atomctl::run("metrics", args, &target),
        Command::Report(args) => commands::atomctl::run("report", args, &target),
        Command::Upgrade(args) => commands::upgrade::run(args, &target),
        Command::Test(args) => commands::test::run(args, &target),
        Command::Bench(args) => commands::bench::run(args, &target),
        Command::Soak(args) => commands::soak::run(args, &target),
        Command::Package(args) => commands::package::run(args, &target).map(done),
        Command::Fleet(args) => commands::fleet::run(args, &target),
        Command::Fuzz(args) => commands::fuzz::run(args).map(done),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(problem::exit_code(&error))
    })
}
