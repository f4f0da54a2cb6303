// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The suite *scale*: what grows with the number of devices, of open handles, and with the memory of a volume: the pause, the time
//! to make and to remove devices, and the kernel's memory for each.
//!
//! In each round each size comes once, so that what else the host does meets all of them.

use std::fs::{self, File};
use std::time::Instant;

use anyhow::{Context as _, Result};
use atomctl::report::Mode;

use super::series::{Metric, Rounds, Series, OURS};
use super::window::micros;
use super::{How, Wish};
use crate::site::{Site, Spec};

/// The two payloads that take turns.
const VERSIONS: [&str; 2] = ["2.0.0", "2.1.0"];
/// Rounds.
const THOROUGH: usize = 10;
const QUICK: usize = 2;
/// Devices, open handles, and MiB of a volume that is written all over.
const DEVICES: [u64; 4] = [1, 16, 128, 1024];
const HANDLES: [u64; 3] = [1, 100, 10_000];
const MIB: [u64; 3] = [1, 64, 1024];
/// The same for a first look.
const FEW_DEVICES: [u64; 2] = [1, 16];
const FEW_HANDLES: [u64; 2] = [1, 100];
const FEW_MIB: [u64; 2] = [1, 16];
/// MiB of a volume where it is not the memory that counts, its hardware queues, and their tags.
const SMALL_MIB: u64 = 1;
const QUEUES: u16 = 2;
const TAGS: u16 = 32;

/// Measures one size of a setup.
type Measure = fn(&Site, &str, u64, &mut Rounds) -> Result<()>;

/// Measures all setups whose names contain what is wished for.
pub fn run(wish: Wish<'_>) -> Result<Vec<Series>> {
    let is_quick = wish.how != How::Thorough;
    let count = if is_quick { QUICK } else { THOROUGH };
    let pick = |all: &'static [u64], few: &'static [u64]| if is_quick { few } else { all };
    let mut rounds = Rounds::default();
    let site = Site::on_guest(VERSIONS[0])?;
    let setups: [(&str, &[u64], Measure); 3] = [
        ("devices", pick(&DEVICES, &FEW_DEVICES), devices),
        ("open handles", pick(&HANDLES, &FEW_HANDLES), handles),
        ("MiB in memory", pick(&MIB, &FEW_MIB), memory),
    ];
    for (setup, sizes, measure) in setups {
        if !setup.contains(wish.only) {
            continue;
        }
        for round in 0..count {
            for size in sizes {
                measure(&site, setup, *size, &mut rounds)
                    .with_context(|| format!("{size} {setup}"))?;
            }
            eprintln!("step: {setup}: round {} of {count}", round + 1);
        }
    }
    site.leave()?;
    Ok(rounds.end())
}

/// Makes so many devices, upgrades, and removes them.
fn devices(site: &Site, setup: &str, count: u64, rounds: &mut Rounds) -> Result<()> {
    let spec = Spec { hw_queues: QUEUES, ..Spec::null(SMALL_MIB).depth(TAGS) };
    let before = taken_bytes()?;
    let begun = Instant::now();
    for index in 0..count {
        site.volume(&format!("v{index}"), spec)?;
    }
    rounds.add(setup, "create", Metric::Whole, Some(count), micros(begun.elapsed()));
    let each = taken_bytes()?.saturating_sub(before) as f64 / count as f64;
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
    let before = taken_bytes()?;
    let open: std::io::Result<Vec<File>> = (0..count).map(|_| File::open(&device)).collect();
    let open = open.context(device)?;
    let each = taken_bytes()?.saturating_sub(before) as f64 / count as f64;
    rounds.add(setup, "each handle", Metric::Bytes, Some(count), each);
    upgrade(site, setup, count, rounds)?;
    drop(open);
    site.destroy("one")
}

/// Upgrades one device in memory, all of which was written.
fn memory(site: &Site, setup: &str, mib: u64, rounds: &mut Rounds) -> Result<()> {
    let device = site.volume("one", Spec::ram(mib).depth(TAGS))?;
    let count = format!("count={mib}");
    let to = format!("of={device}");
    super::call("dd", &["if=/dev/zero", &to, "bs=1M", "oflag=direct", &count])?;
    upgrade(site, setup, mib, rounds)?;
    site.destroy("one")
}

fn upgrade(site: &Site, setup: &str, at: u64, rounds: &mut Rounds) -> Result<()> {
    let to = if site.live()? == VERSIONS[0] { VERSIONS[1] } else { VERSIONS[0] };
    let begun = Instant::now();
    let report = site.upgrade(to, Mode::Warm)?;
    rounds.add(setup, OURS, Metric::Whole, Some(at), micros(begun.elapsed()));
    rounds.add(setup, OURS, Metric::Pause, Some(at), report.pause_us as f64);
    Ok(())
}

/// Bytes that the kernel has taken for objects that nobody can take from it, and for each processor.
fn taken_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let field = |name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.with_context(|| format!("no {name} in /proc/meminfo"))?.parse::<u64>()? << 10)
    };
    Ok(field("SUnreclaim:")? + field("Percpu:")?)
}
