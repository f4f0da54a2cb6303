// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask status`: `atomctl status` in the background guest or on this machine.

use anyhow::Result;

use super::atomctl::{self, Options};
use crate::sysroot::Target;

/// Shows what runs, what changed and how long it took.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
}

pub fn run(args: &Args, target: &Target) -> Result<()> {
    atomctl::run("status", &args.options, target)
}
