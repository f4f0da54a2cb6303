// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Lanes whose power is cut, and the judgement in the next boot.
//!
//! Each lane has a region of its own, and what it does follows from the seed. In step 0 it fills its region and flushes. So all
//! that has to be known after a cut is how far each lane had come, and of that two things tell: what was noted over the line to
//! the host after each flush and each write with FUA, and what is on the disk, since a lane issues a step only when the one
//! before has ended. A flush covers what all lanes had ended before it was issued; the note says how far they were.
//!
//! Zeroes have no stamp, so those of steps that left no other trace count as in flight: up to a flush which, had it ended,
//! would have left one.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use anyhow::{ensure, Context as _, Result};

use super::device::{Device, Memory};
use super::model::{Extent, Kind, Model, Terms};
use super::schedule::{origin, sequence, Mix, Schedule, Step};
use super::stamp::{Content, Stamp, SECTOR};
use super::verdict::listed;
use crate::load::rounds::Rounds;

/// Units of each region.
pub const REGION: u64 = 192;
/// Longest row of steps without a trace that is looked through.
const FAR: u64 = 400;

/// What is noted of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub lane: u64,
    /// It has ended this step: a flush, or a write with FUA.
    pub step: u64,
    /// For a flush: steps of each lane that had ended when it was issued.
    pub covers: Vec<u64>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let covers: Vec<String> = self.covers.iter().map(u64::to_string).collect();
        write!(f, "{} {} {}", self.lane, self.step, covers.join(","))
    }
}

impl FromStr for Told {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split(' ');
        let mut number = || words.next().context("too short")?.parse().context("no number");
        let (lane, step) = (number()?, number()?);
        let covers = words.next().unwrap_or_default().split(',').filter(|word| !word.is_empty());
        let covers = covers.map(str::parse).collect::<Result<_, _>>().context("no number")?;
        Ok(Self { lane, step, covers })
    }
}

/// The lanes of a boot.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// A seed that no other boot has.
    pub seed: u64,
    pub lanes: u64,
    /// The boot.
    pub generation: u64,
}

/// What was found after a cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Steps that had ended for sure.
    pub steps: u64,
    /// Those of them that only the disk has told of.
    pub proven_by_the_disk: u64,
}

impl Run {
    fn schedule(&self) -> Schedule {
        Schedule { seed: self.seed, mix: Mix::CUT }
    }

    fn region(lane: u64) -> Extent {
        Extent { start: lane * REGION, count: REGION }
    }

    fn step(&self, lane: u64, step: u64) -> Step {
        match step {
            0 => Step::Change(Kind::Write { durable: true }, Self::region(lane)),
            step => self.schedule().step(lane, step, 0, Self::region(lane)),
        }
    }

    /// Starts on a device. What must be known after a cut is given to `tell`.
    pub fn start(
        self,
        device: Device,
        tell: impl Fn(Told) + Send + Sync + 'static,
    ) -> Result<Rounds> {
        ensure!(device.terms.units >= self.lanes * REGION, "{:?} is too small", device.terms);
        let each = (0..self.lanes).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let ended = Arc::new(each);
        let theirs = Arc::clone(&ended);
        let work = move |lane, step| {
            let mut memory = Memory::new(device.terms.bytes(REGION));
            let covers: Vec<u64> =
                theirs.iter().map(|ended| ended.load(Ordering::SeqCst)).collect();
            let mut told = Told { lane, step, covers: Vec::new() };
            let durable = match self.step(lane, step) {
                Step::Change(kind, extent) => {
                    let number = sequence(lane, step);
                    device.change(kind, extent, number, self.generation, &mut memory)?;
                    kind == Kind::Write { durable: true }
                }
                Step::Read(_) => false,
                Step::Flush => {
                    device.flush()?;
                    told.covers = covers;
                    true
                }
            };
            if let Some(count) = theirs.get(lane as usize) {
                count.store(step + 1, Ordering::SeqCst);
            }
            if durable {
                tell(told);
            }
            Ok(())
        };
        Rounds::start("oracle", self.lanes, work, |_, _| {})
    }

    /// Judges what is on the device after a cut.
    pub fn verify(&self, device: &Device, told: &[Told]) -> Result<Seen> {
        let mut data = Vec::new();
        let mut memory = Memory::new(device.terms.bytes(REGION));
        for lane in 0..self.lanes {
            data.extend_from_slice(device.read(Self::region(lane), &mut memory)?);
        }
        self.judge(&device.terms, told, &data)
    }

    /// The same of what was read of all regions.
    fn judge(&self, terms: &Terms, told: &[Told], data: &[u8]) -> Result<Seen> {
        let terms = Terms { units: self.lanes * REGION, blank: false, ..*terms };
        let mut past =
            Past { run: self, model: Model::new(terms), ended: vec![0; self.lanes as usize] };
        for told in told {
            past.hear(told);
        }
        let known: u64 = past.ended.iter().sum();
        for content in data.chunks(SECTOR).map(Stamp::read) {
            if let Content::Stamped(stamp) = content {
                let (lane, step) = origin(stamp.sequence);
                let is_ours = stamp.volume == terms.volume && stamp.generation == self.generation;
                // A stamp of a step that is none is found to be garbage below.
                if is_ours && lane < self.lanes && step < past.ended_of(lane) + FAR {
                    past.advance(lane, step);
                }
            }
        }
        let steps: u64 = past.ended.iter().sum();
        for lane in 0..self.lanes {
            past.in_flight(lane);
        }
        past.model.cut();
        let findings = past.model.survey(data);
        ensure!(findings.is_empty(), "{}", listed(&findings));
        Ok(Seen { steps, proven_by_the_disk: steps - known })
    }
}

/// What happened before the cut, as far as it is known.
struct Past<'a> {
    run: &'a Run,
    model: Model,
    /// Of each lane: so many steps have ended for sure.
    ended: Vec<u64>,
}

impl Past<'_> {
    fn ended_of(&self, lane: u64) -> u64 {
        self.ended.get(lane as usize).copied().unwrap_or(0)
    }

    fn hear(&mut self, told: &Told) {
        for (lane, count) in (0..).zip(told.covers.iter().copied()) {
            self.advance(lane, count);
        }
        self.advance(told.lane, told.step + 1);
        if !told.covers.is_empty() {
            let is_covered = |number| {
                let (lane, step) = origin(number);
                told.covers.get(lane as usize).is_some_and(|count| step < *count)
            };
            let flush = self.model.flush_of(is_covered);
            self.model.flushed(flush);
        }
    }

    /// All steps of a lane before this one have ended.
    fn advance(&mut self, lane: u64, to: u64) {
        for step in self.ended_of(lane)..to {
            match self.run.step(lane, step) {
                Step::Change(kind, extent) => {
                    let number = sequence(lane, step);
                    let ticket = self.model.issue(kind, extent, number, self.run.generation);
                    self.model.acknowledge(ticket);
                }
                Step::Read(_) => {}
                // It covers at least what its own lane had ended.
                Step::Flush => {
                    let flush = self.model.flush_of(|number| origin(number).0 == lane);
                    self.model.flushed(flush);
                }
            }
        }
        if let Some(ended) = self.ended.get_mut(lane as usize) {
            *ended = to.max(*ended);
        }
    }

    /// The steps that may have been issued.
    fn in_flight(&mut self, lane: u64) {
        let from = self.ended_of(lane);
        let mut steps = Vec::new();
        for number in from..from + FAR {
            let step = self.run.step(lane, number);
            if let Step::Change(kind, extent) = step {
                // Another write would have left a trace that says so.
                if number == from || !matches!(kind, Kind::Write { .. }) {
                    self.model.issue(kind, extent, sequence(lane, number), self.run.generation);
                }
                steps.push((kind, extent));
            }
            let durable =
                matches!(step, Step::Flush | Step::Change(Kind::Write { durable: true }, _));
            if durable && leaves_a_trace(&steps) {
                break;
            }
        }
    }
}

/// Whether one of these writes, all of them carried out, still stands somewhere.
fn leaves_a_trace(steps: &[(Kind, Extent)]) -> bool {
    let stands = |at: usize, extent: &Extent| {
        extent.units().any(|unit| {
            let mut later = steps.iter().skip(at + 1);
            !later.any(|(kind, of)| !matches!(kind, Kind::Write { .. }) && of.has(unit))
        })
    };
    let mut all = steps.iter().enumerate().skip(1);
    all.any(|(at, (kind, extent))| matches!(kind, Kind::Write { .. }) && stands(at, extent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::fake::{Defect, Disk};
    use crate::random::Random;

    const LANES: u64 = 3;
    const TERMS: Terms = Terms {
        volume: 9,
        unit_sectors: 1,
        units: LANES * REGION,
        discard_zeroes: true,
        blank: false,
    };
    const RUN: Run = Run { seed: 5, lanes: LANES, generation: 2 };

    /// Lanes at a disk until it is cut after so many steps; of the last notes some never came.
    fn cut(seed: u64, defect: Defect) -> (Run, Vec<Told>, Vec<u8>, u32) {
        let run = Run { seed, ..RUN };
        let mut random = Random::new(seed);
        let mut disk = Disk::new(TERMS, defect);
        let (mut ended, mut told) = ([0; LANES as usize], Vec::new());
        let mut flying: Vec<_> = (0..LANES).map(|_| None).collect();
        for _ in 0..200 + random.below(400) {
            let lane = random.below(LANES);
            let at = lane as usize;
            let step = run.step(lane, ended[at]);
            match (step, flying[at].take()) {
                (Step::Change(kind, extent), None) => {
                    let number = sequence(lane, ended[at]);
                    flying[at] = Some(disk.issue(kind, extent, number, run.generation));
                    continue;
                }
                (Step::Change(..), Some(mut pending)) if random.below(3) > 0 => {
                    disk.work(&mut pending, &mut random);
                    flying[at] = Some(pending);
                    continue;
                }
                (Step::Change(kind, _), Some(pending)) => {
                    disk.finish(pending, &mut random);
                    if kind == (Kind::Write { durable: true }) {
                        told.push(Told { lane, step: ended[at], covers: Vec::new() });
                    }
                }
                (Step::Flush, _) => {
                    disk.flush();
                    told.push(Told { lane, step: ended[at], covers: ended.to_vec() });
                }
                (Step::Read(_), _) => {}
            }
            ended[at] += 1;
        }
        disk.cut(&mut random);
        let late = random.below(told.len().min(12) as u64 + 1) as usize;
        told.truncate(told.len() - late);
        let data = disk.read(Extent { start: 0, count: TERMS.units });
        (run, told, data, disk.struck)
    }

    #[test]
    fn a_note_is_read_as_it_was_written() {
        for covers in [vec![], vec![1, 2, 30]] {
            let told = Told { lane: 3, step: 44, covers };
            assert_eq!(told.to_string().parse::<Told>().ok(), Some(told));
        }
        assert!("".parse::<Told>().is_err() && "1 x".parse::<Told>().is_err());
    }

    #[test]
    fn nothing_is_found_on_a_right_disk_wherever_it_is_cut_and_however_late_the_notes_are() {
        let mut all = Seen::default();
        for seed in 0..60 {
            let (run, told, data, _) = cut(seed, Defect::None);
            let seen = run.judge(&TERMS, &told, &data);
            let seen = seen.unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
            all.steps += seen.steps;
            all.proven_by_the_disk += seen.proven_by_the_disk;
        }
        assert!(all.steps > 4_000 && all.proven_by_the_disk > 200, "{all:?}");
    }

    #[test]
    fn a_disk_that_loses_what_was_flushed_is_found() {
        for defect in
            [Defect::IgnoresFlush, Defect::IgnoresFua, Defect::Loses, Defect::ReplaysDiscard]
        {
            let (mut found, mut could) = (0, 0);
            for seed in 0..24 {
                let (run, told, data, struck) = cut(seed, defect);
                could += u32::from(struck > 0);
                found += u32::from(run.judge(&TERMS, &told, &data).is_err());
            }
            assert!(could > 8 && found * 2 > could, "{defect:?}: {found} of {could}");
        }
    }
}
