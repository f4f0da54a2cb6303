// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Handoffs that succeed and handoffs that are aborted, mixed at random, under verified load at saturated queues.
//!
//! Most payloads stay loaded, so that a handoff is one call; some upgrades load and unload modules as the tool does.
//! After each one the payload serves that must, and every device has ended requests.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use atom_abi::control::{outcome, Report};
use atom_abi::request::op;
use atom_abi::version::reason;
use atomctl::kmod;
use atomctl::node::Node;
use atomctl::report::{Mode, Outcome};
use atomctl::volume;

use super::upgrades::quantiles;
use super::{busy, Context};
use crate::kept::keep;
use crate::load::fio::{Fio, Shape};
use crate::random::{seed, Random};
use crate::site::{Site, Spec};
use crate::wait;
use crate::{memory, queue};

/// Handoffs in all.
const HANDOFFS: u64 = 500;
/// Those before the first look at the memory.
const WARM_UP: u64 = 100;
const DEVICES: usize = 3;
/// Tags in each hardware queue, and requests that fio wants to have in flight.
const TAGS: u16 = 8;
const DEPTH: u32 = 32;
const LONG: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
/// The deadline that kept requests let pass.
const SHORT: Duration = Duration::from_millis(20);
/// Memory that may be gone after the rest of the handoffs: less than a page for each. What a processor keeps for
/// itself comes and goes by as much.
const LEAK_KIB: u64 = 1024;

/// What can serve, and stays loaded.
const SERVING: [&str; 3] = ["1.0.0", "1.1.0", "9.0.0-stuck"];
/// What cannot take over.
const FAILING: [&str; 3] = ["prepare", "adopt", "bind"];
/// The variant whose freeze can be made to fail, once. A variant that can never freeze could never be replaced.
const FREEZES_ONCE: &str = "fault";
/// Fails *freeze*, with an errno, the first time.
const FREEZE_ONCE: &str = "fault_step=5 fault_kind=1 fault_value=5 fault_times=1";

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A warm switch between payloads that stay loaded.
    Warm,
    /// As the tool does it: the module is loaded, and the old one removed.
    WarmByTool,
    /// Abandon, and another payload adopts.
    Cold,
    /// As the tool does it.
    ColdByTool,
    /// The candidate fails in *prepare*.
    FailsPrepare,
    /// The live payload fails in *freeze*.
    FailsFreeze,
    /// The candidate fails in *adopt*.
    FailsAdopt,
    /// The candidate forgets a device.
    ForgetsBind,
    /// Requests are kept until the deadline has passed.
    MeetsDeadline,
    /// Abandon, a candidate fails in *adopt*, the old payload adopts again.
    ColdFailsAdopt,
}

/// How often each comes up, in a hundred.
const WEIGHTS: &[(Kind, u64)] = &[
    (Kind::Warm, 44),
    (Kind::WarmByTool, 3),
    (Kind::Cold, 7),
    (Kind::ColdByTool, 2),
    (Kind::FailsPrepare, 8),
    (Kind::FailsFreeze, 3),
    (Kind::FailsAdopt, 10),
    (Kind::ForgetsBind, 8),
    (Kind::MeetsDeadline, 12),
    (Kind::ColdFailsAdopt, 3),
];

pub fn aborted_and_successful_upgrades_mixed_at_random(context: &mut Context) -> Result<()> {
    let seed = seed()?;
    context.step(&format!("seed {seed}: ATOM_SEED={seed} repeats it"));
    context.fact("seed", seed);
    let mut random = Random::new(seed);
    let begun = Instant::now();
    let mut tally = Tally::default();
    let mut left = Vec::new();
    for (from, to) in [(0, WARM_UP), (WARM_UP, HANDOFFS)] {
        Mix::run(context, &mut random, &mut tally, from..to)?;
        // Caches of the file system that the test itself lies on are no leak of ours.
        fs::write("/proc/sys/vm/drop_caches", "3")?;
        left.push(memory::others_kib()?);
    }
    let took = begun.elapsed();
    context.fact("seconds", took.as_secs_f64());
    let kinds: BTreeMap<String, u64> =
        tally.kinds.iter().map(|(kind, count)| (format!("{kind:?}"), *count)).collect();
    context.fact("handoffs", &kinds);
    context.fact("pause_us_done", quantiles(&mut tally.done));
    context.fact("pause_us_undone", quantiles(&mut tally.undone));
    context.fact("verified_ios", tally.ios);
    context.fact("slowest_io_us", tally.slowest_us);
    context.fact("kib_for_others", &left);
    ensure!(kinds.values().sum::<u64>() == HANDOFFS, "{kinds:?}");
    let [early, late] = left[..] else { anyhow::bail!("{left:?}") };
    busy::nothing_is_lost(early, late, LEAK_KIB)?;
    Ok(())
}

/// What was done.
#[derive(Default)]
struct Tally {
    kinds: BTreeMap<Kind, u64>,
    done: Vec<u64>,
    undone: Vec<u64>,
    ios: u64,
    slowest_us: u64,
}

/// A site under load, with everything loaded that is needed.
struct Mix<'a> {
    site: Site,
    random: &'a mut Random,
    tally: &'a mut Tally,
    devices: Vec<String>,
    loads: Vec<Fio>,
    /// Identities by version, or by the name of the variant.
    ids: BTreeMap<String, u32>,
    live: String,
}

impl Mix<'_> {
    /// From loading to leaving nothing behind.
    fn run(
        context: &Context,
        random: &mut Random,
        tally: &mut Tally,
        numbers: std::ops::Range<u64>,
    ) -> Result<()> {
        let mut mix = Mix::set_up(random, tally)?;
        for number in numbers {
            let kind = mix.choose()?;
            context.step(&format!("{number}: {kind:?}, {} is live", mix.live));
            mix.carry_out(kind).with_context(|| format!("handoff {number}, {kind:?}"))?;
            mix.serves().with_context(|| format!("after handoff {number}, {kind:?}"))?;
            *mix.tally.kinds.entry(kind).or_default() += 1;
        }
        context.step("everything is read back and taken down");
        mix.take_down()
    }

    fn set_up<'a>(random: &'a mut Random, tally: &'a mut Tally) -> Result<Mix<'a>> {
        let live = SERVING[0];
        let site = Site::on_guest(live)?;
        let mut ids = BTreeMap::from([(live.to_owned(), site.node().status()?.live)]);
        for version in SERVING[1..].iter().chain(&FAILING) {
            ids.insert((*version).to_owned(), site.insert(&site.file(version))?);
        }
        let (mut devices, mut loads) = (Vec::new(), Vec::new());
        for index in 0..DEVICES {
            let device = site.volume(&format!("v{index}"), Spec::ram(16).depth(TAGS))?;
            loads.push(Fio::start(&device, Shape { depth: DEPTH, bytes: 4 << 20, verify: true })?);
            devices.push(device);
        }
        Ok(Mix { site, random, tally, devices, loads, ids, live: live.to_owned() })
    }

    fn choose(&mut self) -> Result<Kind> {
        let mut at = self.random.below(WEIGHTS.iter().map(|(_, weight)| weight).sum());
        for (kind, weight) in WEIGHTS {
            if at < *weight {
                // Without a variant that can freeze the second time, there would be no way on.
                let replaceable = *kind != Kind::FailsFreeze || self.site.has(FREEZES_ONCE);
                return Ok(if replaceable { *kind } else { Kind::FailsPrepare });
            }
            at -= weight;
        }
        anyhow::bail!("the weights do not add up")
    }

    fn carry_out(&mut self, kind: Kind) -> Result<()> {
        match kind {
            Kind::Warm => {
                let next = self.another()?;
                self.switch(&next)
            }
            Kind::Cold => {
                let next = self.another()?;
                self.abandon()?;
                self.adopt(&next)
            }
            Kind::WarmByTool => self.by_tool(Mode::Warm),
            Kind::ColdByTool => self.by_tool(Mode::Cold),
            Kind::FailsPrepare => self.fails("prepare", outcome::REFUSED, reason::OPERATION),
            Kind::FailsAdopt => self.fails("adopt", outcome::UNDONE, reason::OPERATION),
            Kind::ForgetsBind => self.fails("bind", outcome::UNDONE, reason::UNBOUND_DEVICE),
            Kind::FailsFreeze => self.fails_freeze(),
            Kind::MeetsDeadline => self.meets_deadline(),
            Kind::ColdFailsAdopt => {
                let old = self.live.clone();
                self.abandon()?;
                let report = self.site.node().adopt(self.id("adopt")?)?;
                ensure!(report.outcome == outcome::UNDONE, "{report:?}");
                self.adopt(&old)
            }
        }
    }

    /// A payload that can serve and does not.
    fn another(&mut self) -> Result<String> {
        let others: Vec<&str> =
            SERVING.into_iter().filter(|version| *version != self.live).collect();
        Ok((*self.random.one_of(&others)?).to_owned())
    }

    fn id(&self, version: &str) -> Result<u32> {
        self.ids.get(version).copied().with_context(|| format!("{version} is not loaded"))
    }

    fn switch(&mut self, next: &str) -> Result<()> {
        let report = self.site.node().switch(self.id(next)?, LONG)?;
        self.done(&report)?;
        self.live = next.to_owned();
        Ok(())
    }

    fn abandon(&mut self) -> Result<()> {
        let report = self.site.node().abandon(1, LONG)?;
        ensure!(report.outcome == outcome::DONE, "abandon: {}", report.refusal);
        Ok(())
    }

    fn adopt(&mut self, next: &str) -> Result<()> {
        let report = self.site.node().adopt(self.id(next)?)?;
        self.done(&report)?;
        self.live = next.to_owned();
        Ok(())
    }

    fn done(&mut self, report: &Report) -> Result<()> {
        ensure!(report.outcome == outcome::DONE, "{}: {report:?}", report.refusal);
        self.tally.done.push(report.pause_ns / 1000);
        Ok(())
    }

    /// The next payload is loaded by the tool, and the old one is unloaded; then it is loaded again.
    fn by_tool(&mut self, mode: Mode) -> Result<()> {
        let (old, next) = (self.live.clone(), self.another()?);
        self.unload(&next)?;
        let report = self.site.upgrade(&next, mode)?;
        self.tally.done.push(report.pause_us);
        ensure!(report.outcome == Outcome::Committed, "{report:?}");
        self.ids.insert(next.clone(), self.site.node().status()?.live);
        let id = self.site.insert(&self.site.file(&old))?;
        self.ids.insert(old, id);
        self.live = next;
        Ok(())
    }

    fn unload(&mut self, version: &str) -> Result<()> {
        let id = self.ids.remove(version).with_context(|| format!("{version} is not loaded"))?;
        let payloads = self.site.node().payloads()?;
        let payload = payloads.iter().find(|payload| payload.id == id);
        Ok(kmod::remove(payload.context("Atom does not know it")?.module.as_str())?)
    }

    /// The candidate cannot take over; what serves goes on.
    fn fails(&mut self, candidate: &str, ends: u32, why: u32) -> Result<()> {
        let report = self.site.node().switch(self.id(candidate)?, LONG)?;
        ensure!(report.outcome == ends && report.refusal.code == why, "{report:?}");
        if ends == outcome::UNDONE {
            self.tally.undone.push(report.pause_ns / 1000);
        }
        Ok(())
    }

    /// The live payload cannot write its image the first time, and can the second time.
    fn fails_freeze(&mut self) -> Result<()> {
        let back = self.live.clone();
        let id = self.site.insert_with(&self.site.file(FREEZES_ONCE), FREEZE_ONCE)?;
        self.ids.insert(FREEZES_ONCE.to_owned(), id);
        self.switch(FREEZES_ONCE)?;
        let report = self.site.node().switch(self.id(&back)?, LONG)?;
        ensure!(
            report.outcome == outcome::UNDONE && report.refusal.code == reason::OPERATION,
            "{report:?}"
        );
        self.tally.undone.push(report.pause_ns / 1000);
        ensure!(self.site.node().status()?.live == id, "it does not serve on");
        self.switch(&back)?;
        self.unload(FREEZES_ONCE)
    }

    /// The live payload keeps requests, the deadline passes, it ends them.
    fn meets_deadline(&mut self) -> Result<()> {
        let stuck = SERVING[2];
        if self.live != stuck {
            self.switch(stuck)?;
        }
        let kept = 1 + self.random.below(u64::from(TAGS) / 2) as u32;
        keep(self.site.node().control(), op::WRITE, kept)?;
        let next = self.another()?;
        let report = if self.random.below(4) == 0 {
            self.site.node().abandon(1, SHORT)?
        } else {
            self.site.node().switch(self.id(&next)?, SHORT)?
        };
        ensure!(
            report.outcome == outcome::UNDONE && report.refusal.code == reason::DEADLINE,
            "{report:?}"
        );
        ensure!(report.owed == kept, "{report:?}");
        self.tally.undone.push(report.pause_ns / 1000);
        Ok(volume::release(self.site.node().control())?)
    }

    /// Exactly the payload that must serves, and every device has ended requests since.
    fn serves(&mut self) -> Result<()> {
        let live = self.site.live()?;
        let status = self.site.node().status()?;
        ensure!(live == self.live, "{live} is live, not {}", self.live);
        ensure!(status.held_ns == 0 && status.stale_completions == 0, "{status:?}");
        ensure!(status.payloads as usize == self.ids.len(), "{status:?}, not {:?}", self.ids);
        let before = self.requests()?;
        wait::until("requests on every device", PATIENCE, || {
            self.loads.iter_mut().try_for_each(Fio::check)?;
            let now: Result<Vec<u64>> =
                self.devices.iter().map(|device| Ok(queue::stat(device)?.requests())).collect();
            Ok(now?.iter().zip(&before).all(|(now, before)| now > before))
        })
    }

    fn requests(&self) -> Result<Vec<u64>> {
        self.devices.iter().map(|device| Ok(queue::stat(device)?.requests())).collect()
    }

    fn take_down(self) -> Result<()> {
        for load in self.loads {
            let done = load.stop()?;
            self.tally.ios += done.ios;
            self.tally.slowest_us = self.tally.slowest_us.max(done.slowest_us);
        }
        for device in &self.devices {
            let left = queue::in_flight(device)?;
            ensure!(left == 0, "{left} requests of {device} are left");
        }
        self.site.leave()
    }
}
