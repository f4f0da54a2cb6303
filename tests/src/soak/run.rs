// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The loop: attempts, what must hold after each, and a sample after each block.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use atomctl::node::Node;

use super::mix::{Done, Mix};
use super::plan::Kind;
use super::record::{Begun, Block, Wanted};
use super::sample::Sample;
use super::ways;
use crate::guest::kmsg::Reader;
use crate::kernel_log;
use crate::random::Random;
use crate::site::Site;

/// The payloads that take turns.
const VERSIONS: [&str; 2] = ["2.0.0", "2.1.0"];
/// How long the first read of a canary may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A soak on its way.
pub struct Run {
    site: Site,
    mix: Mix,
    random: Random,
    live: &'static str,
    log: Reader,
    begun: Instant,
    upgrades: u64,
}

impl Run {
    /// Loads everything and starts the load.
    pub fn start(wanted: &Wanted) -> Result<(Self, Begun)> {
        let mut random = Random::new(wanted.seed);
        let [live, _] = VERSIONS;
        let mut log = Reader::open()?;
        // What the boot has said is judged with the rest of it, by the host.
        log.fresh()?;
        let site = Site::on_guest(live)?;
        let mix = Mix::start(&site, &mut random)?;
        begin_reading(site.node())?;
        let kernel = site.node().release()?;
        let begun = Begun { wanted: wanted.clone(), kernel, volumes: Mix::describe() };
        let run = Self { site, mix, random, live, log, begun: Instant::now(), upgrades: 0 };
        Ok((run, begun))
    }

    /// Attempts until so many upgrades have been done, and what there is then.
    pub fn block(&mut self, upgrades: u64) -> Result<Block> {
        let mut kinds = BTreeMap::new();
        let mut pauses_us = Vec::new();
        while (pauses_us.len() as u64) < upgrades {
            let kind = Kind::next(&mut self.random);
            let pause = self
                .attempt(kind)
                .with_context(|| format!("{kind:?} after {} upgrades", self.upgrades))?;
            pauses_us.extend(pause);
            *kinds.entry(kind).or_default() += 1;
        }
        self.mix.verify().with_context(|| format!("after {} upgrades", self.upgrades))?;
        listen(&mut self.log)?;
        let sample = Sample::take(&self.site)?;
        Ok(Block {
            upgrades: self.upgrades,
            seconds: self.begun.elapsed().as_secs_f64(),
            kinds,
            pauses_us,
            ios: self.mix.ended(),
            sample,
        })
    }

    fn attempt(&mut self, kind: Kind) -> Result<Option<u64>> {
        let [one, other] = VERSIONS;
        let to = if self.live == one { other } else { one };
        let pause = ways::carry_out(&self.site, &mut self.mix, kind, to)?;
        ensure!(pause.is_some() == kind.is_upgrade(), "{kind:?}: {pause:?}");
        if kind.is_upgrade() {
            self.upgrades += 1;
        }
        if kind.is_upgrade() && kind != Kind::RolledBack {
            self.live = to;
        }
        self.mix.next_generation();
        let live = self.site.live()?;
        ensure!(live == self.live, "{live} serves, not {}", self.live);
        let status = self.site.node().status()?;
        ensure!(
            status.held_ns == 0 && status.payloads == 1 && status.parked == 0,
            "what is left: {status:?}"
        );
        self.mix.flows()?;
        Ok(pause)
    }

    /// Stops the load, judges all that was written, and unloads everything.
    pub fn end(self) -> Result<Done> {
        let Self { site, mix, mut log, .. } = self;
        let (done, server) = mix.stop()?;
        site.leave()?;
        server.stop()?;
        listen(&mut log)?;
        Ok(done)
    }
}

/// Has the tool start the thread with which it reads canaries, as its first soak would. That comes when chance says so, and what
/// is there from then on would be more than there was.
fn begin_reading(node: &impl Node) -> Result<()> {
    let devices = node.devices()?;
    let device = devices.first().context("no device")?;
    node.read_canary(device, PATIENCE).map_err(anyhow::Error::msg)
}

/// An error when the kernel has complained since the last look.
fn listen(log: &mut Reader) -> Result<()> {
    let findings = kernel_log::scan(&log.fresh()?, &[] as &[&str]);
    let said: Vec<String> = findings
        .iter()
        .take(20)
        .map(|finding| format!("{} ({})", finding.text, finding.meaning))
        .collect();
    ensure!(said.is_empty(), "the kernel complains: {}", said.join("; "));
    Ok(())
}
