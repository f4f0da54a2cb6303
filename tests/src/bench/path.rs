// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The suite *path*: what a request costs. Nothing is kept, so that nothing but the way to the driver and back is measured; and
//! memory, beside the kernel's disk in memory. The same code in one module, without Atom, says what the split costs.

use anyhow::Result;

use super::fio::{self, Workload};
use super::peers::{Brd, NullBlk, Single, Ublk};
use super::series::{Metric, Rounds, Series, OURS};
use super::{write_all, How, Wish};
use crate::site::{Site, Spec};

/// The payload that is measured.
const VERSION: &str = "2.1.0";
/// Rounds of each workload, and milliseconds of each measurement.
const THOROUGH: (usize, u32) = (10, 1000);
const QUICK: (usize, u32) = (2, 200);
const COUNTED: (usize, u32) = (1, 100);
/// Tags of each hardware queue, on all sides.
const TAGS: u16 = 128;
/// MiB of a device that keeps nothing, and of one that does.
const NULL_MIB: u64 = 1024;
const RAM_MIB: u64 = 128;
/// The subject that has the payload's code in one module.
const SINGLE: &str = "one module";

const WORKLOADS: [Workload; 6] = [
    random("random read 4k", "randread", 1, 1, 1),
    random("random read 4k", "randread", 32, 1, 1),
    random("random read 4k", "randread", 32, 16, 1),
    random("random read 4k", "randread", 32, 1, 4),
    random("random write 4k", "randwrite", 1, 1, 1),
    random("random write 4k", "randwrite", 32, 1, 1),
];

const POLLED: [Workload; 3] = [
    polled(random("random read 4k", "randread", 1, 1, 1)),
    polled(random("random read 4k", "randread", 32, 1, 1)),
    polled(random("random read 4k", "randread", 32, 16, 1)),
];

const fn polled(workload: Workload) -> Workload {
    Workload { polled: true, ..workload }
}

const fn random(
    name: &'static str,
    pattern: &'static str,
    depth: u32,
    batch: u32,
    jobs: u32,
) -> Workload {
    Workload { name, pattern, block: "4k", depth, batch, jobs, polled: false }
}

/// A device of somebody's.
struct Side<'a> {
    subject: &'a str,
    device: &'a str,
}

/// Measures all setups whose names contain what is wished for.
pub fn run(wish: Wish<'_>) -> Result<Vec<Series>> {
    let mut rounds = Rounds::default();
    let site = Site::on_guest(VERSION)?;
    let setup = "nothing kept";
    if setup.contains(wish.only) {
        let ours = site.volume("null", Spec::null(NULL_MIB).depth(TAGS))?;
        let null_blk = NullBlk::load(TAGS.into())?;
        // A server in user space waits for the host's clock where instructions are counted.
        let ublk = match Ublk::is_there() && wish.how != How::Counted {
            true => Some(Ublk::start(TAGS.into())?),
            false => None,
        };
        let single = Single::load(NULL_MIB, TAGS.into())?;
        let mut sides = vec![Side { subject: OURS, device: &ours }];
        sides.extend(single.iter().map(|one| Side { subject: SINGLE, device: one.null() }));
        sides.push(Side { subject: "null_blk", device: null_blk.device() });
        sides.extend(ublk.iter().map(|ublk| Side { subject: "ublk null", device: ublk.device() }));
        measure(wish.how, (setup, &WORKLOADS), &sides, NULL_MIB, &mut rounds)?;
        if let Some(ublk) = ublk {
            ublk.stop()?;
        }
        if let Some(single) = single {
            single.unload()?;
        }
        null_blk.unload()?;
        site.destroy("null")?;
    }
    let setup = "nothing kept, polled";
    if setup.contains(wish.only) {
        let spec = Spec { polled: true, ..Spec::null(NULL_MIB).depth(TAGS) };
        let ours = site.volume("null", spec)?;
        let null_blk = NullBlk::load_polled(TAGS.into())?;
        let theirs = Side { subject: "null_blk", device: null_blk.device() };
        let sides = [Side { subject: OURS, device: &ours }, theirs];
        measure(wish.how, (setup, &POLLED), &sides, NULL_MIB, &mut rounds)?;
        null_blk.unload()?;
        site.destroy("null")?;
    }
    let setup = "in memory";
    if setup.contains(wish.only) {
        let ours = site.volume("ram", Spec::ram(RAM_MIB).depth(TAGS))?;
        let brd = Brd::load(RAM_MIB)?;
        let single = Single::load(RAM_MIB, TAGS.into())?;
        let mut sides = vec![Side { subject: OURS, device: &ours }];
        sides.extend(single.iter().map(|one| Side { subject: SINGLE, device: one.ram() }));
        sides.push(Side { subject: "brd", device: brd.device() });
        for side in &sides {
            write_all(side.device, RAM_MIB)?;
        }
        measure(wish.how, (setup, &WORKLOADS), &sides, RAM_MIB, &mut rounds)?;
        if let Some(single) = single {
            single.unload()?;
        }
        brd.unload()?;
        site.destroy("ram")?;
    }
    site.leave()?;
    Ok(rounds.end())
}

fn measure(
    how: How,
    (setup, workloads): (&str, &[Workload]),
    sides: &[Side<'_>],
    mib: u64,
    rounds: &mut Rounds,
) -> Result<()> {
    let (count, milliseconds) = match how {
        How::Thorough => THOROUGH,
        How::Quick => QUICK,
        How::Counted => COUNTED,
    };
    for side in sides {
        // The first one on a device would pay for what comes once, as udev.
        fio::iops(side.device, &WORKLOADS[0], mib, milliseconds)?;
    }
    for workload in workloads {
        let title = format!("{setup}: {}", workload.title());
        for _ in 0..count {
            for side in sides {
                let iops = fio::iops(side.device, workload, mib, milliseconds)?;
                rounds.add(&title, side.subject, Metric::Iops, None, iops);
            }
        }
        eprintln!("step: {title}");
    }
    Ok(())
}
