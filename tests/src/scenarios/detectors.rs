// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A debug kernel finds what it is there for. Each defect is in a module that is broken on purpose, in a guest of its own; the
//! host looks for the report of its detector, and a silent one fails the scenario.

use anyhow::{Context as _, Result};
use atomctl::kmod;

use super::Context;
use crate::site;

/// Inserts the module with a defect, as `broken_main.rs` numbers them.
fn breaks(context: &Context, how: u32) -> Result<()> {
    let file = format!("{}/test/broken.ko", site::MODULES);
    let module = std::fs::read(&file).with_context(|| format!("no {file}"))?;
    context.step(&format!("defect {how}"));
    Ok(kmod::insert(&module, &format!("how={how}"))?)
}

pub(super) fn use_after_free(context: &mut Context) -> Result<()> {
    breaks(context, 1)
}

pub(super) fn out_of_bounds(context: &mut Context) -> Result<()> {
    breaks(context, 2)
}

pub(super) fn lock_order(context: &mut Context) -> Result<()> {
    breaks(context, 3)
}

pub(super) fn sleep_in_atomic(context: &mut Context) -> Result<()> {
    breaks(context, 4)
}

pub(super) fn leak(context: &mut Context) -> Result<()> {
    breaks(context, 5)
}

pub(super) fn armed_timer(context: &mut Context) -> Result<()> {
    breaks(context, 6)
}

pub(super) fn data_race(context: &mut Context) -> Result<()> {
    breaks(context, 7)
}
