// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The beginning of what `cargo xtask soak` does ten thousand times, by the same code and judged by the same rule.

use anyhow::{ensure, Context as _, Result};

use super::Context;
use crate::patience;
use crate::random::seed;
use crate::soak::record::{Ended, Event, Wanted};
use crate::soak::report::{Report, Verdict};
use crate::soak::run::Run;

const UPGRADES: u64 = 60;

pub fn the_long_soak_begins_as_it_goes_on(context: &mut Context) -> Result<()> {
    let seed = seed()?;
    context.step(&format!("seed {seed}: ATOM_SEED={seed} repeats it"));
    context.fact("seed", seed);
    let wanted = Wanted { upgrades: UPGRADES, seed, commit: String::new(), machine: String::new() };
    let (mut run, begun) = Run::start(&wanted)?;
    let mut events = vec![Event::Begun(begun)];
    for number in 0..UPGRADES / wanted.block() {
        context.step(&format!("block {number}"));
        events.push(Event::Block(run.block(wanted.block())?));
    }
    context.step("everything is read back and taken down");
    let done = run.end()?;
    let ended = Ended { ios: done.ios, slowest_io_us: done.slowest_us, error: None };
    events.push(Event::Ended(ended));
    let report = Report::of(&events, "").context("no report")?;
    context.fact("seconds", report.seconds);
    context.fact("attempts", &report.kinds);
    context.fact("pause_us", report.pause_us);
    context.fact("verified_ios", report.ios);
    // A debug kernel keeps what was freed for a while, to notice who still uses it.
    if patience::factor() == 1 {
        ensure!(report.verdict == Verdict::Passed, "{}", report.why.join("; "));
    }
    Ok(())
}
