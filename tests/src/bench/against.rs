// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! This tree's modules beside those of an earlier commit. There is one Atom at a time, so each side is loaded and unloaded in each
//! round, and the sides take turns to be first.

use std::path::Path;

use anyhow::Result;
use atomctl::report::Mode;

use super::fio::{self, Workload};
use super::series::{Metric, Rounds, Series, OURS};
use super::window::Application;
use super::{pause, How, Wish};
use crate::site::{Site, Spec, MODULES};

/// Where the host puts the modules of the earlier commit, and what they are called.
pub const BEFORE: &str = "/lib/atom-before";
const THEIRS: &str = "before";
/// Rounds, milliseconds of each measurement of requests, and upgrades in each round.
const THOROUGH: (usize, u32, usize) = (20, 500, 5);
const QUICK: (usize, u32, usize) = (2, 200, 2);
const COUNTED: (usize, u32, usize) = (1, 100, 2);
const MIB: u64 = 256;
const KINDS: [(&str, Spec); 2] = [("nothing kept", Spec::null(MIB)), ("in memory", Spec::ram(MIB))];
const TAGS: u16 = 128;
const DEPTH: u32 = 32;

/// Measures the pause of warm upgrades and the cost of a request, of both. Whoever is measured first in a guest pays for what happens
/// once, so that the round before the first one does not count.
pub fn run(wish: Wish<'_>) -> Result<Vec<Series>> {
    let (count, milliseconds, upgrades) = match wish.how {
        How::Thorough => THOROUGH,
        How::Quick => QUICK,
        How::Counted => COUNTED,
    };
    let sides = [(OURS, MODULES), (THEIRS, BEFORE)];
    for side in sides {
        measure(&mut Rounds::default(), side, wish, (milliseconds, 1))?;
    }
    eprintln!("step: warmed up");
    let mut rounds = Rounds::default();
    for round in 0..count {
        let [one, other] = sides;
        let turn = if round % 2 == 0 { [one, other] } else { [other, one] };
        for side in turn {
            measure(&mut rounds, side, wish, (milliseconds, upgrades))?;
        }
        eprintln!("step: round {} of {count}", round + 1);
    }
    Ok(rounds.end())
}

/// One side in one round: milliseconds of each measurement of requests, and upgrades.
fn measure(
    rounds: &mut Rounds,
    (subject, folder): (&'static str, &str),
    wish: Wish<'_>,
    (milliseconds, upgrades): (u32, usize),
) -> Result<()> {
    let site = Site::start(Path::new(folder), pause::VERSIONS[0])?;
    for (kind, spec) in KINDS.iter().filter(|(kind, _)| kind.contains(wish.only)) {
        let device = site.volume("bench", spec.depth(TAGS))?;
        for depth in [1, DEPTH] {
            let (name, pattern) = ("random write 4k", "randwrite");
            let workload =
                Workload { name, pattern, block: "4k", depth, batch: 1, jobs: 1, polled: false };
            let setup = format!("{kind}: {}", workload.title());
            let iops = fio::iops(&device, &workload, MIB, milliseconds)?;
            rounds.add(&setup, subject, Metric::Iops, None, iops);
        }
        if wish.how != How::Counted {
            let load = Application::start(&device, DEPTH, spec.bytes)?;
            for _ in 0..upgrades {
                let took = pause::upgrade(&site, Mode::Warm)?;
                let micros = super::window::micros(took.pause.unwrap_or_default());
                rounds.add(kind, subject, Metric::Pause, None, micros);
            }
            load.stop()?;
        }
        site.destroy("bench")?;
    }
    site.leave()
}
