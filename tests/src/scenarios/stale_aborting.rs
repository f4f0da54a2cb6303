// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! ublk's defect: a flag of an aborted quiesce stayed behind, and writers got EIO.
//!
//! Here nothing of an aborted handoff stays behind: whoever writes next is served, and an upgrade at once succeeds.

use std::time::Duration;

use anyhow::{ensure, Result};
use atom_abi::control::outcome;
use atom_abi::request::op;
use atom_abi::version::reason;
use atomctl::kmod;
use atomctl::node::Node;
use atomctl::report::{Mode, Outcome};
use atomctl::volume;

use super::Context;
use crate::kept::keep;
use crate::load::fio::{Fio, Shape};
use crate::queue;
use crate::site::{Site, Spec};

const DEADLINE: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(5);
/// Aborts of each mode.
const ROUNDS: u8 = 6;
/// Requests that are kept.
const KEPT: u32 = 3;
/// Blocks behind what fio writes, for writes of our own.
const OURS: u64 = 2048;

pub fn after_an_abort_writers_see_no_error_and_an_upgrade_at_once_succeeds(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("stuck")?;
    let kept = site.volume("kept", Spec::ram(16).depth(16))?;
    let other = site.volume("other", Spec::ram(16).depth(16))?;
    let mut load = Fio::start(&kept, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    let mut slowest = Duration::ZERO;
    for round in 0..ROUNDS {
        for mode in [Mode::Warm, Mode::Cold] {
            context.step(&format!("round {round}: a {mode} upgrade that is aborted"));
            keep(site.node().control(), op::WRITE, KEPT)?;
            let report = site.try_upgrade(&site.file("1.1.0"), mode, DEADLINE)?;
            ensure!(report.outcome == Outcome::Aborted, "{report:?}");

            context.step("writes at once, while the requests in the way are still kept");
            let begun = std::time::Instant::now();
            for device in [&kept, &other] {
                for block in OURS..OURS + 8 {
                    queue::write_block(device, block, round + 1)?;
                    let found = queue::read_block(device, block)?;
                    ensure!(found.iter().all(|byte| *byte == round + 1), "{device}, {block}");
                }
            }
            slowest = slowest.max(begun.elapsed());
            load.check()?;

            context.step("an upgrade at once, and back");
            volume::release(site.node().control())?;
            site.upgrade("1.1.0", mode)?;
            site.upgrade("9.0.0-stuck", mode)?;
        }
    }
    context.fact("slowest_writes_after_an_abort_us", slowest.as_micros() as u64);
    ensure!(site.node().status()?.stale_completions == 0, "a completion was refused");
    context.fact("verified_ios", load.stop()?.ios);
    site.leave()
}

pub fn an_abandon_is_retried_after_its_deadline(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("stuck")?;
    let device = site.volume("data", Spec::ram(16))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    keep(site.node().control(), op::WRITE, 1)?;
    // The command to release waits for the control lock, which the handoff holds while it drains. So
    // the abandon must give up at its deadline first, and the release gets its turn between the tries.
    context.step("an abandon, a release, an abandon");
    let report = site.node().abandon(0, 2 * DEADLINE)?;
    ensure!(report.outcome == outcome::UNDONE, "{report:?}");
    ensure!(report.refusal.code == reason::DEADLINE, "{}", report.refusal);
    volume::release(site.node().control())?;
    let report = site.node().abandon(0, LONG)?;
    ensure!(report.outcome == outcome::DONE, "{}", report.refusal);
    kmod::remove("payload_test_stuck")?;
    let id = site.insert(&site.file("1.1.0"))?;
    site.adopt(id)?;
    load.stop()?;
    site.leave()
}
