// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Polled I/O: whoever submits a request looks for its end, spinning, also while I/O is held.

use std::time::Duration;

use anyhow::{ensure, Result};
use atom_abi::control::outcome;
use atom_abi::device::feature;
use atomctl::kmod;
use atomctl::node::Node;
use atomctl::report::Mode;

use super::Context;
use crate::load::fio::{Fio, Shape};
use crate::queue::{self, Hardware};
use crate::site::{Site, Spec};
use crate::wait;

const LONG: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
/// Hardware queues of each kind.
const QUEUES: u16 = 2;
const LOAD: Shape = Shape { depth: 16, bytes: 4 << 20, verify: true };
/// What both versions read and write.
const SCHEMA: u32 = 4;
/// A payload that fails *adopt*.
const FAULTY: (&str, &str) = ("fault-client", "fault_step=7 fault_kind=1 fault_value=5");

pub fn polled_io_goes_on_through_handoffs(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let spec = Spec { hw_queues: QUEUES, ..Spec::ram(16).depth(64) };
    let plain = site.volume("plain", spec)?;
    let device = site.volume("polled", Spec { polled: true, ..spec })?;

    context.step("one device has queues for polled I/O beside its others, the other one has none");
    let kinds = |device: &str| -> Result<Vec<String>> {
        let mut kinds: Vec<_> = queue::hardware(device)?.into_iter().map(|one| one.kind).collect();
        kinds.sort();
        Ok(kinds)
    };
    ensure!(kinds(&plain)? == ["default", "default"], "{:?}", queue::hardware(&plain)?);
    let both = ["default", "default", "poll", "poll"];
    ensure!(kinds(&device)? == both, "{:?}", queue::hardware(&device)?);
    ensure!(Fio::start_polled(&plain, LOAD).is_err(), "{plain} takes polled I/O");

    let mut load = Fio::start_polled(&device, LOAD)?;
    for (mode, version) in
        [(Mode::Warm, "2.1.0"), (Mode::Cold, "2.0.0"), (Mode::Warm, "2.1.0"), (Mode::Cold, "2.0.0")]
    {
        context.step(&format!("{mode} to {version}"));
        site.upgrade(version, mode)?;
        let devices = site.node().devices()?;
        let polled: Vec<_> = devices.iter().map(|one| one.features & feature::POLLED).collect();
        ensure!(polled == [0, feature::POLLED], "{devices:?}");
        goes_on(&device, &mut load)?;
    }

    context.step("a candidate fails to adopt");
    let id = site.insert_with(&site.file(FAULTY.0), FAULTY.1)?;
    let report = site.node().switch(id, LONG)?;
    ensure!(report.outcome == outcome::UNDONE, "{report:?}");
    kmod::remove("payload_test_fault_client")?;
    goes_on(&device, &mut load)?;

    context.step("whoever polls stands still, with requests that have ended, and an upgrade does not wait for them");
    wait::until("some have ended, and nobody has looked", PATIENCE, || {
        load.stand_still(false)?;
        load.stand_still(true)?;
        Ok(waiting(&device)? > 0)
    })?;
    site.upgrade("2.1.0", Mode::Warm)?;
    site.upgrade("2.0.0", Mode::Warm)?;
    ensure!(waiting(&device)? > 0, "somebody has looked");
    load.stand_still(false)?;
    goes_on(&device, &mut load)?;

    context.step("nobody serves, and polled requests are held");
    let report = site.node().abandon(SCHEMA, LONG)?;
    ensure!(report.outcome == outcome::DONE, "abandon: {}", report.refusal);
    kmod::remove("payload_2_0_0")?;
    wait::until("polled requests wait", PATIENCE, || Ok(waiting(&device)? > 0))?;
    let held: Vec<Hardware> = queue::hardware(&device)?;
    ensure!(held.iter().all(|one| one.kind == "poll" || one.taken == 0), "{held:?}");
    let id = site.insert(&site.file("2.1.0"))?;
    site.adopt(id)?;
    goes_on(&device, &mut load)?;
    context.fact("requests", load.stop()?.ios);
    site.leave()
}

/// Polled requests that have not ended.
fn waiting(device: &str) -> Result<u64> {
    let queues = queue::hardware(device)?;
    Ok(queues.iter().filter(|one| one.kind == "poll").map(|one| one.taken).sum())
}

/// More requests of the load have ended than it has in flight.
fn goes_on(device: &str, load: &mut Fio) -> Result<()> {
    load.check()?;
    let enough = queue::stat(device)?.requests() + 4 * u64::from(LOAD.depth);
    wait::until("I/O goes on", PATIENCE, || Ok(queue::stat(device)?.requests() >= enough))
}
