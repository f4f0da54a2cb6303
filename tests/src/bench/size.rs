// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The suite *size*: how large the modules are, how long loading one takes, and how much memory an upgrade and a volume take.

use std::time::Instant;

use anyhow::{Context as _, Result};
use atomctl::kmod;
use atomctl::report::Mode;

use super::pause::{self, VERSIONS};
use super::peers::Brd;
use super::series::{Metric, Rounds, Series, OURS};
use super::window::micros;
use super::{call, write_all, How, Wish};
use crate::memory;
use crate::site::{Site, Spec};

/// Rounds.
const THOROUGH: usize = 10;
const QUICK: usize = 2;
/// Modules of the kernel, with parameters that let them make no device.
const PEERS: [(&str, &str); 3] =
    [("null_blk", "nr_devices=0"), ("brd", "rd_nr=0"), ("nbd", "nbds_max=0")];
/// Devices, and MiB of a volume that is written all over.
const DEVICES: [u64; 2] = [1, 128];
const FEW_DEVICES: [u64; 2] = [1, 16];
const MIB: [u64; 2] = [1, 256];
/// MiB of what a GiB is reckoned from.
const LARGE_MIB: u64 = 256;
/// MiB of a volume where it is not the memory that counts, its hardware queues, and their tags.
const SMALL_MIB: u64 = 1;
const QUEUES: u16 = 2;
const TAGS: u16 = 32;
/// The name of a volume that is alone.
const NAME: &str = "bench";

/// Measures all setups whose names contain what is wished for.
pub fn run(wish: Wish<'_>) -> Result<Vec<Series>> {
    let is_quick = wish.how != How::Thorough;
    let count = if is_quick { QUICK } else { THOROUGH };
    let wanted = |setup: &str| setup.contains(wish.only);
    let mut rounds = Rounds::default();
    let site = Site::on_guest(VERSIONS[0])?;
    if wanted("modules") {
        modules(&site, count, &mut rounds)?;
    }
    if wanted("load") || wanted("unload") {
        load(&site, count, &mut rounds)?;
    }
    let what = "devices";
    if wanted(&peak_of(what)) || wanted(&rest_of(what)) {
        for devices in if is_quick { FEW_DEVICES } else { DEVICES } {
            let spec = Spec { hw_queues: QUEUES, ..Spec::null(SMALL_MIB).depth(TAGS) };
            for index in 0..devices {
                site.volume(&format!("v{index}"), spec)?;
            }
            upgrades(&site, what, devices, count, &mut rounds)?;
            for index in 0..devices {
                site.destroy(&format!("v{index}"))?;
            }
        }
    }
    let what = "MiB in memory";
    if wanted(&peak_of(what)) || wanted(&rest_of(what)) {
        for mib in MIB {
            let device = site.volume(NAME, Spec::ram(mib).depth(TAGS))?;
            write_all(&device, mib)?;
            upgrades(&site, what, mib, count, &mut rounds)?;
            site.destroy(NAME)?;
        }
    }
    let setup = "each GiB in memory";
    if wanted(setup) {
        for round in 0..count {
            each_gib(&site, setup, &mut rounds)?;
            eprintln!("step: {setup}: round {} of {count}", round + 1);
        }
    }
    site.leave()?;
    Ok(rounds.end())
}

fn peak_of(what: &str) -> String {
    format!("peak, {what}")
}

fn rest_of(what: &str) -> String {
    format!("remains, {what}")
}

/// What the kernel says of each module: its code and its data, without what is gone once it is loaded.
fn modules(site: &Site, count: usize, rounds: &mut Rounds) -> Result<()> {
    let mut add = |name: &str| -> Result<()> {
        let path = format!("/sys/module/{name}/coresize");
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let bytes: u64 = text.trim().parse().with_context(|| format!("{path}: {text:?}"))?;
        rounds.add("modules", name, Metric::Bytes, None, bytes as f64);
        Ok(())
    };
    let (live, other) = payloads(site)?;
    for _ in 0..count {
        add("atom")?;
        add(&module_of(site, live)?)?;
        let module = module_of(site, other)?;
        site.insert(&site.file(other))?;
        add(&module)?;
        kmod::remove(&module)?;
        for (peer, params) in PEERS {
            // A kernel need not have it.
            if call("modprobe", &[peer, params]).is_ok() {
                add(peer)?;
                call("rmmod", &[peer])?;
            }
        }
    }
    Ok(())
}

/// How long a module takes until it is there, and until it is gone. Theirs is loaded by a program, which has to be started, and
/// ours by this process.
fn load(site: &Site, count: usize, rounds: &mut Rounds) -> Result<()> {
    let (_, other) = payloads(site)?;
    let (file, module) = (site.file(other), module_of(site, other)?);
    let (peer, params) = PEERS[0];
    // What it needs itself stays.
    let has_peer = call("modprobe", &[peer, params]).is_ok();
    if has_peer {
        call("rmmod", &[peer])?;
    }
    let mut timed = |setup: &str, subject: &str, step: &mut dyn FnMut() -> Result<()>| {
        let begun = Instant::now();
        step()?;
        rounds.add(setup, subject, Metric::Whole, None, micros(begun.elapsed()));
        anyhow::Ok(())
    };
    for _ in 0..count {
        timed("load", OURS, &mut || site.insert(&file).map(drop))?;
        timed("unload", OURS, &mut || Ok(kmod::remove(&module)?))?;
        if has_peer {
            timed("load", peer, &mut || call("modprobe", &[peer, params]).map(drop))?;
            timed("unload", peer, &mut || call("rmmod", &[peer]).map(drop))?;
        }
    }
    Ok(())
}

/// How much a warm upgrade takes at its peak; and how much the kernel has more after it and one back, because one payload is larger
/// than the other. Less than before counts as nothing.
fn upgrades(site: &Site, what: &str, at: u64, count: usize, rounds: &mut Rounds) -> Result<()> {
    let mut add = |setup: &str, bytes: u64| {
        rounds.add(setup, OURS, Metric::Bytes, Some(at), bytes as f64);
    };
    for _ in 0..count {
        memory::settle()?;
        let before = memory::kernel_bytes()?;
        let (_, most) = memory::peak(|| pause::upgrade(site, Mode::Warm))?;
        add(&peak_of(what), most);
        pause::upgrade(site, Mode::Warm)?;
        memory::settle()?;
        add(&rest_of(what), memory::kernel_bytes()?.saturating_sub(before));
    }
    eprintln!("step: upgrades, {at} {what}");
    Ok(())
}

/// What is not free any more once a disk in memory is full, for each GiB: ours, and the kernel's.
fn each_gib(site: &Site, setup: &str, rounds: &mut Rounds) -> Result<()> {
    let mut add = |subject: &str, before: u64| -> Result<()> {
        let taken = before.saturating_sub(memory::free_bytes()?) as f64;
        rounds.add(setup, subject, Metric::Bytes, None, taken * 1024.0 / LARGE_MIB as f64);
        Ok(())
    };
    let before = memory::free_bytes()?;
    let device = site.volume(NAME, Spec::ram(LARGE_MIB).depth(TAGS))?;
    write_all(&device, LARGE_MIB)?;
    add(OURS, before)?;
    site.destroy(NAME)?;
    let before = memory::free_bytes()?;
    let brd = Brd::load(LARGE_MIB)?;
    write_all(brd.device(), LARGE_MIB)?;
    add("brd", before)?;
    brd.unload()
}

/// The version that is live, and the other one.
fn payloads(site: &Site) -> Result<(&'static str, &'static str)> {
    let [first, second] = VERSIONS;
    Ok(if site.live()? == first { (first, second) } else { (second, first) })
}

/// What the kernel calls a payload.
fn module_of(site: &Site, version: &str) -> Result<String> {
    let file = site.file(version);
    let name = file.file_stem().with_context(|| format!("{version} has no file"))?;
    Ok(kmod::normalised(&name.to_string_lossy()))
}
