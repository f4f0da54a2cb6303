// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Which of the queued requests goes next on a connection. Pure.
//!
//! Requests wait in two lines, each first in first out. A request never changes its line, so whoever has
//! it can find it again. Order between requests is free: the block layer waits for the end of what must
//! be before.

use crate::abi::request::op;

/// The lines in which requests wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// The first line.
    First,
    /// The second line.
    Second,
}

/// A rule for who goes next.
pub trait Schedule {
    /// The line for an operation, one of [`op`].
    fn line(code: u8) -> Line;

    /// The line whose first request goes next; `None` when nobody waits. Each call counts as one that
    /// went.
    fn next(&mut self, first_waits: bool, second_waits: bool) -> Option<Line>;
}

/// First in, first out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fifo;

impl Fifo {
    /// Nothing has gone yet.
    pub const NEW: Self = Self;
}

impl Schedule for Fifo {
    fn line(_code: u8) -> Line {
        Line::First
    }

    fn next(&mut self, first_waits: bool, _second_waits: bool) -> Option<Line> {
        first_waits.then_some(Line::First)
    }
}

/// Most reads in a row that overtake what waits to be written.
pub const MAX_OVERTAKEN: u32 = 8;

/// Reads before everything else, because somebody waits for a read at once and for a write later. What is
/// first in the other line is overtaken at most [`MAX_OVERTAKEN`] times.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReadsFirst {
    overtaken: u32,
}

impl ReadsFirst {
    /// Nothing has gone yet.
    pub const NEW: Self = Self { overtaken: 0 };
}

impl Schedule for ReadsFirst {
    fn line(code: u8) -> Line {
        match code {
            op::READ => Line::First,
            _ => Line::Second,
        }
    }

    fn next(&mut self, first_waits: bool, second_waits: bool) -> Option<Line> {
        match (first_waits, second_waits) {
            (false, false) => None,
            (true, false) => Some(Line::First),
            (true, true) if self.overtaken < MAX_OVERTAKEN => {
                self.overtaken = self.overtaken.saturating_add(1);
                Some(Line::First)
            }
            (_, true) => {
                self.overtaken = 0;
                Some(Line::Second)
            }
        }
    }
}
