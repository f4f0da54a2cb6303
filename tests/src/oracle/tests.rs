// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The oracle finds each defect of a disk, and none on a right one.

use std::collections::BTreeSet;

use super::fake::{Defect, Disk, Pending};
use super::model::{Extent, Kind, Model, Terms, Ticket};
use super::stamp::{Stamp, SECTOR};
use super::verdict::{Finding, Rule};
use crate::random::Random;

const TERMS: Terms =
    Terms { volume: 42, unit_sectors: 2, units: 24, discard_zeroes: true, blank: true };

/// A disk, and the oracle that is told of everything that happens to it.
struct Bench {
    random: Random,
    disk: Disk,
    model: Model,
    flying: Vec<(Ticket, Extent, Pending)>,
    sequence: u64,
    generation: u64,
    findings: Vec<Finding>,
}

impl Bench {
    fn new(seed: u64, terms: Terms, defect: Defect) -> Self {
        Self {
            random: Random::mixed(&[seed, defect as u64]),
            disk: Disk::new(terms, defect),
            model: Model::new(terms),
            flying: Vec::new(),
            sequence: 0,
            generation: 1,
            findings: Vec::new(),
        }
    }

    fn issue(&mut self, kind: Kind, extent: Extent) {
        self.sequence += 1;
        let ticket = self.model.issue(kind, extent, self.sequence, self.generation);
        let pending = self.disk.issue(kind, extent, self.sequence, self.generation);
        self.flying.push((ticket, extent, pending));
    }

    fn end(&mut self, at: usize) {
        let (ticket, _, pending) = self.flying.swap_remove(at);
        self.disk.finish(pending, &mut self.random);
        self.model.acknowledge(ticket);
    }

    /// An operation that ends at once.
    fn whole(&mut self, kind: Kind, start: u64, count: u64) {
        self.issue(kind, Extent { start, count });
        self.end(self.flying.len() - 1);
    }

    fn flush(&mut self) {
        let flush = self.model.flush();
        self.disk.flush();
        self.model.flushed(flush);
    }

    fn read(&mut self, extent: Extent) {
        let read = self.model.read(extent);
        let data = self.disk.read(extent);
        self.findings.extend(self.model.judge(read, &data));
    }

    fn read_all(&mut self) {
        self.read(Extent { start: 0, count: self.model.terms().units });
    }

    fn cut(&mut self) {
        for (_, _, mut pending) in std::mem::take(&mut self.flying) {
            for _ in 0..self.random.below(4) {
                self.disk.work(&mut pending, &mut self.random);
            }
        }
        self.disk.cut(&mut self.random);
        self.model.cut();
        self.generation += 1;
        let all = Extent { start: 0, count: self.model.terms().units };
        let data = self.disk.read(all);
        self.findings.extend(self.model.survey(&data));
    }

    fn extent(&mut self) -> Extent {
        let units = self.model.terms().units;
        let count = 1 + self.random.below(4);
        Extent { start: self.random.below(units - count + 1), count }
    }

    /// One thing that chance wants.
    fn step(&mut self, cuts: bool) {
        let extent = self.extent();
        let busy = self.flying.len() > 5;
        match if busy { 14 + self.random.below(6) } else { self.random.below(20) } {
            0..=5 => self.issue(Kind::Write { durable: false }, extent),
            6 => self.issue(Kind::Write { durable: true }, extent),
            7 => self.issue(Kind::Zeroes, extent),
            8 => self.issue(Kind::Discard, extent),
            9 | 10 => self.flush(),
            11..=13 => self.read(extent),
            14 if cuts && self.random.below(8) == 0 => self.cut(),
            _ if self.flying.is_empty() => {}
            14..=16 => {
                let at = self.random.below(self.flying.len() as u64) as usize;
                let (_, _, pending) = &mut self.flying[at];
                self.disk.work(pending, &mut self.random);
            }
            _ => {
                let at = self.random.below(self.flying.len() as u64) as usize;
                self.end(at);
            }
        }
    }

    fn run(&mut self, steps: u32, cuts: bool) {
        for _ in 0..steps {
            self.step(cuts);
        }
        while !self.flying.is_empty() {
            self.end(0);
        }
        self.read_all();
        if cuts {
            self.cut();
        }
    }
}

const WRITE: Kind = Kind::Write { durable: false };
const FUA: Kind = Kind::Write { durable: true };

#[test]
fn nothing_is_found_on_a_right_disk_whatever_is_in_flight_and_wherever_it_is_cut() {
    for seed in 0..40 {
        for terms in [
            TERMS,
            Terms { discard_zeroes: false, ..TERMS },
            Terms { blank: false, unit_sectors: 1, ..TERMS },
        ] {
            let mut bench = Bench::new(seed, terms, Defect::None);
            bench.run(300, seed % 2 == 0);
            assert_eq!(bench.findings, [], "seed {seed}, {terms:?}");
        }
    }
}

/// What is found under chance, with and without cuts.
fn found(defect: Defect) -> BTreeSet<Rule> {
    let mut rules = BTreeSet::new();
    let mut missed = 0;
    for seed in 0..60 {
        let mut bench = Bench::new(seed, TERMS, defect);
        // Only a cut tells what was not on the medium.
        let needs_cuts = matches!(defect, Defect::IgnoresFlush | Defect::IgnoresFua);
        bench.run(300, needs_cuts || seed % 2 == 0);
        rules.extend(bench.findings.iter().map(|finding| finding.rule));
        missed += u32::from(bench.disk.struck > 3 && bench.findings.is_empty());
    }
    assert!(missed < 25, "{defect:?}: {missed} of 60 runs have found nothing");
    rules
}

#[test]
fn each_defect_of_a_disk_is_found_under_random_load_and_called_by_its_name() {
    for (defect, rule) in [
        (Defect::Loses, Rule::Lost),
        (Defect::Tears, Rule::Torn),
        (Defect::ReplaysWrite, Rule::Stale),
        (Defect::ReplaysDiscard, Rule::Replayed),
        (Defect::Misdirects, Rule::Misdirected),
        (Defect::Flips, Rule::Garbage),
        (Defect::IgnoresFlush, Rule::Reordered),
        (Defect::IgnoresFua, Rule::Lost),
    ] {
        let found = found(defect);
        assert!(found.contains(&rule), "{defect:?}: {found:?}");
    }
}

/// The rules that are broken when the device has the content of `bytes` in unit 0.
fn judged(bench: &mut Bench, sequences: [Option<u64>; 2], generation: u64) -> Vec<Rule> {
    let mut data = vec![0; TERMS.unit_bytes()];
    for ((sector, place), sequence) in (0..).zip(data.chunks_mut(SECTOR)).zip(sequences) {
        if let Some(sequence) = sequence {
            Stamp { volume: TERMS.volume, sector, sequence, generation }.write(place);
        }
    }
    let read = bench.model.read(Extent { start: 0, count: 1 });
    bench.model.judge(read, &data).iter().map(|finding| finding.rule).collect()
}

#[test]
fn writes_that_are_in_flight_together_land_in_any_order_and_what_was_acknowledged_before_is_gone() {
    let mut bench = Bench::new(0, TERMS, Defect::None);
    bench.whole(WRITE, 0, 1);
    assert_eq!(judged(&mut bench, [Some(1); 2], 1), []);
    assert_eq!(judged(&mut bench, [None; 2], 1), [Rule::Stale], "zeroes were not seen, but 1 was");
    bench.issue(WRITE, Extent { start: 0, count: 1 });
    bench.issue(WRITE, Extent { start: 0, count: 2 });
    for any in 1..=3 {
        assert_eq!(judged(&mut bench, [Some(any); 2], 1), [], "{any}");
    }
    assert_eq!(judged(&mut bench, [Some(2), Some(3)], 1), [], "both are under way");
    bench.end(0);
    assert_eq!(judged(&mut bench, [Some(1); 2], 1), [Rule::Stale]);
    assert_eq!(judged(&mut bench, [Some(2); 2], 1), []);
    assert_eq!(judged(&mut bench, [Some(3); 2], 1), []);
    bench.end(0);
    assert_eq!(judged(&mut bench, [Some(2); 2], 1), [], "nobody knows which was the last");
    assert_eq!(judged(&mut bench, [Some(2), Some(3)], 1), [Rule::Torn], "none is under way");
    assert_eq!(judged(&mut bench, [Some(3); 2], 2), [Rule::Garbage], "of another generation");
    assert_eq!(judged(&mut bench, [Some(9); 2], 1), [Rule::Garbage], "nobody wrote 9");
}

#[test]
fn a_read_beside_a_write_may_end_in_the_middle_of_a_sector_and_has_no_byte_of_its_own() {
    let mut bench = Bench::new(0, TERMS, Defect::None);
    let unit = Extent { start: 0, count: 1 };
    bench.whole(WRITE, 0, 1);
    let mut mixed = bench.disk.read(unit);
    bench.issue(WRITE, unit);
    let (ticket, _, pending) = bench.flying.remove(0);
    let rules = |model: &mut Model, data: &[u8]| -> Vec<Rule> {
        let read = model.read(unit);
        model.judge(read, data).iter().map(|finding| finding.rule).collect()
    };
    bench.disk.finish(pending, &mut bench.random);
    mixed[..100].copy_from_slice(&bench.disk.read(unit)[..100]);
    assert_eq!(rules(&mut bench.model, &mixed), [], "the write is under way");
    let mut wrong = mixed.clone();
    wrong[300] ^= 1;
    assert_eq!(rules(&mut bench.model, &wrong), [Rule::Garbage]);
    bench.model.acknowledge(ticket);
    assert_eq!(rules(&mut bench.model, &mixed), [Rule::Garbage], "it has ended");
}

#[test]
fn a_lost_write_is_told_from_one_that_came_back() {
    let mut bench = Bench::new(0, TERMS, Defect::None);
    bench.whole(WRITE, 0, 1);
    bench.whole(WRITE, 0, 1);
    assert_eq!(judged(&mut bench, [Some(1); 2], 1), [Rule::Lost]);
    assert_eq!(judged(&mut bench, [Some(2); 2], 1), []);
    assert_eq!(judged(&mut bench, [Some(1); 2], 1), [Rule::Stale], "2 was seen");
    bench.whole(Kind::Discard, 0, 1);
    assert_eq!(judged(&mut bench, [Some(2); 2], 1), [Rule::Lost], "a discard that was not done");
    assert_eq!(judged(&mut bench, [None; 2], 1), []);
    bench.whole(WRITE, 0, 1);
    assert_eq!(judged(&mut bench, [None; 2], 1), [Rule::Replayed]);
}

#[test]
fn a_read_that_was_issued_before_an_acknowledgement_may_miss_the_write() {
    let mut bench = Bench::new(0, TERMS, Defect::None);
    bench.whole(FUA, 0, 1);
    let old = bench.disk.read(Extent { start: 0, count: 1 });
    let early = bench.model.read(Extent { start: 0, count: 1 });
    bench.whole(FUA, 0, 1);
    bench.whole(FUA, 0, 1);
    let late = bench.model.read(Extent { start: 0, count: 1 });
    assert_eq!(bench.model.judge(early, &old), []);
    assert_eq!(bench.model.judge(late, &old).len(), 1);
}

#[test]
fn a_write_that_failed_may_be_there_or_not_and_hides_nothing() {
    let mut bench = Bench::new(0, TERMS, Defect::None);
    bench.whole(WRITE, 0, 1);
    bench.issue(WRITE, Extent { start: 0, count: 1 });
    let (ticket, ..) = bench.flying.remove(0);
    bench.model.fail(ticket);
    assert_eq!(judged(&mut bench, [Some(1); 2], 1), []);
    assert_eq!(judged(&mut bench, [Some(2); 2], 1), []);
    bench.whole(WRITE, 0, 1);
    assert_eq!(judged(&mut bench, [Some(2); 2], 1), [Rule::Lost], "it may not come late");
}

#[test]
fn a_flush_covers_what_was_acknowledged_before_it_was_issued_and_nothing_else() {
    let mut bench = Bench::new(0, TERMS, Defect::None);
    bench.whole(WRITE, 0, 1);
    bench.issue(WRITE, Extent { start: 1, count: 1 });
    bench.flush();
    bench.end(0);
    bench.whole(WRITE, 2, 1);
    bench.model.cut();
    let mut data = bench.disk.read(Extent { start: 0, count: TERMS.units });
    let bytes = TERMS.unit_bytes();
    data[bytes..2 * bytes].fill(0);
    let mut without_the_first = data.clone();
    without_the_first[..bytes].fill(0);
    let rules: Vec<Rule> =
        bench.model.survey(&without_the_first).iter().map(|finding| finding.rule).collect();
    // The write to unit 2 was issued after the flush, and is there.
    assert_eq!(rules, [Rule::Reordered]);
    assert_eq!(bench.model.survey(&data), []);
}
