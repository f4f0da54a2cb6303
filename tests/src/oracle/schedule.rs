// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a lane does next. It follows from the seed, the lane and the step, so that whoever knows how far a lane has come knows
//! all that it did.

use super::model::{Extent, Kind};
use crate::random::Random;

/// Longest write and read, in units.
const MOST: u64 = 8;
/// Longest discard and zeroes, in units.
const MOST_CLEARED: u64 = 16;

/// How often each operation comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    pub writes: u64,
    pub durable_writes: u64,
    pub reads: u64,
    pub flushes: u64,
    pub zeroes: u64,
    pub discards: u64,
}

impl Mix {
    /// Reads and writes.
    pub const PLAIN: Self =
        Self { writes: 10, durable_writes: 0, reads: 8, flushes: 0, zeroes: 0, discards: 0 };
    /// All there is.
    pub const ALL: Self =
        Self { writes: 10, durable_writes: 2, reads: 8, flushes: 2, zeroes: 1, discards: 1 };
    /// What says most at a cut of the power: flushes often, and no reads.
    pub const CUT: Self =
        Self { writes: 12, durable_writes: 3, reads: 0, flushes: 2, zeroes: 1, discards: 1 };
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Change(Kind, Extent),
    Read(Extent),
    Flush,
}

/// What lanes do.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pub seed: u64,
    pub mix: Mix,
}

impl Schedule {
    /// What lane `lane` does in this step, within `region`. A later `attempt` is something else.
    pub fn step(&self, lane: u64, step: u64, attempt: u64, region: Extent) -> Step {
        let Self { seed, mix } = self;
        let mut random = Random::mixed(&[*seed, lane, step, attempt]);
        let weights =
            [mix.writes, mix.durable_writes, mix.reads, mix.zeroes, mix.discards, mix.flushes];
        let mut at = random.below(weights.iter().sum());
        let chosen = weights.iter().position(|weight| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        let mut extent = |most: u64| {
            let count = 1 + random.below(most.min(region.count));
            Extent { start: region.start + random.below(region.count - count + 1), count }
        };
        match chosen {
            Some(0) => Step::Change(Kind::Write { durable: false }, extent(MOST)),
            Some(1) => Step::Change(Kind::Write { durable: true }, extent(MOST)),
            Some(2) => Step::Read(extent(MOST)),
            Some(3) => Step::Change(Kind::Zeroes, extent(MOST_CLEARED)),
            Some(4) => Step::Change(Kind::Discard, extent(MOST_CLEARED)),
            _ => Step::Flush,
        }
    }
}

/// The sequence of the write that a lane issues in a step.
pub const fn sequence(lane: u64, step: u64) -> u64 {
    lane << 40 | step
}

/// Lane and step of a sequence.
pub const fn origin(sequence: u64) -> (u64, u64) {
    (sequence >> 40, sequence & ((1 << 40) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_from_the_seed_stay_in_their_region_and_all_kinds_come_up() {
        let region = Extent { start: 100, count: 20 };
        let schedule = Schedule { seed: 3, mix: Mix::ALL };
        let steps: Vec<Step> = (0..400).map(|step| schedule.step(1, step, 0, region)).collect();
        assert!((0..400).all(|at| schedule.step(1, at, 0, region) == steps[at as usize]));
        assert!((0..400).any(|at| schedule.step(1, at, 1, region) != steps[at as usize]));
        for step in &steps {
            if let Step::Change(_, extent) | Step::Read(extent) = step {
                assert!(extent.count > 0 && extent.start >= 100 && extent.units().end <= 120);
            }
        }
        let has = |wanted: fn(&Step) -> bool| steps.iter().any(wanted);
        assert!(has(|step| *step == Step::Flush) && has(|step| matches!(step, Step::Read(_))));
        for kind in [
            Kind::Write { durable: false },
            Kind::Write { durable: true },
            Kind::Zeroes,
            Kind::Discard,
        ] {
            assert!(steps.iter().any(|step| matches!(step, Step::Change(of, _) if *of == kind)));
        }
        assert_eq!(origin(sequence(31, 77)), (31, 77));
    }
}
