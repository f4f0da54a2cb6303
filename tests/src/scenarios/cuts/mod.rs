// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The power is cut: what was flushed is there.
//!
//! The machine's disks, and the one of the server on the host, lose what was not flushed when the power is cut; the first
//! scenario shows that they do. What was acknowledged is noted over the line to the host, which loses nothing.
//!
//! Every other cut comes while payloads are replaced, half of these in a switch itself; of eight boots, the first four
//! upgrade warm and the others cold. What was going on at a cut the host knows to the instant, see [`crate::power`]. It
//! says how often it was what had been asked for, and fails the scenario when that was too seldom.
//!
//! - [`volumes`]: a raw volume over disks beside one over the network;
//! - [`file_systems`]: ext4 and xfs on such volumes.

pub mod file_systems;
pub mod volumes;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context as _, Result};
use atom_payload::spec::Layout;
use atomctl::report::Mode;

use super::Context;
use crate::load::rounds::Rounds;
use crate::marked::Marked;
use crate::oracle::cut::Told;
use crate::power::{self, Marks, Moment, Wish};
use crate::site::Site;
use crate::{composed, outside, queue, random, wait};

const PATIENCE: Duration = Duration::from_secs(120);
/// Longest time between a scenario's wish to be cut off and the cut, when any moment will do.
const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// What a boot starts with.
const FIRST_VERSION: &str = "2.0.0";
/// What notes begin with: about the seed, about a round of a writer, about what all boots together have seen.
const SEED: &str = "seed";
const DURABLE: &str = "durable";
const ORACLE: &str = "oracle";
const SO_FAR: &str = "so far";

/// What the other scenarios stand on.
pub fn a_disk_that_is_cut_off_keeps_what_was_flushed_and_nothing_else(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest(FIRST_VERSION)?;
    let server = outside::server(context)?;
    let volume = composed::create(&site, "server", Layout::Linear, &[server])?;
    let disks = ["/dev/vda", volume.device.as_str()];
    let boot = u8::try_from(context.boot()?)?;
    for disk in disks {
        let (first, second) = (queue::read_block(disk, 0)?, queue::read_block(disk, 1)?);
        ensure!(
            first.iter().all(|byte| *byte == boot),
            "boot {boot} reads {:?} of {disk}",
            &first[..8]
        );
        ensure!(second.iter().all(|byte| *byte == 0), "what was not flushed is on {disk}");
    }
    if context.is_last_boot() {
        return site.leave();
    }
    for disk in disks {
        queue::write_block(disk, 0, boot + 1)?;
        OpenOptions::new().write(true).open(disk)?.sync_data().context("no flush")?;
        queue::write_block(disk, 1, 0xee)?;
        ensure!(queue::read_block(disk, 1)?.iter().all(|byte| *byte == 0xee), "it was not written");
    }
    let wish = Wish { within: LONGEST_WAIT, during: Moment::Load };
    until_cut_off(context, &wish, || Ok(()))
}

/// What a boot is for.
#[derive(Clone, Copy, Debug)]
struct Plan {
    boot: u32,
}

impl Plan {
    /// What has to be going on at the cut.
    fn during(self) -> Moment {
        match self.boot % 4 {
            1 => Moment::Upgrade,
            3 => Moment::Switch,
            _ => Moment::Load,
        }
    }

    /// How payloads are replaced.
    fn mode(self) -> Mode {
        if self.boot % 8 < 4 {
            Mode::Warm
        } else {
            Mode::Cold
        }
    }

    /// Lets the host cut the power when the load has shown that it works, and goes on until it has.
    fn until_the_cut(self, context: &Context, site: &Site, loads: &mut [Rounds]) -> Result<()> {
        wait::until("every writer has ended rounds", PATIENCE, || {
            loads.iter_mut().try_for_each(Rounds::check)?;
            Ok(loads.iter().all(|load| load.fewest() > 1))
        })?;
        let during = self.during();
        if during == Moment::Load {
            context.step("a cut under load");
            let wish = Wish { within: LONGEST_WAIT, during };
            return until_cut_off(context, &wish, || loads.iter_mut().try_for_each(Rounds::check));
        }
        context.step(&format!("a cut within a {} upgrade, {during:?}", self.mode()));
        let marks = Marks::open()?;
        let node = Marked::new(site.node(), &marks);
        let mut versions = ["2.1.0", FIRST_VERSION].into_iter().cycle();
        let mut upgrade = || -> Result<Duration> {
            loads.iter_mut().try_for_each(Rounds::check)?;
            let next = versions.next().context("versions have ended")?;
            let begun = Instant::now();
            marks.mark(Moment::Upgrade)?;
            site.upgrade_on(&node, next, self.mode())?;
            marks.mark(Moment::Load)?;
            Ok(begun.elapsed())
        };
        // Each way once, so that every moment of the longer one can be met.
        let within = upgrade()?.max(upgrade()?);
        until_cut_off(context, &Wish { within, during }, || upgrade().map(drop))
    }
}

/// Lets the host cut the power, and does something over and over until it has.
fn until_cut_off(
    context: &Context,
    wish: &Wish,
    mut meanwhile: impl FnMut() -> Result<()>,
) -> Result<()> {
    context.note(&wish.note());
    wait::until("the power is cut", PATIENCE, || meanwhile().map(|()| false))
}

/// What was seen of all cuts so far.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Rounds that had ended before a cut.
    rounds: u64,
    /// Blocks, files and records of rounds that had not.
    newer: u64,
}

impl Seen {
    fn note(self, context: &Context) {
        context.note(&format!("{SO_FAR} {} {}", self.rounds, self.newer));
    }
}

/// What a boot has noted.
struct Noted {
    seed: u64,
    seen: Seen,
    /// By load and writer, the last round.
    last: BTreeMap<(String, u64), u64>,
    /// By load of the oracle, what was told of its lanes.
    told: BTreeMap<String, Vec<Told>>,
}

impl Noted {
    fn read(notes: &[String]) -> Result<Self> {
        let (mut seed, mut seen) = (None, Seen::default());
        let mut last = BTreeMap::new();
        let mut told: BTreeMap<String, Vec<Told>> = BTreeMap::new();
        for note in notes {
            let words: Vec<&str> = note.split(' ').collect();
            match words.as_slice() {
                [SEED, number] => seed = Some(number.parse()?),
                [DURABLE, load, writer, round] => {
                    last.insert(((*load).to_owned(), writer.parse()?), round.parse()?);
                }
                [ORACLE, load, rest @ ..] => {
                    told.entry((*load).to_owned()).or_default().push(rest.join(" ").parse()?);
                }
                ["so", "far", rounds, newer] => {
                    seen = Seen { rounds: rounds.parse()?, newer: newer.parse()? };
                }
                _ if Wish::read(note).is_some() => {}
                _ => bail!("nobody understands the note {note:?}"),
            }
        }
        Ok(Self { seed: seed.context("no seed was noted")?, seen, last, told })
    }

    /// For each writer of a load the last round.
    fn of(&self, load: &str, writers: u64) -> Result<Vec<u64>> {
        let each = (0..writers).map(|writer| self.last.get(&(load.to_owned(), writer)).copied());
        let all: Option<Vec<u64>> = each.collect();
        all.with_context(|| format!("not all writers of {load} have noted: {:?}", self.last))
    }

    /// What was seen with this cut, at which `load` had ended these rounds and left so much of the next ones.
    fn add(&mut self, last: &[u64], newer: u64) {
        self.seen.rounds += last.iter().map(|last| last + 1).sum::<u64>();
        self.seen.newer += newer;
    }

    fn tell(&self, context: &mut Context) {
        context.fact("rounds_that_had_ended", self.seen.rounds);
        context.fact("newer_than_that", self.seen.newer);
    }
}

/// Chooses the seed of a boot, and notes it.
fn seed(context: &Context, boot: u32) -> Result<u64> {
    let seed = random::seed()?.wrapping_add(u64::from(boot));
    context.note(&format!("{SEED} {seed}"));
    Ok(seed)
}

/// Notes what is told of the oracle's lanes.
fn telling(load: &'static str) -> impl Fn(Told) + Send + Sync + 'static {
    move |told| println!("{}{ORACLE} {load} {told}", power::NOTE)
}

/// Notes each round of a load.
fn noting(load: &'static str) -> impl Fn(u64, u64) + Send + Sync + 'static {
    move |writer, round| println!("{}{DURABLE} {load} {writer} {round}", power::NOTE)
}
