// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Versions: of the interface, of the image, and what is carried along between them.

use anyhow::{ensure, Result};
use atom_abi::control::outcome;
use atom_abi::version::reason;
use atomctl::node::Node;
use atomctl::report::{Mode, Outcome};
use atomctl::volume;
use std::time::Duration;

use super::Context;
use crate::guest::kmsg;
use crate::load::fio::{Fio, Shape};
use crate::queue;
use crate::site::{Site, Spec};
use crate::variant;

const DEADLINE: Duration = Duration::from_secs(5);

pub fn a_chain_of_versions_leads_up_and_down_and_loses_nothing(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let device = site.volume("data", Spec::ram(16))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    let quiet = site.volume("quiet", Spec::ram(8))?;
    let mut writes = 0u64;
    for mode in [Mode::Warm, Mode::Cold] {
        for (version, block) in [("1.1.0", 1), ("1.2.0", 2), ("1.1.0", 3), ("1.0.0", 4)] {
            context.step(&format!("{mode} to {version}"));
            site.upgrade(version, mode)?;
            queue::write_block(&quiet, block, 0x10 + block as u8)?;
            writes += 1;
            for written in 1..=block {
                let found = queue::read_block(&quiet, written)?;
                ensure!(found.iter().all(|byte| *byte == 0x10 + written as u8), "block {written}");
            }
            let counted = counted_writes(&site, "quiet")?;
            ensure!(counted == writes, "{version} counts {counted} writes instead of {writes}");
        }
    }
    context.step("a version is skipped where schemas overlap");
    for version in ["9.0.0-wide", "1.2.0", "9.0.0-wide", "1.0.0"] {
        site.upgrade(version, Mode::Warm)?;
        ensure!(counted_writes(&site, "quiet")? == writes, "{version} has lost count");
    }
    context.step("and refused where they do not");
    for mode in [Mode::Warm, Mode::Cold] {
        let report = site.try_upgrade(&site.file("1.2.0"), mode, DEADLINE)?;
        let why = report.reason.clone().unwrap_or_default();
        ensure!(report.outcome == Outcome::Refused, "{report:?}");
        ensure!(why.contains("has schema 1, it reads 2 to 3"), "{why}");
        ensure!(site.live()? == "1.0.0", "{} serves", site.live()?);
    }
    load.stop()?;
    site.leave()
}

pub fn a_payload_of_an_older_or_newer_abi_works_where_the_ranges_meet(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("1.1.0")?;
    let device = site.volume("data", Spec::ram(16))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    for mode in [Mode::Warm, Mode::Cold] {
        for version in ["9.0.0-abi-0", "9.0.0-abi-2", "9.0.0-abi-5", "9.0.0-abi-0", "1.1.0"] {
            context.step(&format!("{mode} to {version}"));
            site.upgrade(version, mode)?;
            let info = site.node().payloads()?;
            context.fact(version, info.first().map(|info| info.abi.minor_max));
            // It can do all that it ever could.
            site.volume("extra", Spec::ram(8))?;
            site.destroy("extra")?;
        }
        context.step(&format!("{mode}: one that needs a newer Atom"));
        let report = site.try_upgrade(&site.file("9.0.0-abi-6"), mode, DEADLINE)?;
        let why = report.reason.clone().unwrap_or_default();
        ensure!(report.outcome == Outcome::Refused, "{report:?}");
        ensure!(why.contains("Atom speaks up to .5, it needs at least .6"), "{why}");
        ensure!(site.live()? == "1.1.0", "{} serves", site.live()?);
    }
    context.step("Atom itself refuses it, and cannot be asked to go without an old one's image");
    ensure!(site.insert(&site.file("9.0.0-abi-6")).is_err(), "it was registered");
    let refusal = site.node().status()?.refusal;
    ensure!(refusal.code == reason::ABI_MINOR, "{refusal}");
    load.stop()?;
    site.leave()
}

pub fn records_that_a_payload_does_not_know_survive_it(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("9.0.0-extra")?;
    site.volume("data", Spec::ram(8))?;
    let extra = site.node().status()?.live;
    for version in ["1.0.0", "1.1.0"] {
        context.step(&format!("through {version}"));
        let id = site.insert(&site.file(version))?;
        for target in [id, extra] {
            let report = site.node().control().switch(target, DEADLINE)?;
            ensure!(report.outcome == outcome::DONE, "{}", report.refusal);
        }
    }
    let log = kmsg::read()?;
    ensure!(!log.contains("the extra record came back changed"), "it came back changed");
    let unchanged = log.matches("the extra record came back unchanged").count();
    ensure!(unchanged == 2, "it came back {unchanged} times");

    context.step("one that must be known is refused");
    let must = site.insert(&site.file("9.0.0-extra-must"))?;
    ensure!(site.node().control().switch(must, DEADLINE)?.outcome == outcome::DONE, "no switch");
    let report = site.node().control().switch(extra, DEADLINE)?;
    ensure!(report.outcome == outcome::UNDONE, "{report:?}");
    ensure!(site.live()? == "9.0.0-extra-must", "{} serves", site.live()?);
    // It cannot be replaced by anybody else, but it can let go: what it leaves is refused, and goes with Atom.
    site.leave()
}

pub fn the_template_of_the_guide_can_be_upgraded(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("template-1")?;
    let device = "/dev/atom0";
    variant::toggle(site.node().control())?;
    let load = Fio::start(device, Shape { depth: 16, bytes: 1 << 20, verify: false })?;
    for mode in [Mode::Warm, Mode::Cold] {
        for version in ["template-2", "template-1"] {
            context.step(&format!("{mode} to {version}"));
            site.upgrade(version, mode)?;
        }
    }
    load.stop()?;
    ensure!(queue::read_block(device, 0)?.iter().all(|byte| *byte == 0), "no zeroes");
    variant::toggle(site.node().control())?;
    site.leave_without_volumes()
}

fn counted_writes(site: &Site, name: &str) -> Result<u64> {
    let volumes = volume::list(site.node().control())?;
    let volume = volumes.iter().find(|volume| volume.name == name);
    Ok(volume.and_then(|volume| volume.done.get("write")).map_or(0, |done| done.ios))
}
