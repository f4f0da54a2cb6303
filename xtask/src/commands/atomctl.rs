// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Verbs that `atomctl` carries out: here, in the background guest, or on another machine.

use std::convert::Infallible;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::vm::background;
use crate::command_line::CommandLine;
use crate::problem::refused;
use crate::sysroot::Target;
use crate::vm::link;
use crate::{host, programs};

/// How long `atomctl` may take in the guest: an upgrade may soak.
const LIMIT: Duration = Duration::from_secs(600);

/// Where the Atom is that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// In the guest in the background, which is started when there is none.
    Vm,
    /// On this machine.
    Local,
    /// On a machine that `ssh` reaches by this name.
    Host(String),
}

impl FromStr for Place {
    type Err = Infallible;

    fn from_str(name: &str) -> std::result::Result<Self, Infallible> {
        Ok(match name {
            "vm" => Self::Vm,
            "local" => Self::Local,
            host => Self::Host(host.to_owned()),
        })
    }
}

/// What is handed to `atomctl`.
#[derive(clap::Args)]
pub struct Args {
    /// Where: vm (the guest in the background), local, or the name of a host for ssh. It stands before the arguments of
    /// the verb.
    #[arg(long, value_name = "vm|local|HOST", default_value = "vm")]
    target: Place,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// The arguments of the verb, see `atomctl VERB --help`. Files are those of the target.
    #[arg(value_name = "ARGUMENTS", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs `atomctl` with `verb`; what it prints goes to where our output goes, and we exit as it does.
pub fn run(verb: &str, args: &Args, target: &Target) -> Result<ExitCode> {
    let argv = command(verb, args);
    let code = match &args.target {
        Place::Local => local(&argv)?,
        Place::Vm => in_background(&argv, target)?,
        Place::Host(host) => code_of(&on_host(host, &argv))?,
    };
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn command(verb: &str, args: &Args) -> Vec<String> {
    let json = args.json.then(|| "--json".to_owned());
    let before = ["atomctl".to_owned(), verb.to_owned()].into_iter().chain(json);
    before.chain(args.arguments.iter().cloned()).collect()
}

fn local(argv: &[String]) -> Result<i32> {
    let built = programs::path("atomctl");
    let program = if built.exists() {
        built
    } else {
        host::find("atomctl").ok_or_else(|| {
            refused(
                "there is no atomctl",
                "it was not built in this clone and is not installed on this machine",
                "run `cargo xtask build`",
            )
        })?
    };
    code_of(&CommandLine::new(program).args(argv.iter().skip(1)))
}

/// The shell at the other end reads the command line again.
fn on_host(host: &str, argv: &[String]) -> CommandLine {
    let there = CommandLine::new("atomctl").args(argv.iter().skip(1)).to_string();
    CommandLine::new("ssh").args(["--", host, &there])
}

fn code_of(command: &CommandLine) -> Result<i32> {
    let output = command
        .expression()
        .unchecked()
        .run()
        .with_context(|| format!("this command could not be started: {command}"))?;
    Ok(output.status.code().unwrap_or(-1))
}

fn in_background(argv: &[String], target: &Target) -> Result<i32> {
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    background(target)?.vm.exec(&argv, LIMIT, link::print)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(line: &str) -> Args {
        Line::try_parse_from(line.split_whitespace()).map(|line| line.args).unwrap()
    }

    #[test]
    fn whatever_the_verb_takes_is_handed_on() {
        let args = parsed("x --target local --json 2.1.0 --cold --deadline 5s");
        assert_eq!(args.target, Place::Local);
        let argv = command("plan", &args);
        assert_eq!(argv, ["atomctl", "plan", "--json", "2.1.0", "--cold", "--deadline", "5s"]);
        let args = parsed("x --last 5");
        assert_eq!(args.target, Place::Vm);
        assert_eq!(command("history", &args), ["atomctl", "history", "--last", "5"]);
    }

    #[test]
    fn a_host_gets_one_line_that_its_shell_reads_back() {
        let args = parsed("x --target node1 --out /tmp/a$b.html");
        let Place::Host(host) = &args.target else { panic!("{:?}", args.target) };
        let ssh = on_host(host, &command("report", &args)).to_string();
        assert_eq!(ssh, r"ssh -- node1 'atomctl report --out '\''/tmp/a$b.html'\'''");
    }
}
