// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Sequences of ioctls from several threads, with upgrades beside, under verified load.

use std::thread;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context as _, Result};
use atom_abi::control::{outcome, setting, Settings};
use atom_abi::lifecycle::Place;
use atomctl::kmod;
use atomctl::node::Node;

use super::Context;
use crate::ioctls::caller::{steps, Done};
use crate::oracle::device::{Device, Promise};
use crate::oracle::load::{volume_name, Load, Shape};
use crate::oracle::schedule::Mix;
use crate::random::{seed, Random};
use crate::site::{Site, Spec};
use crate::wait;

const VERSIONS: [&str; 2] = ["2.0.0", "2.1.0"];
const THREADS: u64 = 4;
/// Steps of each thread.
const STEPS: u64 = 100;
/// The oracle's area.
const BYTES: u64 = 1 << 20;
const DEADLINE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(30);

pub fn sequences_of_ioctls_from_several_threads_do_no_harm(context: &mut Context) -> Result<()> {
    let seed = seed()?;
    context.step(&format!("seed {seed}: ATOM_SEED={seed} repeats it"));
    context.fact("seed", seed);
    let site = Site::on_guest(VERSIONS[0])?;
    site.insert(&site.file(VERSIONS[1]))?;
    let device = site.volume("data", Spec::ram(8))?;
    let promise = Promise { discard_zeroes: true, blank: true };
    let on = Device::open(&device, volume_name(&[seed]), BYTES, promise)?;
    let mut load = Load::start(on, &Shape { lanes: 2, mix: Mix::ALL, seed })?;

    context.step("sequences, and upgrades beside");
    let callers: Vec<_> = (0..THREADS)
        .map(|thread| thread::spawn(move || steps(&mut Random::mixed(&[seed, thread]), STEPS)))
        .collect();
    let mut handoffs = 0u64;
    while callers.iter().any(|caller| !caller.is_finished()) {
        handoffs += u64::from(beside(&site, handoffs)?);
        load.check()?;
        load.next_generation();
    }
    let mut all = Done::default();
    for (number, caller) in callers.into_iter().enumerate() {
        let done = caller.join().map_err(|_| anyhow!("thread {number} panicked"))?;
        let done = done.with_context(|| format!("thread {number}, seed {seed}"))?;
        all.carried_out += done.carried_out;
        all.refused += done.refused;
        all.other += done.other;
    }
    context.fact("ioctls_carried_out", all.carried_out);
    context.fact("ioctls_refused_as_they_must_be", all.refused);
    context.fact("other_ioctls", all.other);
    context.fact("handoffs_beside", handoffs);
    ensure!(all.carried_out > 0 && all.refused > 0, "{all:?}");

    context.step("everything is as it was, and right");
    let own = Settings { change: setting::ALL, ..Settings::DEFAULT };
    site.node().settings(&own)?;
    wait::until("a payload serves, and nothing soaks", PATIENCE, || {
        serve(&site)?;
        let status = site.node().status()?;
        Ok(status.place == Place::Live.code() && status.held_ns == 0 && status.soak_left_ns == 0)
    })?;
    let status = site.node().status()?;
    ensure!(status.stale_completions == 0, "{status:?}");
    ensure!(site.node().devices()?.len() == 1, "devices came or went");
    let before = load.ended();
    wait::until("I/O flows", PATIENCE, || {
        load.check()?;
        Ok(load.ended() > before + 10)
    })?;
    context.fact("verified_ios", load.stop()?.operations);
    site.leave()
}

/// What a tool does meanwhile: it hands over, or loads a payload anew. The callers do the same, so anything may be refused.
fn beside(site: &Site, round: u64) -> Result<bool> {
    let status = site.node().status()?;
    if status.place != Place::Live.code() {
        serve(site)?;
        return Ok(false);
    }
    let payloads = site.node().payloads()?;
    let Some(other) = payloads.iter().find(|payload| payload.id != status.live) else {
        let parked = VERSIONS.iter().find(|version| site.knows(version).is_ok_and(|known| !known));
        // It may have come meanwhile.
        let _ = parked.map(|version| site.insert(&site.file(version)));
        return Ok(false);
    };
    if round % 8 == 7 && kmod::remove(other.module.as_str()).is_ok() {
        return Ok(true);
    }
    Ok(site.node().switch(other.id, DEADLINE).is_ok())
}

/// Lets somebody serve when nobody does, and ends a soak.
fn serve(site: &Site) -> Result<()> {
    let status = site.node().status()?;
    if status.live != 0 {
        // Where nothing soaks there is nothing to commit.
        let _ = site.node().commit(status.live);
        return Ok(());
    }
    // Whoever abandoned may have wanted a schema that only one of them reads, and that one may be gone.
    for version in VERSIONS {
        if !site.knows(version)? {
            // Another caller may be faster, here and below.
            let _ = site.insert(&site.file(version));
        }
    }
    for payload in site.node().payloads()? {
        if site.node().adopt(payload.id).is_ok_and(|report| report.outcome == outcome::DONE) {
            break;
        }
    }
    Ok(())
}
