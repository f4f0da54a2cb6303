// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The suite *scale*: what grows with the number of devices, of open handles, the memory of a volume, and the image: the pause, the time
//! to make and to remove devices, and the kernel's memory for each.
//!
//! In each round each size comes once, so that what else the host does meets all of them.

use std::fs::File;
use std::time::Instant;

use anyhow::{Context as _, Result};
use atomctl::report::Mode;
use nix::sys::resource::{setrlimit, Resource};

use super::pause::{self, VERSIONS};
use super::series::{Metric, Rounds, Series, OURS};
use super::window::micros;
use super::{write_all, How, Wish};
use crate::memory::object_bytes;
use crate::site::{Site, Spec};
use crate::variant;

/// Two payloads that have much state.
const LARGE: [&str; 2] = ["9.0.0-large", "9.0.0-large-too"];
/// Rounds with many devices, and with one, where a difference of a tenth is looked for.
const THOROUGH: usize = 10;
const THOROUGH_ONE: usize = 30;
const QUICK: usize = 2;
/// Rounds with more than so many devices, which take minutes.
const FEW: usize = 2;
const MANY_DEVICES: u64 = 128;
const DEVICES_SETUP: &str = "devices";
/// Devices, open handles, and MiB of a volume that is written all over.
const DEVICES: [u64; 4] = [1, 16, 128, 1024];
const HANDLES: [u64; 3] = [1, 100, 10_000];
const MIB: [u64; 3] = [1, 64, 1024];
/// Files that are open beside those that are counted.
const SPARE: u64 = 1000;
/// KiB of an image, up to nearly as much as Atom takes.
const IMAGE_KIB: [u64; 3] = [64, 1024, 63 << 10];
/// The same for a first look.
const FEW_DEVICES: [u64; 2] = [1, 16];
const FEW_HANDLES: [u64; 2] = [1, 100];
const FEW_MIB: [u64; 2] = [1, 16];
const FEW_KIB: [u64; 2] = [64, 1024];
/// MiB of a volume where it is not the memory that counts, its hardware queues, and their tags.
const SMALL_MIB: u64 = 1;
const QUEUES: u16 = 2;
const TAGS: u16 = 32;

/// Measures one size of a setup.
type Measure = fn(&Site, &str, u64, &mut Rounds) -> Result<()>;

/// Measures all setups whose names contain what is wished for.
pub fn run(wish: Wish<'_>) -> Result<Vec<Series>> {
    let is_quick = wish.how != How::Thorough;
    let pick = |all: &'static [u64], few: &'static [u64]| if is_quick { few } else { all };
    let mut rounds = Rounds::default();
    let setups: [(&str, &str, &[u64], Measure); 4] = [
        (DEVICES_SETUP, VERSIONS[0], pick(&DEVICES, &FEW_DEVICES), devices),
        ("open handles", VERSIONS[0], pick(&HANDLES, &FEW_HANDLES), handles),
        ("MiB in memory", VERSIONS[0], pick(&MIB, &FEW_MIB), memory),
        ("KiB of an image", LARGE[0], pick(&IMAGE_KIB, &FEW_KIB), image),
    ];
    for (setup, first, sizes, measure) in setups {
        if !setup.contains(wish.only) {
            continue;
        }
        let site = Site::on_guest(first)?;
        let count = match setup {
            _ if is_quick => QUICK,
            DEVICES_SETUP => THOROUGH,
            _ => THOROUGH_ONE,
        };
        for round in 0..count {
            for size in sizes {
                if round >= FEW && setup == DEVICES_SETUP && *size > MANY_DEVICES {
                    continue;
                }
                measure(&site, setup, *size, &mut rounds)
                    .with_context(|| format!("{size} {setup}"))?;
            }
            eprintln!("step: {setup}: round {} of {count}", round + 1);
        }
        site.leave()?;
    }
    Ok(rounds.end())
}

/// Makes so many devices, upgrades, and removes them.
fn devices(site: &Site, setup: &str, count: u64, rounds: &mut Rounds) -> Result<()> {
    let spec = Spec { hw_queues: QUEUES, ..Spec::null(SMALL_MIB).depth(TAGS) };
    let before = object_bytes()?;
    let begun = Instant::now();
    for index in 0..count {
        site.volume(&format!("v{index}"), spec)?;
    }
    rounds.add(setup, "create", Metric::Whole, Some(count), micros(begun.elapsed()));
    let each = object_bytes()?.saturating_sub(before) as f64 / count as f64;
    rounds.add(setup, "each device", Metric::Bytes, Some(count), each);
    upgrade(site, setup, count, rounds)?;
    let begun = Instant::now();
    for index in 0..count {
        site.destroy(&format!("v{index}"))?;
    }
    rounds.add(setup, "destroy", Metric::Whole, Some(count), micros(begun.elapsed()));
    Ok(())
}

/// Upgrades one device that is open so many times.
fn handles(site: &Site, setup: &str, count: u64, rounds: &mut Rounds) -> Result<()> {
    let device = site.volume("one", Spec::null(SMALL_MIB).depth(TAGS))?;
    setrlimit(Resource::RLIMIT_NOFILE, count + SPARE, count + SPARE).context("more open files")?;
    let before = object_bytes()?;
    let open: std::io::Result<Vec<File>> = (0..count).map(|_| File::open(&device)).collect();
    let open = open.context(device)?;
    let each = object_bytes()?.saturating_sub(before) as f64 / count as f64;
    rounds.add(setup, "each handle", Metric::Bytes, Some(count), each);
    upgrade(site, setup, count, rounds)?;
    drop(open);
    site.destroy("one")
}

/// Upgrades one device in memory, all of which was written.
fn memory(site: &Site, setup: &str, mib: u64, rounds: &mut Rounds) -> Result<()> {
    let device = site.volume("one", Spec::ram(mib).depth(TAGS))?;
    write_all(&device, mib)?;
    upgrade(site, setup, mib, rounds)?;
    site.destroy("one")
}

/// Upgrades one device with a payload that has so much state.
fn image(site: &Site, setup: &str, kib: u64, rounds: &mut Rounds) -> Result<()> {
    let pages = u32::try_from(kib / 4)?;
    site.volume("one", Spec::null(SMALL_MIB).depth(TAGS))?;
    variant::fill(site.node().control(), pages)?;
    let took = pause::upgrade_between(site, LARGE, Mode::Warm)?;
    took.record(rounds, setup, OURS, Some(kib));
    site.destroy("one")
}

fn upgrade(site: &Site, setup: &str, at: u64, rounds: &mut Rounds) -> Result<()> {
    pause::upgrade(site, Mode::Warm)?.record(rounds, setup, OURS, Some(at));
    Ok(())
}
