// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! All cells, and the few that stand for them.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use anyhow::{ensure, Context as _, Result};

use super::axes::{Cell, Direction, Fault, Load, Volume, Way};
use super::pairs::{cover, Covered};
use super::rules::{self, Rule};
use crate::random::Random;

/// The pairs of axes that the pruned matrix covers. With steps and kinds against each other every way to fail is met in every
/// step.
const PAIRS: &[(&str, &str)] = &[
    ("step", "kind"),
    ("step", "way"),
    ("load", "way"),
    ("load", "direction"),
    ("load", "volume"),
    ("way", "direction"),
    ("way", "volume"),
    ("direction", "volume"),
];

/// The pairs that it covers besides of failpoints. All that the world does it does once.
const PAIRS_OF_POINTS: &[(&str, &str)] =
    &[("step", "direction"), ("kind", "load"), ("kind", "way"), ("kind", "volume")];

/// A combination, possible or not.
pub enum Place {
    Possible(Cell),
    Impossible(Cell, &'static Rule),
}

/// All combinations of these failpoints and of what the world does with all other axes.
pub fn places(faults: &[Fault]) -> Vec<Place> {
    let mut places = Vec::new();
    for fault in faults.iter().cloned().chain(Fault::of_the_world()) {
        for &load in Load::ALL {
            for &way in Way::ALL {
                for &direction in Direction::ALL {
                    for &volume in Volume::ALL {
                        let fault = fault.clone();
                        let cell = Cell { fault, load, way, direction, volume };
                        places.push(match rules::impossible(&cell) {
                            None => Place::Possible(cell),
                            Some(rule) => Place::Impossible(cell, rule),
                        });
                    }
                }
            }
        }
    }
    places
}

/// All cells that can be.
pub fn full(faults: &[Fault]) -> Vec<Cell> {
    let possible = |place| match place {
        Place::Possible(cell) => Some(cell),
        Place::Impossible(..) => None,
    };
    places(faults).into_iter().filter_map(possible).collect()
}

/// The cells that cover all pairs, and each point once.
pub fn pruned(faults: &[Fault]) -> Vec<Cell> {
    let cells = full(faults);
    cover(&cells).into_iter().map(|at| cells[at].clone()).collect()
}

impl Covered for Cell {
    fn goals(&self) -> Vec<u64> {
        let values = self.values();
        let value =
            |axis: &str| values.iter().find(|(name, _)| *name == axis).map(|(_, word)| *word);
        let of_points = self.fault.module().map_or(&[][..], |_| PAIRS_OF_POINTS);
        let pairs = PAIRS
            .iter()
            .chain(of_points)
            .map(|(one, two)| number(&(one, value(one), two, value(two))));
        pairs.chain([number(&self.fault.point.as_str())]).collect()
    }

    fn rank(&self) -> u64 {
        Random::new(number(&self.to_string())).number()
    }
}

/// The same number for the same thing on every machine: the hasher has fixed keys.
fn number(thing: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    thing.hash(&mut hasher);
    hasher.finish()
}

/// A part of the cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u64,
    of: u64,
}

impl std::str::FromStr for Shard {
    type Err = anyhow::Error;

    /// `I/N`, from 1 on.
    fn from_str(text: &str) -> Result<Self> {
        let (index, of) = text.split_once('/').context("a shard is written as I/N")?;
        let (index, of) =
            (index.parse().context("I is no number")?, of.parse().context("N is no number")?);
        ensure!((1..=of).contains(&index), "shards of {of} are 1/{of} to {of}/{of}");
        Ok(Self { index, of })
    }
}

impl Shard {
    /// Whether the cell is in it. All shards together have every cell once.
    pub fn has(&self, cell: &Cell) -> bool {
        number(&cell.to_string()) % self.of == self.index - 1
    }
}

/// The order in which cells run: those that end a boot come last, and the others up and down in turns, so that the payload that
/// one has ended with is that with which the next one begins.
pub fn in_order(cells: Vec<Cell>) -> Vec<Cell> {
    let (last, others): (Vec<_>, Vec<_>) = cells.into_iter().partition(rules::ends_the_boot);
    let is_up = |cell: &Cell| cell.direction == Direction::Up;
    let (up, down): (Vec<_>, Vec<_>) = others.into_iter().partition(is_up);
    let (mut up, mut down) = (up.into_iter(), down.into_iter());
    let turns = std::iter::from_fn(|| Some([up.next(), down.next()]));
    let turns = turns.take_while(|turn| turn.iter().any(Option::is_some));
    turns.flatten().flatten().chain(last).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn faults() -> Vec<Fault> {
        let mut faults = Vec::new();
        for point in [
            "atom.switch.prepare",
            "atom.drain.wait",
            "atom.undo.thaw",
            "payload.prepare.begin",
            "payload.adopt.begin",
            "payload.freeze.image",
            "payload.nbd.send",
            "payload.queue.request",
            "payload.revoke.begin",
        ] {
            faults.extend(["error", "delay", "oops"].map(|kind| Fault::new(point, kind)));
        }
        faults
    }

    #[test]
    fn the_pruned_matrix_covers_every_pair_that_can_be_and_every_point_and_is_small() {
        let (faults, all) = (faults(), full(&faults()));
        let pruned = pruned(&faults);
        let goals =
            |cells: &[Cell]| -> HashSet<u64> { cells.iter().flat_map(Cell::goals).collect() };
        assert_eq!(goals(&pruned), goals(&all));
        assert!(pruned.len() < 100 && all.len() > 1500, "{} of {}", pruned.len(), all.len());
        let points: HashSet<&str> = pruned.iter().map(|cell| cell.fault.point.as_str()).collect();
        assert!(faults.iter().all(|fault| points.contains(fault.point.as_str())));
    }

    #[test]
    fn what_cannot_be_has_a_reason_and_is_not_planned() {
        let places = places(&faults());
        let mut met = HashSet::new();
        for place in &places {
            if let Place::Impossible(_, rule) = place {
                assert!(rule.why.len() > 20, "{}", rule.name);
                met.insert(rule.name);
            }
        }
        assert!(met.len() >= 5, "{met:?}");
        let planned = full(&faults()).len();
        let possible = places.iter().filter(|place| matches!(place, Place::Possible(_))).count();
        assert_eq!(planned, possible);
    }

    #[test]
    fn cells_go_up_and_down_in_turns_and_those_that_end_a_boot_come_last() {
        let all = full(&faults());
        let ordered = in_order(all.clone());
        let names = |cells: &[Cell]| cells.iter().map(Cell::to_string).collect::<HashSet<_>>();
        assert_eq!((ordered.len(), names(&ordered)), (all.len(), names(&all)));
        let count = ordered.iter().take_while(|cell| !rules::ends_the_boot(cell)).count();
        assert!(ordered.iter().skip(count).all(rules::ends_the_boot));
        let in_turns = |pair: &[Cell]| pair[0].direction != pair[1].direction;
        assert!(ordered[..count].windows(2).all(in_turns));
    }

    #[test]
    fn shards_share_all_cells_without_overlap() {
        let all = full(&faults());
        let shards: Vec<Shard> =
            (1..=4).map(|index| format!("{index}/4").parse().expect("a shard")).collect();
        for cell in &all {
            assert_eq!(shards.iter().filter(|shard| shard.has(cell)).count(), 1);
        }
        for wrong in ["0/4", "5/4", "1", "a/2", "1/0"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
