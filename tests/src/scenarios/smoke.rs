// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The guest itself.

use anyhow::{ensure, Context as _, Result};

use super::Context;
use crate::demo;
use crate::site::MODULES;

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

pub fn the_run_that_the_readme_shows_succeeds(context: &mut Context) -> Result<()> {
    let places = demo::Places { modules: MODULES.into(), atomctl: "/bin/atomctl".into() };
    let document = demo::run(&places)?;
    let outcomes: Vec<_> = document.upgrades.iter().map(|u| u.outcome.to_string()).collect();
    ensure!(outcomes == ["committed"; 3], "{outcomes:?}");
    ensure!(document.workload.verified_ios > 0 && document.workload.files_checked > 0);
    context.fact("run", &document);
    Ok(())
}
