// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The suite *pause*: for how long a change of code, or of what stands in for it, is seen.
//!
//! Each side has a device that keeps nothing. In each round each side changes once, under a load that keeps every tag taken,
//! while the devices of the others are idle.

use std::time::{Duration, Instant};

use anyhow::Result;
use atom_abi::control::phase;
use atomctl::report::Mode;

use super::peers::{Mapped, Nbd, NullBlk, Single, Ublk};
use super::series::{Metric, Rounds, Series, OURS};
use super::window::{micros, Application, Trace};
use super::{How, Wish};
use crate::site::{Site, Spec};

/// The two payloads that take turns.
pub const VERSIONS: [&str; 2] = ["2.0.0", "2.1.0"];
/// Rounds beside the peers, and warm upgrades in a row of which the distribution is.
const THOROUGH: (usize, usize) = (10, 500);
const QUICK: (usize, usize) = (2, 6);
/// Warm upgrades of a row around which the gap is looked for, too.
const WATCHED: usize = 100;
/// Tags of each hardware queue, and requests that are wanted in flight.
const TAGS: u16 = 32;
const DEPTH: u32 = 64;
/// MiB of a device that keeps nothing, and of one in memory.
const NULL_MIB: u64 = 256;
const RAM_MIB: u64 = 64;

/// How long a change took.
pub struct Took {
    /// None: no request waits for it.
    pub pause: Option<Duration>,
    pub whole: Duration,
    /// Parts of the pause, where they are known: microseconds.
    pub phases: Vec<(Metric, f64)>,
}

impl Took {
    /// Without the parts of the pause.
    fn whole(pause: Duration, whole: Duration) -> Self {
        Self { pause: Some(pause), whole, phases: Vec::new() }
    }

    /// Adds it to a round.
    pub fn record(&self, rounds: &mut Rounds, setup: &str, subject: &str, at: Option<u64>) {
        if let Some(pause) = self.pause {
            rounds.add(setup, subject, Metric::Pause, at, micros(pause));
        }
        rounds.add(setup, subject, Metric::Whole, at, micros(self.whole));
        for (metric, value) in &self.phases {
            rounds.add(setup, subject, *metric, at, *value);
        }
    }
}

/// Who changes.
trait Change {
    fn subject(&self) -> &'static str;
    fn device(&self) -> &str;
    /// Changes once.
    fn change(&mut self) -> Result<Took>;
}

/// Our upgrade, by the library that `atomctl` is made of.
struct Upgrade<'a> {
    site: &'a Site,
    device: &'a str,
    mode: Mode,
}

impl Change for Upgrade<'_> {
    fn subject(&self) -> &'static str {
        match self.mode {
            Mode::Warm => OURS,
            Mode::Cold => "atom, cold",
        }
    }

    fn device(&self) -> &str {
        self.device
    }

    fn change(&mut self) -> Result<Took> {
        upgrade(self.site, self.mode)
    }
}

/// Upgrades to the other of the two.
pub fn upgrade(site: &Site, mode: Mode) -> Result<Took> {
    upgrade_between(site, VERSIONS, mode)
}

/// The same with two others.
pub fn upgrade_between(site: &Site, versions: [&str; 2], mode: Mode) -> Result<Took> {
    let to = if site.live()? == versions[0] { versions[1] } else { versions[0] };
    let begun = Instant::now();
    let report = site.upgrade(to, mode)?;
    let (pause, whole) = (Duration::from_micros(report.pause_us), begun.elapsed());
    let phase = |at: usize| report.phases_us.get(phase::NAMES[at]).unwrap_or(0) as f64;
    let phases = Metric::PHASES.map(|(metric, at)| (metric, phase(at))).to_vec();
    Ok(Took { pause: Some(pause), whole, phases })
}

impl Change for Mapped {
    fn subject(&self) -> &'static str {
        "device mapper"
    }

    fn device(&self) -> &str {
        Mapped::device(self)
    }

    fn change(&mut self) -> Result<Took> {
        let begun = Instant::now();
        let pause = self.swap()?;
        Ok(Took::whole(pause, begun.elapsed()))
    }
}

impl Change for Ublk {
    fn subject(&self) -> &'static str {
        "ublk"
    }

    fn device(&self) -> &str {
        Ublk::device(self)
    }

    fn change(&mut self) -> Result<Took> {
        let pause = self.swap()?;
        Ok(Took::whole(pause, pause))
    }
}

impl Change for Single {
    fn subject(&self) -> &'static str {
        "livepatch"
    }

    fn device(&self) -> &str {
        self.null()
    }

    fn change(&mut self) -> Result<Took> {
        Ok(Took { pause: None, whole: self.patch()?, phases: Vec::new() })
    }
}

impl Change for Nbd {
    fn subject(&self) -> &'static str {
        "kernel's nbd"
    }

    fn device(&self) -> &str {
        Nbd::device(self)
    }

    fn change(&mut self) -> Result<Took> {
        let begun = Instant::now();
        let pause = self.swap()?;
        // Those that were in flight come back long after the connection, and the gap ends with them.
        self.wait_for(2 * u64::from(DEPTH))?;
        Ok(Took::whole(pause, begun.elapsed()))
    }
}

/// Measures all setups whose names contain what is wished for.
pub fn run(wish: Wish<'_>) -> Result<(Vec<Series>, Vec<Trace>)> {
    let (beside, in_a_row) = match wish.how {
        How::Thorough => THOROUGH,
        How::Quick | How::Counted => QUICK,
    };
    let (mut rounds, mut traces) = (Rounds::default(), Vec::new());
    let site = Site::on_guest(VERSIONS[0])?;
    let setup = "one device, beside peers";
    if setup.contains(wish.only) {
        beside_peers(&site, setup, beside, &mut rounds, &mut traces)?;
    }
    for (setup, spec) in [
        ("one device that keeps nothing, in a row", Spec::null(NULL_MIB)),
        ("one device in memory, in a row", Spec::ram(RAM_MIB)),
    ] {
        if setup.contains(wish.only) {
            row(&site, setup, spec, in_a_row, &mut rounds)?;
        }
    }
    site.leave()?;
    Ok((rounds.end(), traces))
}

fn beside_peers(
    site: &Site,
    setup: &str,
    count: usize,
    rounds: &mut Rounds,
    traces: &mut Vec<Trace>,
) -> Result<()> {
    let device = site.volume("bench", Spec::null(NULL_MIB).depth(TAGS))?;
    let null_blk = NullBlk::load(TAGS.into())?;
    let mapped = Mapped::over(null_blk.device(), "bench")?;
    let nbd = Nbd::start(NULL_MIB)?;
    let ublk = if Ublk::is_there() { Some(Ublk::start(TAGS.into())?) } else { None };
    let single = Single::load_traced(NULL_MIB, TAGS.into())?;
    {
        let mut warm = Upgrade { site, device: &device, mode: Mode::Warm };
        let mut cold = Upgrade { site, device: &device, mode: Mode::Cold };
        let (mut mapped, mut nbd, mut ublk, mut single) = (mapped, nbd, ublk, single);
        for round in 0..count {
            let mut sides: Vec<&mut dyn Change> = vec![&mut warm, &mut cold, &mut mapped, &mut nbd];
            if let Some(ublk) = &mut ublk {
                sides.push(ublk);
            }
            if let Some(single) = &mut single {
                sides.push(single);
            }
            for side in sides {
                let trace = once(setup, side, rounds)?;
                // Of each side the last one.
                traces.retain(|one| one.subject != trace.subject);
                traces.push(trace);
            }
            eprintln!("step: {setup}: {} of {count}", round + 1);
        }
        if let Some(ublk) = ublk {
            ublk.stop()?;
        }
        if let Some(single) = single {
            single.unload()?;
        }
        nbd.stop()?;
        mapped.remove()?;
    }
    null_blk.unload()?;
    site.destroy("bench")
}

/// One change of one side, under load.
fn once(setup: &str, side: &mut dyn Change, rounds: &mut Rounds) -> Result<Trace> {
    let mut application = Application::start(side.device(), DEPTH, NULL_MIB << 20)?;
    let (took, seen) = application.around(|| side.change())?;
    application.stop()?;
    let gaps = seen.gaps;
    took.record(rounds, setup, side.subject(), None);
    rounds.add(setup, side.subject(), Metric::Gap, None, gaps.with);
    rounds.add(setup, side.subject(), Metric::QuietGap, None, gaps.without);
    let (setup, subject) = (setup.to_owned(), side.subject().to_owned());
    Ok(Trace { setup, subject, change: seen.change, reads: seen.reads })
}

/// Warm upgrades, one after the other, under one load.
fn row(site: &Site, setup: &str, spec: Spec, count: usize, rounds: &mut Rounds) -> Result<()> {
    let device = site.volume("bench", spec.depth(TAGS))?;
    let mut application = Application::start(&device, DEPTH, spec.bytes)?;
    for round in 0..count {
        let took = if round < WATCHED {
            let (took, seen) = application.around(|| upgrade(site, Mode::Warm))?;
            rounds.add(setup, OURS, Metric::Gap, None, seen.gaps.with);
            rounds.add(setup, OURS, Metric::QuietGap, None, seen.gaps.without);
            took
        } else {
            upgrade(site, Mode::Warm)?
        };
        took.record(rounds, setup, OURS, None);
        if round % 50 == 49 {
            eprintln!("step: {setup}: {} of {count}", round + 1);
        }
    }
    application.stop()?;
    site.destroy("bench")
}
