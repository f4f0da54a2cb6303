// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Nobody is adopted: Atom holds I/O, fails it after a while, or has a fallback payload loaded, as its policy says.

use std::time::Duration;

use anyhow::{anyhow, ensure, Context as _, Result};
use atom_abi::control::{cause, hold, kind, setting, Settings};
use atom_abi::lifecycle::Place;
use atom_abi::text::Text;
use atomctl::kmod;
use atomctl::node::Node;

use super::Context;
use crate::load::fio::{Fio, Shape};
use crate::queue;
use crate::site::{Site, Spec};
use crate::wait;

const DEADLINE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);
/// `ENOLINK`, what the block layer makes of `BLK_STS_TRANSPORT`: a path that is dead.
const DEAD_PATH: &str = "os error 67";

pub fn io_that_nobody_serves_fails_after_the_deadline(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.1.0")?;
    let device = site.volume("data", Spec::ram(16))?;
    queue::write_block(&device, 3, 0x5a)?;
    let live = site.node().status()?.live;
    policy(&site, hold::FAIL, Duration::from_millis(700), "")?;

    context.step("held, then failing");
    site.node().abandon(0, DEADLINE)?;
    let path = device.clone();
    let reader = std::thread::spawn(move || queue::read_block(&path, 3));
    wait::until(
        "I/O fails",
        PATIENCE,
        || Ok(site.node().status()?.place == Place::Failing.code()),
    )?;
    let read = reader.join().map_err(|_| anyhow!("the reader died"))?;
    let error = format!("{:#}", read.err().context("a read without a payload succeeded")?);
    ensure!(error.contains(DEAD_PATH), "{error}");
    let again = format!("{:#}", queue::read_block(&device, 3).err().context("it succeeded")?);
    ensure!(again.contains(DEAD_PATH), "{again}");
    let reports = site.node().reports()?;
    let report = reports.first().context("no report")?;
    ensure!(report.kind == kind::EXPIRE && report.cause == cause::NOBODY, "{report:?}");
    ensure!(report.pause_ns >= 700_000_000, "it failed after {} ns", report.pause_ns);

    context.step("somebody adopts, and what was written is there");
    site.adopt(live)?;
    ensure!(queue::read_block(&device, 3)?.iter().all(|byte| *byte == 0x5a), "wrong data");

    context.step("a payload that cannot adopt changes nothing of it");
    site.node().abandon(0, DEADLINE)?;
    wait::until(
        "I/O fails",
        PATIENCE,
        || Ok(site.node().status()?.place == Place::Failing.code()),
    )?;
    let bad = site.insert(&site.file("adopt"))?;
    ensure!(site.adopt(bad).is_err(), "it adopted");
    wait::until(
        "I/O fails",
        PATIENCE,
        || Ok(site.node().status()?.place == Place::Failing.code()),
    )?;
    kmod::remove("payload_test_adopt")?;
    site.adopt(live)?;
    ensure!(queue::read_block(&device, 3)?.iter().all(|byte| *byte == 0x5a), "wrong data");

    context.step("to hold can be chosen while nobody is adopted");
    policy(&site, hold::HOLD, Duration::ZERO, "")?;
    site.node().abandon(0, DEADLINE)?;
    policy(&site, hold::FAIL, Duration::from_millis(100), "")?;
    wait::until(
        "I/O fails",
        PATIENCE,
        || Ok(site.node().status()?.place == Place::Failing.code()),
    )?;
    site.adopt(live)?;
    policy(&site, hold::HOLD, Duration::ZERO, "")?;
    site.leave()
}

pub fn a_fallback_payload_is_loaded_when_nobody_adopts(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.1.0")?;
    let device = site.volume("data", Spec::ram(16))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    policy(&site, hold::FALLBACK, Duration::from_millis(300), "payload_1_0_0")?;

    context.step("the tool dies between rmmod and insmod");
    let report = site.node().abandon(1, DEADLINE)?;
    kmod::remove("payload_1_1_0")?;
    wait::until("the fallback serves", PATIENCE, || Ok(site.live()? == "1.0.0"))?;
    // I/O flows before the handoff is over and its report is stored.
    wait::until("there is a report", PATIENCE, || {
        let newest = site.node().reports()?.first().map(|newest| newest.sequence);
        Ok(newest > Some(report.sequence))
    })?;
    let reports = site.node().reports()?;
    let adopted = reports.first().context("no report")?;
    ensure!(adopted.cause == cause::NOBODY, "{adopted:?}");
    context.fact("held_us", adopted.pause_ns / 1000);

    context.step("a fallback that there is not");
    policy(&site, hold::FALLBACK, Duration::from_millis(100), "payload_of_nobody")?;
    let live = site.node().status()?.live;
    site.node().abandon(0, DEADLINE)?;
    wait::until("it was tried", PATIENCE, || Ok(site.node().status()?.fallback_error != 0))?;
    ensure!(site.node().status()?.place == Place::Held.code(), "I/O is not held");
    site.adopt(live)?;
    policy(&site, hold::HOLD, Duration::ZERO, "")?;
    load.stop()?;
    site.leave()
}

fn policy(site: &Site, hold: u32, deadline: Duration, fallback: &str) -> Result<()> {
    site.node().settings(&Settings {
        change: setting::HOLD,
        hold,
        hold_deadline_ns: u64::try_from(deadline.as_nanos())?,
        fallback: Text::new(fallback),
        ..Settings::DEFAULT
    })?;
    Ok(())
}
