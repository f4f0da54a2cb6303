// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The operations that what stands in one unit may be of.

use super::model::{Kind, Op, Terms};
use super::stamp::{Content, Stamp, SECTOR};
use super::verdict::{shown, Finding, Rule};

/// The number of an operation in the model's table; 0 is what was there before the first.
pub(super) type Number = u32;

/// One unit.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    /// The operations that may still be found here. Those that can never be any more are dropped.
    pub(super) ops: Vec<Number>,
    /// The newest one that was seen here.
    pub(super) seen: Option<Number>,
    /// The last discard or write-zeroes, also when it was dropped.
    cleared: Option<Number>,
}

/// What a read is judged by.
pub(super) struct View<'a> {
    /// All operations.
    pub(super) table: &'a [Op],
    pub(super) terms: &'a Terms,
    /// The number of the write with this sequence.
    pub(super) by_sequence: &'a dyn Fn(u64) -> Option<Number>,
    /// When the read was issued.
    pub(super) since: u64,
    /// After a cut: when the newest write was issued of which anything was found.
    pub(super) proven: Option<u64>,
}

impl Unit {
    pub(super) fn new() -> Self {
        Self { ops: vec![0], seen: None, cleared: None }
    }

    pub(super) fn add(&mut self, number: Number, kind: Kind) {
        self.ops.push(number);
        if matches!(kind, Kind::Zeroes | Kind::Discard) {
            self.cleared = Some(number);
        }
    }

    /// Drops what can be found neither by a read that was issued at `horizon` or later nor after a cut.
    pub(super) fn prune(&mut self, table: &[Op], horizon: u64) {
        let gone = |older: Number| {
            self.ops.iter().any(|newer| {
                let newer = &table[*newer as usize];
                let outlives = newer.durable_at.is_some() && newer.settles();
                outlives
                    && newer.ended.is_some_and(|ended| ended < horizon)
                    && newer.follows(&table[older as usize])
            })
        };
        let kept: Vec<Number> = self.ops.iter().copied().filter(|older| !gone(*older)).collect();
        self.ops = kept;
    }

    /// From now on it is known what is here.
    pub(super) fn settle(&mut self, number: Number) {
        self.ops = vec![number];
    }

    /// The settled operation that follows this one, and was acknowledged before the read was issued: the newest, and
    /// whether there are several in a row.
    fn overwritten(&self, older: &Op, view: &View<'_>) -> Option<(Number, bool)> {
        let follows = |number: &&Number| {
            let newer = &view.table[**number as usize];
            newer.settles() && newer.ended < Some(view.since) && newer.follows(older)
        };
        let newest = *self.ops.iter().filter(follows).max()?;
        let between =
            |number: &&Number| view.table[newest as usize].follows(&view.table[**number as usize]);
        Some((newest, self.ops.iter().filter(follows).any(|number| between(&number))))
    }

    fn is_allowed(&self, number: Number, view: &View<'_>) -> bool {
        let op = &view.table[number as usize];
        self.ops.contains(&number) && self.overwritten(op, view).is_none()
    }

    /// The operations of this unit that may have left a sector as it is.
    fn sources(
        &self,
        content: &Content,
        sector: u64,
        view: &View<'_>,
    ) -> Result<Vec<Number>, Rule> {
        let leaves = |wanted: &dyn Fn(&Op) -> bool| -> Vec<Number> {
            self.ops.iter().copied().filter(|at| wanted(&view.table[*at as usize])).collect()
        };
        let anything = leaves(&|op| op.kind == Kind::Unknown);
        let rule = match content {
            Content::Zeroes => return Ok(leaves(&|op| !matches!(op.kind, Kind::Write { .. }))),
            Content::Garbage => Rule::Garbage,
            Content::Stamped(stamp) if stamp.volume != view.terms.volume => Rule::Misdirected,
            Content::Stamped(stamp) if stamp.sector != sector => Rule::Misdirected,
            Content::Stamped(stamp) => match self.written_by(stamp, view) {
                Some(number) => return Ok(vec![number]),
                None => Rule::Garbage,
            },
        };
        if anything.is_empty() {
            Err(rule)
        } else {
            Ok(anything)
        }
    }

    /// The write of a stamp, if it was one to this sector.
    fn written_by(&self, stamp: &Stamp, view: &View<'_>) -> Option<Number> {
        let number = (view.by_sequence)(stamp.sequence)?;
        let op = &view.table[number as usize];
        let unit = stamp.sector / view.terms.unit_sectors;
        (op.generation == stamp.generation && op.extent.has(unit)).then_some(number)
    }

    /// Judges what was read. Returns the operation that it is of.
    pub(super) fn judge(
        &self,
        unit: u64,
        bytes: &[u8],
        view: &View<'_>,
    ) -> Result<Number, Finding> {
        let first = unit * view.terms.unit_sectors;
        let contents: Vec<Content> = bytes.chunks(SECTOR).map(Stamp::read).collect();
        let finding = |rule| Finding {
            rule,
            sector: first,
            found: shown(&contents, bytes),
            wanted: self.wanted(view),
        };
        if contents.contains(&Content::Garbage) && self.is_in_flight(view) {
            let newest = self.ops.iter().copied().filter(|at| self.is_allowed(*at, view)).max();
            return match newest.filter(|_| self.is_mixed(first, bytes, view)) {
                Some(number) => Ok(number),
                None => Err(finding(Rule::Garbage)),
            };
        }
        let mut sources = Vec::new();
        for (sector, content) in (first..).zip(&contents) {
            sources.push(self.sources(content, sector, view).map_err(finding)?);
        }
        let all = |number: &Number| sources.iter().all(|of| of.contains(number));
        let allowed = |number: &&Number| self.is_allowed(**number, view);
        if let Some(number) = self.ops.iter().filter(allowed).filter(|number| all(number)).max() {
            return Ok(*number);
        }
        let any_allowed = |of: &Vec<Number>| {
            of.iter().copied().filter(|number| self.is_allowed(*number, view)).max()
        };
        let is_uniform = contents.windows(2).all(|two| match two {
            [Content::Stamped(one), Content::Stamped(two)] => one.sequence == two.sequence,
            [one, two] => one == two,
            _ => true,
        });
        if !is_uniform {
            let parts: Option<Vec<Number>> = sources.iter().map(any_allowed).collect();
            return match parts {
                // A read beside a write may see some of it.
                Some(parts) if self.is_in_flight(view) => Ok(parts.into_iter().max().unwrap_or(0)),
                _ => Err(finding(Rule::Torn)),
            };
        }
        let of_first = sources.first().map(Vec::as_slice).unwrap_or_default();
        Err(finding(self.rule(&contents, of_first, view)))
    }

    /// Whether each byte is of something that is allowed: memory is copied byte by byte, and a read beside a write may see
    /// a part of a sector.
    fn is_mixed(&self, first: u64, bytes: &[u8], view: &View<'_>) -> bool {
        let mut left = vec![false; bytes.len()];
        for number in self.ops.iter().filter(|number| self.is_allowed(**number, view)) {
            let op = &view.table[*number as usize];
            let mut theirs = vec![0; bytes.len()];
            if op.kind == Kind::Unknown {
                return true;
            }
            if matches!(op.kind, Kind::Write { .. }) {
                let (volume, sequence, generation) =
                    (view.terms.volume, op.sequence, op.generation);
                for (sector, place) in (first..).zip(theirs.chunks_mut(SECTOR)) {
                    Stamp { volume, sector, sequence, generation }.write(place);
                }
            }
            for ((left, theirs), byte) in left.iter_mut().zip(&theirs).zip(bytes) {
                *left |= theirs == byte;
            }
        }
        left.iter().all(|explained| *explained)
    }

    /// Whether a write to it was in flight during the read.
    fn is_in_flight(&self, view: &View<'_>) -> bool {
        view.proven.is_none()
            && self.ops.iter().any(|number| {
                let op = &view.table[*number as usize];
                op.ended.is_none_or(|ended| ended >= view.since)
            })
    }

    /// The rule that a whole unit of an operation that is not allowed has broken.
    fn rule(&self, contents: &[Content], sources: &[Number], view: &View<'_>) -> Rule {
        let is_before = |number: &Number| *number == 0;
        if contents.first() == Some(&Content::Zeroes) {
            let cleared = self.cleared.filter(|number| {
                let op = &view.table[*number as usize];
                self.ops.iter().any(|newer| {
                    let newer = &view.table[*newer as usize];
                    newer.settles() && newer.follows(op)
                })
            });
            if cleared.is_some() || sources.iter().any(|number| !is_before(number)) {
                return Rule::Replayed;
            }
        }
        let found = sources.iter().copied().max().unwrap_or(0);
        let op = &view.table[found as usize];
        let (newest, several) = self.overwritten(op, view).unwrap_or((0, false));
        if let Some(proven) = view.proven {
            let durable = view.table[newest as usize].durable_at;
            return match durable {
                Some(durable) if durable < proven => Rule::Reordered,
                _ => Rule::Lost,
            };
        }
        let was_seen = self.seen.is_some_and(|seen| view.table[seen as usize].follows(op));
        // What was dropped is older than all that is left.
        if several || was_seen || !(self.ops.contains(&found) || is_before(&found)) {
            Rule::Stale
        } else {
            Rule::Lost
        }
    }

    fn wanted(&self, view: &View<'_>) -> String {
        let allowed = self.ops.iter().filter(|number| self.is_allowed(**number, view));
        let words = allowed.map(|number| {
            let op = &view.table[*number as usize];
            match op.kind {
                Kind::Write { .. } => {
                    format!("write {:#x} of generation {}", op.sequence, op.generation)
                }
                Kind::Zeroes => "zeroes".to_owned(),
                Kind::Discard => "what a discard leaves".to_owned(),
                Kind::Blank => "zeroes of the beginning".to_owned(),
                Kind::Unknown => "anything".to_owned(),
            }
        });
        words.collect::<Vec<_>>().join(" or ")
    }
}
