// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The guest itself.

use anyhow::{ensure, Context as _, Result};

use super::Context;

pub fn the_guest_boots_the_stock_kernel(context: &mut Context) -> Result<()> {
    let expected = context
        .command_line()
        .value("release")
        .context("the host did not say which kernel it booted")?
        .to_owned();
    let uname = nix::sys::utsname::uname()?;
    let release = uname.release().to_string_lossy().into_owned();
    context.fact("release", &release);
    ensure!(
        release == expected,
        "the guest runs {release}, and the modules are built for {expected}"
    );
    Ok(())
}
