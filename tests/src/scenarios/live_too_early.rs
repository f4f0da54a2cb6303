// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! ublk's defect: a device was marked live before all its queues were, and a flush hung.
//!
//! Here the kernel's tracer shows the order: no request is dispatched from the moment in which all gates are closed
//! until the first one opens, and that is after *adopt* has ended, for all devices together.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context as _, Result};
use atom_abi::control::{outcome, phase};
use atomctl::kmod;
use atomctl::node::Node;
use atomctl::report::{Mode, Outcome};

use super::Context;
use crate::load::flushes::Flushes;
use crate::site::{Site, Spec};
use crate::trace::{Event, Probe, Trace};
use crate::wait;

const DEVICES: usize = 6;
const ROUNDS: usize = 2;
const LONG: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);
/// A flush that takes longer hangs. The longest cold pause on a slow machine is well below.
const HANG: Duration = Duration::from_secs(15);

const DISPATCHED: &str = "block_rq_issue";
const QUEUED: &str = "block_bio_queue";
const PROBES: &[Probe] = &[
    Probe { name: "gate_closes", at: 'p', function: "blk_mq_quiesce_queue_nowait" },
    Probe { name: "grace_period_ends", at: 'r', function: "synchronize_rcu_expedited" },
    Probe { name: "gate_opens", at: 'p', function: "blk_mq_unquiesce_queue" },
];

pub fn no_request_is_dispatched_before_every_device_is_adopted(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let (mut loads, mut devices) = (Vec::new(), Vec::new());
    for index in 0..DEVICES {
        let device = site.volume(&format!("v{index}"), Spec::ram(8))?;
        loads.push(Flushes::start(&device)?);
        devices.push(device);
    }
    let quiet = site.volume("quiet", Spec::ram(8))?;
    let trace = Trace::start(&["block/block_rq_issue"], PROBES)?;
    let mut seen = Seen::default();
    for round in 0..ROUNDS {
        for mode in [Mode::Warm, Mode::Cold] {
            for version in ["1.1.0", "1.0.0"] {
                context.step(&format!("round {round}: {mode} to {version}"));
                trace.restart()?;
                site.upgrade(version, mode)?;
                let pause = judge(&trace.take()?, DEVICES + 1)?;
                let adopted_us = adopted_us(&site)?;
                ensure!(
                    pause.opened_us >= adopted_us,
                    "{mode} to {version}: adopted at {adopted_us} us, {pause:?}"
                );
                seen.add(&pause);
                go_on(&loads)?;
            }
            for variant in ["adopt", "bind"] {
                context.step(&format!("round {round}: {mode}, and {variant} fails half-way"));
                trace.restart()?;
                let report = site.try_upgrade(&site.file(variant), mode, LONG)?;
                ensure!(report.outcome == Outcome::RolledBack, "{report:?}");
                let pause = judge(&trace.take()?, DEVICES + 1)?;
                seen.add(&pause);
                go_on(&loads)?;
            }
        }
    }
    ensure!(seen.pauses == ROUNDS * 2 * 4, "{} pauses were seen", seen.pauses);
    ensure!(seen.dispatched > 0, "no request was seen at all");

    context.step("a flush in the middle of a handoff that first fails half-way");
    drop(trace);
    let trace = Trace::start(&["block/block_bio_queue"], &[])?;
    let took = flush_in_the_middle(&site, &quiet, &trace)?;
    drop(trace);
    context.fact("flush_in_the_middle_us", took.as_micros() as u64);

    let (mut flushes, mut slowest) = (0, Duration::ZERO);
    for load in loads {
        let done = load.stop()?;
        flushes += done.flushes;
        slowest = slowest.max(done.slowest);
    }
    context.fact("flushes", flushes);
    context.fact("slowest_flush_us", slowest.as_micros() as u64);
    context.fact("dispatches_outside_of_pauses", seen.dispatched);
    ensure!(slowest < HANG, "a flush took {slowest:?}");
    site.leave()
}

/// When the last *adopt* had ended, by the monotonic clock: never later than it had.
fn adopted_us(site: &Site) -> Result<u64> {
    let reports = site.node().control().reports()?;
    let report = reports.first().context("there is no report")?;
    let before = [phase::PREPARE, phase::CLOSE, phase::DRAIN, phase::FREEZE, phase::ADOPT];
    let took: u64 = before.iter().filter_map(|phase| report.phases_ns.get(*phase)).sum();
    Ok((report.started_ns + took) / 1000)
}

/// Everybody has flushed again.
fn go_on(loads: &[Flushes]) -> Result<()> {
    let before: Vec<u64> = loads.iter().map(Flushes::count).collect();
    wait::until("a flush on every device", PATIENCE, || {
        Ok(loads.iter().zip(&before).all(|(load, before)| load.count() >= before + 2))
    })
}

/// Flushes a device that Atom holds, and returns how long it took from the adopt that succeeded.
fn flush_in_the_middle(site: &Site, device: &str, trace: &Trace) -> Result<Duration> {
    let report = site.node().abandon(0, LONG)?;
    ensure!(report.outcome == outcome::DONE, "abandon: {}", report.refusal);
    kmod::remove("payload_1_0_0")?;
    trace.restart()?;
    let file = File::options().write(true).open(device)?;
    let flush = std::thread::Builder::new().name("flush".to_owned()).spawn(move || {
        file.sync_data()?;
        anyhow::Ok(())
    })?;
    wait::until("the flush is with the block layer", PATIENCE, || {
        let events = trace.so_far()?;
        let ours = |event: &Event| event.name == QUEUED && event.text.contains("[flush]");
        Ok(events.iter().any(|event| ours(event) && is_flush(&event.text)))
    })?;
    let half = site.insert(&site.file("adopt"))?;
    ensure!(site.node().adopt(half)?.outcome == outcome::UNDONE, "it adopted");
    kmod::remove("payload_test_adopt")?;
    ensure!(!flush.is_finished(), "the flush ended while nobody was adopted");
    let id = site.insert(&site.file("1.0.0"))?;
    let begun = Instant::now();
    site.adopt(id)?;
    wait::until("the flush ends", HANG, || Ok(flush.is_finished()))?;
    flush.join().map_err(|_| anyhow::anyhow!("the flushing thread panicked"))??;
    Ok(begun.elapsed())
}

/// In a line such as `259,0 FWS 0 + 0 [flush]`.
fn is_flush(text: &str) -> bool {
    text.split_whitespace().nth(1).is_some_and(|flags| flags.starts_with('F'))
}

/// What a trace of one pause shows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pause {
    /// When the first gate opened.
    opened_us: u64,
    /// Requests that were dispatched before and after.
    dispatched: usize,
}

#[derive(Default)]
struct Seen {
    pauses: usize,
    dispatched: usize,
}

impl Seen {
    fn add(&mut self, pause: &Pause) {
        self.pauses += 1;
        self.dispatched += pause.dispatched;
    }
}

/// An error when anything was dispatched between the end of the grace period that follows the last gate's closing,
/// and the first gate's opening; or when there was not exactly one such time.
fn judge(events: &[Event], gates: usize) -> Result<Pause> {
    let mut pause = Pause::default();
    let (mut closing, mut closed, mut pauses) = (0, false, 0);
    let mut names = BTreeMap::new();
    for event in events {
        *names.entry(event.name.as_str()).or_insert(0usize) += 1;
        match event.name.as_str() {
            "gate_closes" => closing += 1,
            "grace_period_ends" if closing == gates => closed = true,
            "gate_opens" => {
                if closed {
                    pauses += 1;
                    pause.opened_us = event.at_us;
                }
                (closing, closed) = (0, false);
            }
            DISPATCHED if closed => bail!("dispatched while the gates were closed: {event:?}"),
            DISPATCHED => pause.dispatched += 1,
            _ => {}
        }
    }
    ensure!(pauses == 1, "{pauses} pauses in {names:?}");
    Ok(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(names: &str) -> Vec<Event> {
        let event = |(at_us, name): (u64, &str)| Event {
            at_us,
            name: name.to_owned(),
            text: String::new(),
        };
        (0..).zip(names.split_whitespace()).map(event).collect()
    }

    #[test]
    fn a_request_between_the_grace_period_and_the_first_open_gate_is_noticed() {
        let good = "block_rq_issue gate_closes block_rq_issue gate_closes grace_period_ends \
                    gate_opens block_rq_issue gate_opens";
        let pause = judge(&events(good), 2).expect("in order");
        assert_eq!(pause, Pause { opened_us: 5, dispatched: 3 });
        let early =
            "gate_closes gate_closes grace_period_ends block_rq_issue gate_opens gate_opens";
        assert!(judge(&events(early), 2).is_err());
    }

    #[test]
    fn a_trace_without_a_pause_proves_nothing() {
        assert!(judge(&events("block_rq_issue gate_closes gate_opens"), 1).is_err());
    }

    #[test]
    fn a_flush_is_told_from_a_write() {
        assert!(is_flush("259,0 FWS 0 + 0 [flush]"));
        assert!(!is_flush("259,0 WS 8 + 8 [flush]"));
    }
}
