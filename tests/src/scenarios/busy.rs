// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What is in use cannot be unloaded, and what is not in use leaves nothing behind.

use std::fs::{self, File};

use anyhow::{ensure, Result};
use atom_abi::control::outcome;
use atomctl::kmod;
use atomctl::node::Node;

use super::Context;
use crate::load::fio::{Fio, Shape};
use crate::site::{Site, Spec};
use crate::{leaks, memory};

/// Loads and unloads of everything.
const CYCLES: usize = 16;

pub fn modules_in_use_say_busy(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let device = site.volume("data", Spec::ram(8))?;

    context.step("a live payload");
    refuses("payload_1_0_0")?;
    refuses("atom")?;

    context.step("Atom with an open device and no payload");
    let open = File::open(&device)?;
    let report = site.node().abandon(0, std::time::Duration::from_secs(5))?;
    ensure!(report.outcome == outcome::DONE, "abandon: {}", report.refusal);
    kmod::remove("payload_1_0_0")?;
    refuses("atom")?;

    context.step("and back");
    let id = site.insert(&site.file("1.0.0"))?;
    site.adopt(id)?;
    refuses("payload_1_0_0")?;
    drop(open);
    site.leave()
}

fn refuses(module: &str) -> Result<()> {
    let Err(problem) = kmod::remove(module) else {
        anyhow::bail!("{module} was unloaded while it was in use");
    };
    let text = problem.to_string();
    ensure!(text.contains("in use") || text.contains("busy"), "{module}: {text}");
    Ok(())
}

pub fn unloading_everything_leaves_nothing_behind(context: &mut Context) -> Result<()> {
    let mut after = Vec::new();
    for cycle in 0..CYCLES {
        context.step(&format!("cycle {cycle}"));
        let site = Site::on_guest("1.0.0")?;
        let device = site.volume("data", Spec::ram(64))?;
        site.volume("nothing", Spec::null(64))?;
        let load = Fio::start(&device, Shape { depth: 16, bytes: 48 << 20, verify: false })?;
        site.upgrade("1.1.0", atomctl::report::Mode::Warm)?;
        load.stop()?;
        context.run(&["dd", "if=/dev/zero", &format!("of={device}"), "bs=1M", "count=48"])?;
        site.leave()?;
        // Caches of the file system that the test itself lies on are no leak of ours.
        fs::write("/proc/sys/vm/drop_caches", "3")?;
        after.push(memory::others_kib()?);
    }
    context.fact("kib_for_others_after_each_cycle", &after);
    // Each cycle used 48 MiB of pages. The first half warms up the kernel's own caches.
    let (early, late) = after.split_at(CYCLES / 2);
    let (early, late) = (middle(early), middle(late));
    nothing_is_lost(early, late, 512)
}

/// An error when so much less memory is left for others, in KiB. A kernel that looks for leaks keeps what is freed, and records
/// of what is not: there each leak is found by itself, and the amount says nothing.
pub fn nothing_is_lost(early: u64, late: u64, most: u64) -> Result<()> {
    let lost = early.saturating_sub(late);
    ensure!(lost < most || leaks::are_found(), "memory for others went from {early} to {late} KiB");
    Ok(())
}

fn middle(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}
