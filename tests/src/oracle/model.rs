// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What was issued, acknowledged and flushed, and what that allows to be read. Pure: it is told of everything.
//!
//! Time is a count of what the model was told. All extents are in units.

use std::collections::{BTreeMap, HashMap};

use super::stamp::{Content, Stamp, SECTOR};
use super::unit::{Number, Unit, View};
use super::verdict::Finding;

/// What is known of the device and of the oracle's area on it.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The name of this run, unlike that of any other.
    pub volume: u64,
    /// Sectors that the device never tears: those of its logical block.
    pub unit_sectors: u64,
    /// Units of the area.
    pub units: u64,
    /// Whether a discard leaves zeroes for sure.
    pub discard_zeroes: bool,
    /// Whether the area is known to have zeroes at the beginning.
    pub blank: bool,
}

impl Terms {
    /// Bytes of a unit.
    pub fn unit_bytes(&self) -> usize {
        self.unit_sectors as usize * SECTOR
    }

    /// Bytes of so many units.
    pub fn bytes(&self, units: u64) -> usize {
        units as usize * self.unit_bytes()
    }
}

/// A row of units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub start: u64,
    pub count: u64,
}

impl Extent {
    /// Whether the unit is one of them.
    pub fn has(&self, unit: u64) -> bool {
        self.units().contains(&unit)
    }

    /// The units.
    pub fn units(&self) -> std::ops::Range<u64> {
        self.start..self.start + self.count
    }
}

/// What changes a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A write; `durable` with FUA.
    Write { durable: bool },
    /// Write-zeroes.
    Zeroes,
    /// A discard.
    Discard,
    /// Not issued by anybody: zeroes that were there before.
    Blank,
    /// Not issued by anybody: whatever was there before.
    Unknown,
}

/// An operation.
#[derive(Clone, Debug)]
pub(super) struct Op {
    pub(super) kind: Kind,
    pub(super) sequence: u64,
    pub(super) generation: u64,
    pub(super) extent: Extent,
    pub(super) issued: u64,
    pub(super) ended: Option<u64>,
    acknowledged: bool,
    pub(super) durable_at: Option<u64>,
    /// After a cut only what is durable must be there.
    forgotten: bool,
    /// It leaves one thing and nothing else.
    definite: bool,
}

impl Op {
    /// Whether it must be there when nothing follows it.
    pub(super) fn settles(&self) -> bool {
        self.acknowledged && self.definite && !self.forgotten
    }

    /// Whether it was issued after the end of `older`.
    pub(super) fn follows(&self, older: &Self) -> bool {
        older.ended.is_some_and(|ended| ended < self.issued)
    }
}

/// An operation that is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(Number);

/// A flush that is in flight, with what it covers.
#[derive(Clone, Debug)]
pub struct Flush(Vec<Number>);

/// A read that is in flight.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    extent: Extent,
    since: u64,
}

/// All that is known of an area.
#[derive(Debug)]
pub struct Model {
    terms: Terms,
    clock: u64,
    table: Vec<Op>,
    by_sequence: HashMap<u64, Number>,
    units: Vec<Unit>,
    /// Acknowledged and not durable.
    volatile: Vec<Number>,
    /// When reads were issued that have not ended, and how many at that time.
    reads: BTreeMap<u64, u32>,
}

impl Model {
    pub fn new(terms: Terms) -> Self {
        let before = Op {
            kind: if terms.blank { Kind::Blank } else { Kind::Unknown },
            sequence: u64::MAX,
            generation: 0,
            extent: Extent { start: 0, count: terms.units },
            issued: 0,
            ended: Some(0),
            acknowledged: true,
            durable_at: Some(0),
            forgotten: false,
            definite: true,
        };
        Self {
            terms,
            clock: 1,
            table: vec![before],
            by_sequence: HashMap::new(),
            units: vec![Unit::new(); terms.units as usize],
            volatile: Vec::new(),
            reads: BTreeMap::new(),
        }
    }

    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// An operation is issued. Writes have sequences of their own.
    pub fn issue(&mut self, kind: Kind, extent: Extent, sequence: u64, generation: u64) -> Ticket {
        let number = self.table.len() as Number;
        let issued = self.tick();
        if matches!(kind, Kind::Write { .. }) {
            self.by_sequence.insert(sequence, number);
        }
        self.table.push(Op {
            kind,
            sequence,
            generation,
            extent,
            issued,
            ended: None,
            acknowledged: false,
            durable_at: None,
            forgotten: false,
            definite: kind != Kind::Discard || self.terms.discard_zeroes,
        });
        for unit in self.touched(extent) {
            unit.add(number, kind);
        }
        Ticket(number)
    }

    /// It was acknowledged.
    pub fn acknowledge(&mut self, Ticket(number): Ticket) {
        let now = self.tick();
        let Some(op) = self.table.get_mut(number as usize) else { return };
        op.ended = Some(now);
        op.acknowledged = true;
        if op.kind == (Kind::Write { durable: true }) {
            op.durable_at = Some(now);
            self.prune(&[number]);
        } else {
            self.volatile.push(number);
        }
    }

    /// It failed, and may have happened or not.
    pub fn fail(&mut self, Ticket(number): Ticket) {
        let now = self.tick();
        if let Some(op) = self.table.get_mut(number as usize) {
            op.ended = Some(now);
        }
    }

    /// A flush is issued.
    pub fn flush(&mut self) -> Flush {
        self.tick();
        Flush(self.volatile.clone())
    }

    /// A flush is issued of which it is only known that it covers the writes with these sequences.
    pub fn flush_of(&mut self, covers: impl Fn(u64) -> bool) -> Flush {
        self.tick();
        let all = self.volatile.iter().copied();
        Flush(all.filter(|number| covers(self.table[*number as usize].sequence)).collect())
    }

    /// The flush was acknowledged.
    pub fn flushed(&mut self, Flush(covered): Flush) {
        let now = self.tick();
        for number in &covered {
            if let Some(op) = self.table.get_mut(*number as usize) {
                op.durable_at.get_or_insert(now);
            }
        }
        let table = &self.table;
        self.volatile.retain(|number| table[*number as usize].durable_at.is_none());
        self.prune(&covered);
    }

    /// A read is issued.
    pub fn read(&mut self, extent: Extent) -> Read {
        let since = self.tick();
        *self.reads.entry(since).or_default() += 1;
        Read { extent, since }
    }

    /// The read failed.
    pub fn read_failed(&mut self, read: Read) {
        if let Some(count) = self.reads.get_mut(&read.since) {
            *count -= 1;
            if *count == 0 {
                self.reads.remove(&read.since);
            }
        }
    }

    /// The read has returned this.
    pub fn judge(&mut self, read: Read, data: &[u8]) -> Vec<Finding> {
        self.tick();
        let findings = self.look(read.extent, data, read.since, None, |unit, number| {
            unit.seen = unit.seen.max(Some(number));
        });
        self.read_failed(read);
        findings
    }

    /// The power was cut: what is in flight never ends, and what is not durable may be gone.
    pub fn cut(&mut self) {
        let now = self.tick();
        for op in &mut self.table {
            op.ended.get_or_insert(now);
            op.forgotten |= op.durable_at.is_none();
        }
        self.volatile.clear();
        self.reads.clear();
    }

    /// Judges the whole area after a cut. What is there is known from then on.
    pub fn survey(&mut self, data: &[u8]) -> Vec<Finding> {
        let since = self.tick();
        let stamps = data.chunks(SECTOR).map(Stamp::read).filter_map(|content| match content {
            Content::Stamped(stamp) if stamp.volume == self.terms.volume => Some(stamp),
            _ => None,
        });
        let issued = stamps.filter_map(|stamp| {
            let number = self.by_sequence.get(&stamp.sequence)?;
            Some(self.table[*number as usize].issued)
        });
        let proven = issued.max().unwrap_or(0);
        let all = Extent { start: 0, count: self.terms.units };
        let mut settled = Vec::new();
        let findings = self.look(all, data, since, Some(proven), |unit, number| {
            unit.settle(number);
            settled.push(number);
        });
        for number in settled {
            if let Some(op) = self.table.get_mut(number as usize) {
                op.acknowledged = true;
                op.definite = true;
                op.forgotten = false;
                op.durable_at.get_or_insert(since);
            }
        }
        findings
    }

    fn look(
        &mut self,
        extent: Extent,
        data: &[u8],
        since: u64,
        proven: Option<u64>,
        mut right: impl FnMut(&mut Unit, Number),
    ) -> Vec<Finding> {
        let view = View {
            table: &self.table,
            terms: &self.terms,
            by_sequence: &|sequence| self.by_sequence.get(&sequence).copied(),
            since,
            proven,
        };
        let mut findings = Vec::new();
        for (unit, bytes) in extent.units().zip(data.chunks(self.terms.unit_bytes())) {
            let Some(known) = self.units.get_mut(unit as usize) else { continue };
            match known.judge(unit, bytes, &view) {
                Ok(number) => right(known, number),
                Err(finding) => findings.push(finding),
            }
        }
        findings
    }

    fn prune(&mut self, numbers: &[Number]) {
        let horizon = self.reads.keys().next().copied().unwrap_or(self.clock);
        for number in numbers {
            let extent = self.table[*number as usize].extent;
            let units = self.units.get_mut(extent.start as usize..).into_iter().flatten();
            for unit in units.take(extent.count as usize) {
                unit.prune(&self.table, horizon);
            }
        }
    }

    fn touched(&mut self, extent: Extent) -> impl Iterator<Item = &mut Unit> {
        let units = self.units.get_mut(extent.start as usize..).into_iter().flatten();
        units.take(extent.count as usize)
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}
