// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask setup`: makes everything that the other commands need.

use anyhow::Result;

use crate::sysroot::{Sysroot, Target};

/// Makes the sysroot: a Debian tree with a stock kernel, its compiler and QEMU.
#[derive(clap::Args)]
pub struct Args {
    /// Ask the archive again, and take a newer kernel if it has one.
    #[arg(long)]
    refresh: bool,
}

pub fn run(args: &Args, target: &Target) -> Result<()> {
    let sysroot = Sysroot::open_or_refresh(target, args.refresh)?;
    println!(
        "ready: {} for {} ({})",
        sysroot.root().display(),
        sysroot.kernel().release,
        sysroot.suite().name
    );
    Ok(())
}
