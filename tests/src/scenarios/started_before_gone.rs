// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! ublk's defect: a replacement was started before the old one was seen as gone, and both served.
//!
//! Here there are never two: a replacement that comes too early is refused, or waits for its turn and is then judged
//! by what it finds.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context as _, Result};
use atom_abi::control::{outcome, payload_state, Report};
use atom_abi::lifecycle::Place;
use atom_abi::request::op;
use atom_abi::version::reason;
use atomctl::control::Control;
use atomctl::kmod;
use atomctl::node::{Local, Node};
use atomctl::volume;

use super::Context;
use crate::kept::keep;
use crate::load::fio::{Fio, Shape};
use crate::site::{Site, Spec};
use crate::wait;

const LONG: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(30);
const ROUNDS: usize = 15;

pub fn there_are_never_two_live_payloads(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("stuck")?;
    let device = site.volume("data", Spec::ram(16).depth(16))?;
    let load = Fio::start(&device, Shape { depth: 32, bytes: 4 << 20, verify: true })?;
    let watch = Watch::start()?;

    context.step("the same module twice");
    let image = fs::read(site.file("stuck"))?;
    ensure!(kmod::insert(&image, "").is_err(), "a module was loaded twice");
    let first = site.insert(&site.file("1.0.0"))?;
    let second = site.insert(&site.file("1.1.0"))?;
    let stuck = site.node().status()?.live;

    context.step("an adopt while another payload is live");
    refused(&site.node().adopt(second)?)?;
    ensure!(site.node().status()?.live == stuck, "it is live");

    context.step("an adopt while the old one is being drained");
    keep(site.node().control(), op::WRITE, 1)?;
    let begun = Instant::now();
    let abandon = on_its_own(|node| node.abandon(0, SHORT))?;
    wait::until("the drain has begun", PATIENCE, || {
        Ok(site.node().status()?.place == Place::Closed.code())
    })?;
    refused(&site.node().adopt(second)?)?;
    let waited = begun.elapsed();
    ensure!(waited >= SHORT, "the adopt came through the drain after {waited:?}");
    let report = joined(abandon)?;
    ensure!(report.outcome == outcome::UNDONE, "{report:?}");
    ensure!(site.node().status()?.live == stuck, "the old one does not serve");
    volume::release(site.node().control())?;
    context.fact("early_adopt_waited_us", waited.as_micros() as u64);

    let (mut both, mut one) = (0, 0);
    for round in 0..ROUNDS {
        context.step(&format!("round {round}: two adopt at the same time"));
        let report = site.node().abandon(1, LONG)?;
        ensure!(report.outcome == outcome::DONE, "abandon: {}", report.refusal);
        let reports = together([first, second], |node, id| node.adopt(id))?;
        let done = reports.iter().filter(|report| report.outcome == outcome::DONE).count();
        ensure!(done == 1, "{done} have adopted: {reports:?}");
        let other = reports.iter().find(|report| report.outcome != outcome::DONE);
        refused(other.context("both have adopted")?)?;

        context.step(&format!("round {round}: two switches at the same time"));
        let before = site.node().status()?;
        let next: Vec<u32> =
            [first, second, stuck].into_iter().filter(|id| *id != before.live).collect();
        let next: [u32; 2] = next.try_into().map_err(|_| anyhow!("nobody was live"))?;
        let reports = together(next, |node, id| node.switch(id, LONG))?;
        let done = reports.iter().filter(|report| report.outcome == outcome::DONE).count() as u64;
        let after = site.node().status()?;
        ensure!(done >= 1, "none has taken over: {reports:?}");
        ensure!(after.epoch == before.epoch + done, "{before:?}, then {after:?}");
        if done == 2 {
            both += 1;
        } else {
            one += 1;
        }
    }
    context.fact("two_switches_one_after_the_other", both);
    context.fact("two_switches_one_refused", one);
    let looks = watch.stop()?;
    context.fact("looks", looks);
    ensure!(looks > 0, "nobody looked");
    ensure!(site.node().status()?.stale_completions == 0, "a completion was refused");
    context.fact("verified_ios", load.stop()?.ios);
    site.leave()
}

/// Refused, because the slot is taken, and with nothing begun.
fn refused(report: &Report) -> Result<()> {
    ensure!(report.refusal.code == reason::SLOT_TAKEN, "{}", report.refusal);
    ensure!(report.outcome == outcome::REFUSED, "it was begun: {report:?}");
    Ok(())
}

/// A handoff from a thread of its own, with a control device of its own.
fn on_its_own(
    act: impl FnOnce(&Local) -> atomctl::problem::Result<Report> + Send + 'static,
) -> Result<JoinHandle<Result<Report>>> {
    let node = Local::open()?;
    Ok(std::thread::Builder::new().spawn(move || Ok(act(&node)?))?)
}

/// The same for two payloads, begun at the same time.
fn together(
    payloads: [u32; 2],
    act: fn(&Local, u32) -> atomctl::problem::Result<Report>,
) -> Result<Vec<Report>> {
    let start = Arc::new(Barrier::new(payloads.len()));
    let threads: Result<Vec<_>> = payloads
        .into_iter()
        .map(|id| {
            let start = Arc::clone(&start);
            on_its_own(move |node| {
                start.wait();
                act(node, id)
            })
        })
        .collect();
    threads?.into_iter().map(joined).collect()
}

fn joined(thread: JoinHandle<Result<Report>>) -> Result<Report> {
    thread.join().map_err(|_| anyhow!("a handoff's thread panicked"))?
}

/// Looks at the payloads all the time. More than one that is live is an error.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Watch {
    fn start() -> Result<Self> {
        let control = Control::open()?;
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            let mut looks = 0;
            while !theirs.load(Ordering::Relaxed) {
                // One epoch before and after: the list was read between two handoffs.
                let before = control.status()?;
                let payloads = control.payloads()?;
                let live = payloads.iter().filter(|p| p.state == payload_state::LIVE).count();
                if control.status()?.epoch == before.epoch {
                    ensure!(live <= 1, "{live} payloads are live: {payloads:?}");
                    looks += 1;
                }
            }
            Ok(looks)
        })?;
        Ok(Self { stop, thread })
    }

    fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the watching thread panicked"))?
    }
}
