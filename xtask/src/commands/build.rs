// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask build`: the kernel modules and the programs.

use anyhow::Result;

use crate::product;
use crate::sysroot::{Sysroot, Target};

/// Builds the kernel modules and the programs for guests and nodes.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: &Args, target: &Target) -> Result<()> {
    let sysroot = Sysroot::open(target)?;
    for file in product::build(&sysroot)? {
        println!("{}", file.display());
    }
    Ok(())
}
