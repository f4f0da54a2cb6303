// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Every failpoint of Atom and of a payload is met by an upgrade, by the way back from one, or by what an operator does,
//! and what it injects leaves a payload serving.
//!
//! No point is named here. First each [`Way`] is gone once while all points count, which tells the ways on which each point
//! is met; one that is met on none fails the scenario. Then each point does what it can, once, under verified load: on the
//! first of its ways, or on the next if this time nobody came by (what a payload has not begun is only handed back if there
//! is any, which the load decides on most ways, and a server that does not answer on one). Whatever comes of it, the same
//! way must then lead to its end.
//!
//! An ordinary run takes one kind of each point, in turn; `--slow` takes all. An oops is none of them: what is dead cannot be
//! unloaded.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use atom_abi::control::{outcome, setting, Report, Settings};
use atom_abi::version::reason;
use atom_payload::shown::TargetState;
use atom_payload::spec::Layout;
use atomctl::drain::{AtDeadline, Drain};
use atomctl::kmod;
use atomctl::node::Node;
use atomctl::report::Mode;
use nix::errno::Errno;

use super::Context;
use crate::composed::{self, Target};
use crate::failpoint::{self, Kind, Trigger};
use crate::load::fio::{Fio, Shape};
use crate::server::{At, Server};
use crate::site::{Site, Spec};
use crate::wait;

const DEADLINE: Duration = Duration::from_secs(3);
/// Of a drain of which something is left.
const SHORT: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(60);
const SOAK_NS: u64 = 300_000_000;
/// The volume on a network.
const REMOTE: &str = "net";
/// Counts, and never strikes.
const NEVER: Trigger = Trigger::Chance { ppm: 0, seed: 0 };

/// On which side of an upgrade a point is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Side {
    Atom,
    /// The payload that serves when the way begins.
    Old,
    /// The other one.
    New,
}

/// What somebody does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// Makes volumes and removes them.
    Volumes,
    /// Upgrades warm.
    Warm,
    /// The same, and the new payload fails to adopt.
    Undone,
    /// The same, and the new payload hangs until Atom has gone back.
    Inherited,
    /// Upgrades cold.
    Cold,
    /// Upgrades while a server does not answer, and what waits for it is handed to the new payload.
    Reissued,
    /// Upgrades with a soak, and commits.
    Committed,
    /// Upgrades with a soak, and does not commit.
    TakenBack,
    /// Waits for a connection that is lost to be made again.
    Reconnected,
}

const WAYS: [Way; 9] = [
    Way::Volumes,
    Way::Warm,
    Way::Undone,
    Way::Inherited,
    Way::Cold,
    Way::Reissued,
    Way::Committed,
    Way::TakenBack,
    Way::Reconnected,
];

/// What the points do on a way.
#[derive(Clone, Copy)]
enum Armed<'a> {
    /// All of them count.
    Count,
    /// One strikes once.
    One(Side, &'a str, Kind),
}

/// How often each point was passed on a way, and how often it struck.
type Met = BTreeMap<(Side, String), (u64, u64)>;

pub fn every_failpoint_is_met_and_leaves_a_payload_serving(context: &mut Context) -> Result<()> {
    let mut bench = Bench::start()?;
    let mut found: BTreeMap<String, Vec<(Way, Side)>> = BTreeMap::new();
    for way in WAYS {
        context.step(&format!("{way:?}, counting"));
        for ((side, name), (passed, _)) in bench.go(way, Armed::Count)? {
            if passed != 0 {
                found.entry(name).or_default().push((way, side));
            }
        }
    }
    let mut points = failpoint::list("atom")?;
    points.extend(failpoint::list(&module(bench.old))?);
    let missed: Vec<&str> =
        points.iter().map(|p| p.name.as_str()).filter(|name| !found.contains_key(*name)).collect();
    ensure!(missed.is_empty(), "nobody comes to {}", missed.join(", "));

    let mut cases = 0;
    for (at, point) in points.iter().enumerate() {
        let kinds: Vec<Kind> =
            point.kinds.iter().copied().filter(|kind| *kind != Kind::Oops).collect();
        let chosen = match context.is_slow() {
            true => kinds,
            false => kinds.get(at % kinds.len().max(1)).copied().into_iter().collect(),
        };
        for kind in chosen {
            let mut struck = 0;
            for &(way, side) in &found[&point.name] {
                let what = format!("{way:?}: {} {}", point.name, kind.name());
                context.step(&what);
                let met = bench.go(way, Armed::One(side, &point.name, kind)).context(what)?;
                struck = met.get(&(side, point.name.clone())).map_or(0, |(_, hit)| *hit);
                if struck != 0 {
                    break;
                }
            }
            ensure!(struck == 1, "{} {} struck {struck} times", point.name, kind.name());
            cases += 1;
        }
    }
    context.fact("points", points.len());
    context.fact("faults", cases);
    bench.leave()
}

pub fn a_failpoint_refuses_what_it_cannot_do(_context: &mut Context) -> Result<()> {
    let site = Site::start(Path::new(failpoint::MODULES), "2.0.0")?;
    let refusal = |line: &str| {
        let error = failpoint::set("atom", line).err()?;
        error.downcast_ref::<std::io::Error>()?.raw_os_error().map(Errno::from_raw)
    };
    for (line, errno) in [
        ("atom.drain.wait", Errno::EINVAL),
        ("atom.drain.wait error next", Errno::EINVAL),
        ("atom.drain.wait error=5 next=1\noff", Errno::EINVAL),
        ("atom.drain.nothing error", Errno::ENOENT),
        ("atom.drain.wait hang", Errno::EOPNOTSUPP),
    ] {
        ensure!(refusal(line) == Some(errno), "{line:?}: {:?}", refusal(line));
    }
    ensure!(refusal(&"x".repeat(300)) == Some(Errno::EINVAL), "a long line was taken");
    ensure!(failpoint::list("atom")?.iter().all(|point| !point.armed), "a point is armed");
    failpoint::arm("atom", "atom.drain.wait", failpoint::delay(5), Trigger::Next(2))?;
    ensure!(failpoint::find("atom", "atom.drain.wait")?.armed, "it is not armed");
    failpoint::off("atom")?;
    site.leave()
}

pub fn a_payload_on_its_way_out_cannot_take_over(context: &mut Context) -> Result<()> {
    const POINT: &str = "atom.unregister.payload";
    let site = Site::start(Path::new(failpoint::MODULES), "2.0.0")?;
    site.volume("data", Spec::ram(8))?;
    let id = site.insert(&site.file("2.1.0"))?;
    failpoint::arm("atom", POINT, failpoint::of(Kind::Hang), Trigger::Next(1))?;
    std::thread::scope(|scope| {
        let going = scope.spawn(|| kmod::remove(&module("2.1.0")));
        let switched = wait::until("its exit runs", PATIENCE, || {
            Ok(failpoint::find("atom", POINT)?.waiting != 0)
        })
        .and_then(|()| Ok(site.node().control().switch(id, DEADLINE)?));
        failpoint::release("atom", POINT)?;
        going.join().map_err(|_| anyhow::anyhow!("the removal panicked"))??;
        let report = switched?;
        ensure!(report.outcome == outcome::REFUSED, "{report:?}");
        ensure!(report.refusal.code == reason::NO_PAYLOAD, "{}", report.refusal);
        anyhow::Ok(())
    })?;
    context.step("the one that serves does so, and the kernel has counted no reference too few");
    ensure!(site.live()? == "2.0.0", "{} serves", site.live()?);
    site.upgrade("2.1.0", Mode::Warm)?;
    failpoint::off("atom")?;
    site.leave()
}

pub fn one_task_goes_back_for_one_that_hangs(context: &mut Context) -> Result<()> {
    const TAKEN: &str = "atom.undo.inherit";
    let site = Site::start(Path::new(failpoint::MODULES), "2.0.0")?;
    site.volume("data", Spec::ram(8))?;
    let control = site.node().control();
    let before = newest(&site)?;
    // Long enough for the watch to look many times before the way back has begun.
    failpoint::arm("atom", TAKEN, failpoint::delay(500), Trigger::Next(1))?;
    let abandoned = hangs(&site, &module("2.0.0"), "payload.abandon.begin", || {
        Ok(control.abandon(Some(4), SHORT)?)
    })?;
    ensure!(abandoned.is_err(), "nobody has taken the turn from it: {abandoned:?}");

    context.step("whoever had just taken the turn is not taken for one that hangs");
    let passed = failpoint::find("atom", TAKEN)?.passed;
    ensure!(passed == 1, "the turn was taken {passed} times");
    wait::until("Atom is at rest", PATIENCE, || Ok(site.node().status()?.place == 5))?;
    let reports = control.reports()?;
    let fresh: Vec<_> = reports.iter().filter(|report| report.sequence > before).collect();
    ensure!(fresh.len() == 1, "{} reports about one handoff: {fresh:?}", fresh.len());
    ensure!(fresh[0].outcome == outcome::DONE, "Atom holds, and the report says {fresh:?}");
    ensure!(fresh[0].from.as_str() == "2.0.0", "it does not say who let go: {fresh:?}");

    failpoint::off("atom")?;
    kmod::remove(&module("2.0.0"))?;
    let id = site.insert(&site.file("2.1.0"))?;
    site.adopt(id)?;
    site.leave()
}

/// Has somebody hang at a point until Atom has gone back for him, and returns what became of what he did.
fn hangs(
    site: &Site,
    module: &str,
    point: &str,
    act: impl FnOnce() -> Result<Report> + Send,
) -> Result<Result<Report>> {
    let before = newest(site)?;
    failpoint::arm(module, point, failpoint::of(Kind::Hang), Trigger::Next(1))?;
    std::thread::scope(|scope| {
        let going = scope.spawn(act);
        let gone_back = wait::until("Atom has gone back", PATIENCE, || {
            Ok(newest(site)? != before || going.is_finished())
        });
        failpoint::release(module, point)?;
        let ended = going.join().map_err(|_| anyhow::anyhow!("it panicked"))?;
        gone_back.map(|()| ended)
    })
}

/// The number of the newest report.
fn newest(site: &Site) -> Result<u64> {
    Ok(site.node().control().reports()?.first().map_or(0, |report| report.sequence))
}

/// A machine with load on it, two payloads to upgrade between, and a server.
struct Bench {
    site: Site,
    server: Server,
    loads: Vec<Fio>,
    /// The version that serves, and the other one.
    old: &'static str,
    new: &'static str,
}

impl Bench {
    fn start() -> Result<Self> {
        let site = Site::start(Path::new(failpoint::MODULES), "2.0.0")?;
        let server = Server::nbdkit_unseen("points", At::free_port()?, &["memory", "64M"])?;
        let remote = [Target::nbd(server.at(), "").mib(16)];
        let volume = composed::create(&site, REMOTE, Layout::Linear, &remote)?;
        let devices = [site.volume("ram", Spec::ram(16).depth(8))?, volume.device];
        let shape = Shape { depth: 8, bytes: 4 << 20, verify: true };
        let loads =
            devices.iter().map(|device| Fio::start(device, shape)).collect::<Result<_>>()?;
        Ok(Self { site, server, loads, old: "2.0.0", new: "2.1.0" })
    }

    /// Goes a way to its end. Returns what was met on it.
    fn go(&mut self, way: Way, armed: Armed<'_>) -> Result<Met> {
        let over = AtomicBool::new(false);
        let (old, new) = (module(self.old), module(self.new));
        let met = std::thread::scope(|scope| {
            if let Armed::One(side, name, Kind::Hang) = armed {
                let module = match side {
                    Side::Atom => "atom",
                    Side::Old => &old,
                    Side::New => &new,
                };
                scope.spawn(|| {
                    // The module may not be there yet, or not any more.
                    while !over.load(Ordering::SeqCst) {
                        match failpoint::find(module, name) {
                            Ok(point) if point.waiting != 0 => {
                                let _ = failpoint::release(module, name);
                            }
                            _ => std::thread::sleep(Duration::from_millis(5)),
                        }
                    }
                });
            }
            let mut met = Met::new();
            let went = self.went(way, armed, &mut met);
            over.store(true, Ordering::SeqCst);
            went.map(|()| met)
        })?;
        failpoint::off("atom")?;
        failpoint::off(&module(self.old))?;
        self.serves()?;
        Ok(met)
    }

    fn went(&mut self, way: Way, armed: Armed<'_>, met: &mut Met) -> Result<()> {
        arm("atom", Side::Atom, armed)?;
        arm(&module(self.old), Side::Old, armed)?;
        match way {
            Way::Volumes => self.volumes()?,
            Way::Reconnected => self.reconnected()?,
            Way::Cold => self.cold(armed, met)?,
            Way::Warm | Way::Undone | Way::Inherited | Way::Reissued | Way::Committed => {
                self.warm(way, armed, met)?;
            }
            Way::TakenBack => self.taken_back(armed, met)?,
        }
        if matches!(way, Way::Volumes | Way::Reconnected | Way::TakenBack) {
            note(&module(self.old), Side::Old, met)?;
        }
        note("atom", Side::Atom, met)
    }

    fn volumes(&self) -> Result<()> {
        let site = &self.site;
        again(|| site.volume("more", Spec::ram(4)).map(drop))?;
        let targets = [Target::ram(4), Target::nbd(self.server.at(), "").mib(4)];
        again(|| composed::create(site, "mixed", Layout::Linear, &targets).map(drop))?;
        again(|| site.destroy("mixed"))?;
        again(|| site.destroy("more"))
    }

    fn reconnected(&self) -> Result<()> {
        let made = || Ok::<_, anyhow::Error>(composed::first_target(&self.site, REMOTE)?.status);
        let before = made()?.reconnects;
        let once = Trigger::Next(1);
        failpoint::arm(&module(self.old), "payload.nbd.receive", failpoint::of(Kind::Error), once)?;
        wait::until("the connection was made again", PATIENCE, || Ok(made()?.reconnects > before))?;
        composed::until_target_is(&self.site, REMOTE, TargetState::Ready, PATIENCE).map(drop)
    }

    fn warm(&mut self, way: Way, armed: Armed<'_>, met: &mut Met) -> Result<()> {
        if way == Way::Committed {
            self.soak(60_000_000_000)?;
        }
        let id = self.insert(armed)?;
        let mut drain = Drain::from(DEADLINE);
        if way == Way::Undone {
            // Nothing but the way back is what is looked at.
            let (module, once) = (module(self.new), Trigger::Next(1));
            failpoint::arm(&module, "payload.adopt.begin", failpoint::of(Kind::Error), once)?;
        }
        if way == Way::Reissued {
            self.server.freeze()?;
            wait::until("requests wait for the server", PATIENCE, || Ok(self.site.owed()? > 0))?;
            drain = Drain { deadline: SHORT, at_deadline: AtDeadline::Reissue, forsake: false };
        }
        let first = match way {
            Way::Inherited => hangs(&self.site, &module(self.new), "payload.adopt.begin", || {
                Ok(self.site.node().control().switch(id, SHORT)?)
            })?,
            _ => self.site.node().control().switch(id, drain).map_err(Into::into),
        };
        if way == Way::Reissued {
            self.server.go_on()?;
        }
        let done = first.is_ok_and(|report| report.outcome == outcome::DONE);
        let may = !matches!(way, Way::Undone | Way::Inherited);
        ensure!(may || !done, "a payload that could not adopt did");
        if !done {
            let live = self.site.live()?;
            ensure!(live == self.old, "it was undone, and {live:?} serves");
            let report = self.site.node().control().switch(id, DEADLINE)?;
            ensure!(report.outcome == outcome::DONE, "the retry: {}", report.refusal);
        }
        note(&module(self.new), Side::New, met)?;
        if way == Way::Committed {
            again(|| Ok(self.site.node().control().commit(id)?))?;
            self.soak(0)?;
        }
        self.exchange(met)
    }

    fn taken_back(&mut self, armed: Armed<'_>, met: &mut Met) -> Result<()> {
        self.soak(SOAK_NS)?;
        let id = self.insert(armed)?;
        let switch = || {
            let report = self.site.node().control().switch(id, DEADLINE)?;
            ensure!(report.outcome == outcome::DONE, "the switch: {}", report.refusal);
            Ok(())
        };
        again(switch)?;
        wait::until(
            "the old payload serves again",
            PATIENCE,
            || Ok(self.site.live()? == self.old),
        )?;
        self.soak(0)?;
        note(&module(self.new), Side::New, met)?;
        // Until the end of the switch it is in use.
        wait::until("the new payload can go", PATIENCE, || Ok(self.remove(self.new).is_ok()))
    }

    fn cold(&mut self, armed: Armed<'_>, met: &mut Met) -> Result<()> {
        let node = self.site.node();
        again(|| {
            let report = node.control().abandon(Some(4), DEADLINE)?;
            ensure!(report.outcome == outcome::DONE, "abandon: {}", report.refusal);
            Ok(())
        })?;
        note(&module(self.old), Side::Old, met)?;
        self.remove(self.old)?;
        let id = self.insert(armed)?;
        again(|| self.site.adopt(id))?;
        note(&module(self.new), Side::New, met)?;
        std::mem::swap(&mut self.old, &mut self.new);
        Ok(())
    }

    /// The new payload is the old one of the next way.
    fn exchange(&mut self, met: &mut Met) -> Result<()> {
        note(&module(self.old), Side::Old, met)?;
        self.remove(self.old)?;
        std::mem::swap(&mut self.old, &mut self.new);
        Ok(())
    }

    fn insert(&self, armed: Armed<'_>) -> Result<u32> {
        let mut id = 0;
        again(|| {
            id = self.site.insert(&self.site.file(self.new))?;
            Ok(())
        })?;
        arm(&module(self.new), Side::New, armed)?;
        Ok(id)
    }

    fn remove(&self, version: &str) -> Result<()> {
        kmod::remove(&module(version))?;
        Ok(())
    }

    fn soak(&self, soak_ns: u64) -> Result<()> {
        let wanted = Settings { change: setting::SOAK, soak_ns, ..Settings::DEFAULT };
        self.site.node().control().settings(&wanted)?;
        Ok(())
    }

    /// One payload serves, nothing is held, and nobody noticed anything.
    fn serves(&mut self) -> Result<()> {
        let status = self.site.node().status()?;
        ensure!(
            self.site.live()? == self.old && status.payloads == 1 && status.held_ns == 0,
            "{} does not serve alone: {status:?}",
            self.old
        );
        ensure!(status.place == 1 && status.stale_completions == 0, "{status:?}");
        self.loads.iter_mut().try_for_each(Fio::check)
    }

    fn leave(self) -> Result<()> {
        let done = Fio::stop_all(self.loads)?;
        ensure!(done.ios > 0 && done.errors == 0, "{done:?}");
        self.site.leave()?;
        self.server.stop()
    }
}

/// The name of the module of a release.
fn module(version: &str) -> String {
    format!("payload_{}", version.replace('.', "_"))
}

/// Arms the points of a module that was loaded just now or is about to be used.
fn arm(module: &str, side: Side, armed: Armed<'_>) -> Result<()> {
    match armed {
        Armed::Count => failpoint::list(module)?.into_iter().try_for_each(|point| {
            let kind = point.kinds.first().context("a point that can do nothing")?;
            failpoint::arm(module, &point.name, failpoint::of(*kind), NEVER)
        }),
        Armed::One(of, name, kind) if of == side => {
            failpoint::arm(module, name, failpoint::of(kind), Trigger::Next(1))
        }
        Armed::One(..) => Ok(()),
    }
}

/// Notes what was met in a module.
fn note(module: &str, side: Side, met: &mut Met) -> Result<()> {
    for point in failpoint::list(module)? {
        met.insert((side, point.name), (point.passed, point.hit));
    }
    Ok(())
}

/// Does something that a point may let fail once.
fn again(mut act: impl FnMut() -> Result<()>) -> Result<()> {
    if act().is_ok() {
        return Ok(());
    }
    match act() {
        Ok(()) => Ok(()),
        Err(error) => bail!("it failed twice: {error:#}"),
    }
}
