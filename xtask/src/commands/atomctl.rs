// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Commands that `atomctl` carries out, here or in the background guest.

use std::time::Duration;

use anyhow::Result;

use super::vm::background;
use crate::command_line::CommandLine;
use crate::problem::{failed, refused};
use crate::sysroot::Target;
use crate::vm::link;
use crate::{host, programs};

/// How long `atomctl` may take to answer a question.
const LIMIT: Duration = Duration::from_secs(60);

/// Where the Atom is that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Place {
    /// In the guest in the background, which is started when there is none.
    Vm,
    /// On this machine.
    Local,
}

/// The options of these commands.
#[derive(clap::Args)]
pub struct Options {
    /// Where to look.
    #[arg(long, value_enum, default_value = "vm")]
    pub target: Place,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Runs `atomctl` with `verb`; what it prints goes to where our output goes.
pub fn run(verb: &str, options: &Options, target: &Target) -> Result<()> {
    let mut argv = vec!["atomctl", verb];
    if options.json {
        argv.push("--json");
    }
    let code = match options.target {
        Place::Local => local(&argv)?,
        Place::Vm => in_background(&argv, target)?,
    };
    if code == 0 {
        return Ok(());
    }
    Err(failed(
        format!("`{}` exited with {code}", argv.join(" ")),
        "see what it printed above",
        "see what it printed above",
    ))
}

fn local(argv: &[&str]) -> Result<i32> {
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
    let command = CommandLine::new(program).args(&argv[1..]);
    let output = command.expression().unchecked().run()?;
    Ok(output.status.code().unwrap_or(-1))
}

fn in_background(argv: &[&str], target: &Target) -> Result<i32> {
    background(target)?.vm.exec(argv, LIMIT, link::print)
}
