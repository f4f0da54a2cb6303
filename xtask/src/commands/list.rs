// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask list`: `atomctl list` in the background guest or on this machine.

use anyhow::Result;

use super::atomctl::{self, Options};
use crate::sysroot::Target;

/// Lists the payloads: installed, loaded, live and parked.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
}

pub fn run(args: &Args, target: &Target) -> Result<()> {
    atomctl::run("list", &args.options, target)
}
