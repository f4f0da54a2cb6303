// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! When an NBD target is tried again, counts as failed, or is too slow. Pure functions of time.
//!
//! Times are nanoseconds of one clock that never goes back; a pause of an upgrade is taken out of them by
//! [`later`].

use crate::spec::{Terms, MAX_CONNECTIONS};

/// Time between the first attempt that failed and the next, in milliseconds.
pub const FIRST_RETRY_MS: u64 = 100;
/// Longest time of one attempt, connecting and handshake together, in milliseconds.
pub const ATTEMPT_MS: u64 = 10_000;

/// Seconds between two probes of a silent connection.
pub const KEEPALIVE_INTERVAL_S: u32 = 5;
/// Probes that stay unanswered before a connection ends.
pub const KEEPALIVE_PROBES: u32 = 3;

const NS_PER_MS: u64 = 1_000_000;

/// Milliseconds as nanoseconds.
pub const fn ns(ms: u64) -> u64 {
    ms.saturating_mul(NS_PER_MS)
}

/// A point in time, after a pause that does not count.
pub const fn later(at_ns: u64, paused_ns: u64) -> u64 {
    at_ns.saturating_add(paused_ns)
}

/// Attempts to connect that failed in a row, and when the next one is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BackOff {
    /// How many have failed in a row.
    pub failed: u32,
    /// When the next one is due.
    pub next_ns: u64,
}

impl BackOff {
    /// None has failed, and one is due.
    pub const NONE: Self = Self { failed: 0, next_ns: 0 };

    /// An attempt has failed.
    pub fn fail(&mut self, now_ns: u64, terms: &Terms) {
        let wait = wait_ms(self.failed, terms.retry_ms);
        self.failed = self.failed.saturating_add(1);
        self.next_ns = now_ns.saturating_add(ns(wait));
    }

    /// Whether no more attempts are made until somebody asks for one.
    pub const fn is_exhausted(&self, terms: &Terms) -> bool {
        terms.retries != 0 && self.failed >= terms.retries
    }

    /// When the next attempt is due; `None` when no more are made.
    pub const fn due_ns(&self, terms: &Terms) -> Option<u64> {
        match self.is_exhausted(terms) {
            true => None,
            false => Some(self.next_ns),
        }
    }
}

/// All attempts of a target: those to have a connection at all, and those to have one more. The latter wait each for
/// itself, and end nothing: a server that takes one client only refuses them for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attempts {
    /// While there is no connection.
    pub alone: BackOff,
    further: [BackOff; MAX_CONNECTIONS as usize],
}

impl Attempts {
    /// As they were left while there was no connection.
    pub fn of(alone: BackOff) -> Self {
        Self { alone, ..Self::default() }
    }

    /// When the next one for the connection `index` is due, `alone` when there is no other; `None`: never.
    pub fn due_ns(&self, index: usize, alone: bool, terms: &Terms) -> Option<u64> {
        match alone {
            true => self.alone.due_ns(terms),
            false => self.further.get(index).map(|further| further.next_ns),
        }
    }

    /// One has failed, or what it has made has ended too soon.
    pub fn fail(&mut self, index: usize, alone: bool, now_ns: u64, terms: &Terms) {
        if let Some(back_off) = self.of_connection(index, alone) {
            back_off.fail(now_ns, terms);
        }
    }

    /// A connection has ended that was of use. The next attempt is not made at once, because it may have been shut down
    /// by a payload that is about to take over.
    pub fn ended(&mut self, index: usize, alone: bool, now_ns: u64) {
        if let Some(back_off) = self.of_connection(index, alone) {
            let next_ns = now_ns.saturating_add(ns(FIRST_RETRY_MS));
            *back_off = BackOff { next_ns, ..BackOff::NONE };
        }
    }

    /// There is a first connection: others may be made at once.
    pub fn connected(&mut self) {
        self.further = Default::default();
    }

    /// Nothing was due for so long.
    pub fn pause(&mut self, paused_ns: u64) {
        for back_off in self.further.iter_mut().chain([&mut self.alone]) {
            back_off.next_ns = later(back_off.next_ns, paused_ns);
        }
    }

    fn of_connection(&mut self, index: usize, alone: bool) -> Option<&mut BackOff> {
        match alone {
            true => Some(&mut self.alone),
            false => self.further.get_mut(index),
        }
    }
}

/// Milliseconds to wait after an attempt that failed, `before` others having failed before it: 100 ms,
/// doubled each time, up to `longest_ms`.
pub const fn wait_ms(before: u32, longest_ms: u32) -> u64 {
    // More than 2^20 times the first wait is longer than any `longest_ms`.
    let doubled = FIRST_RETRY_MS << if before < 20 { before } else { 20 };
    let longest = longest_ms as u64;
    if doubled < longest {
        doubled
    } else {
        longest
    }
}

/// When a target that is without a connection since `since_ns` counts as failed; `None`: never.
pub const fn fails_ns(since_ns: u64, terms: &Terms) -> Option<u64> {
    match terms.deadline_ms {
        0 => None,
        ms => Some(since_ns.saturating_add(ns(ms as u64))),
    }
}

/// When a connection is given up on which nothing has happened to the oldest unanswered request since `since_ns`;
/// `None`: never.
pub const fn overdue_ns(since_ns: u64, terms: &Terms) -> Option<u64> {
    match terms.answer_ms {
        0 => None,
        ms => Some(since_ns.saturating_add(ns(ms as u64))),
    }
}

/// Since when nothing has happened to the oldest unanswered request of a connection.
///
/// That a request was given away long ago says nothing about its server: those before it take their time on a slow network,
/// and so do its own bytes. It waits for the server from when it is the oldest, and none of its bytes moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stillness {
    oldest: Option<(u64, u64)>,
    since_ns: u64,
}

impl Stillness {
    /// Nothing was looked at.
    pub const NEW: Self = Self { oldest: None, since_ns: 0 };

    /// Looks at the oldest request: what names it, and a number that changes as its bytes move. Returns since when it has been
    /// the oldest and nothing has changed, as far as was looked; `None`: there is none.
    pub fn look(&mut self, oldest: Option<(u64, u64)>, now_ns: u64) -> Option<u64> {
        if self.oldest != oldest {
            *self = Self { oldest, since_ns: now_ns };
        }
        oldest.map(|_| self.since_ns)
    }

    /// Moves the point in time by a pause that does not count.
    pub fn shift(&mut self, paused_ns: u64) {
        self.since_ns = self.since_ns.saturating_add(paused_ns);
    }
}

/// For how long a host may leave data without an acknowledgement, in milliseconds: as long as a silent connection stays
/// that is probed after `keepalive_s` seconds.
pub const fn user_timeout_ms(keepalive_s: u32) -> u32 {
    let probes_s = KEEPALIVE_INTERVAL_S * KEEPALIVE_PROBES;
    let ms = keepalive_s.saturating_add(probes_s).saturating_mul(1000);
    if ms < i32::MAX as u32 {
        ms
    } else {
        i32::MAX as u32
    }
}

/// When an attempt that began at `began_ns` is given up.
pub const fn attempt_ends_ns(began_ns: u64) -> u64 {
    began_ns.saturating_add(ns(ATTEMPT_MS))
}

/// The earlier of two points in time that may never come.
pub fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// At most so many events of a kind in an interval; what is beyond is only counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    began_ns: u64,
    told: u32,
    /// Events that were kept back since the last one that was told.
    pub kept_back: u32,
}

impl Limit {
    /// Nothing was told.
    pub const NEW: Self = Self { began_ns: 0, told: 0, kept_back: 0 };
    /// Most events in an interval.
    pub const BURST: u32 = 10;
    /// Its length.
    pub const INTERVAL_NS: u64 = 5_000 * NS_PER_MS;

    /// Whether an event may be told now; with how many were kept back before it.
    pub fn allow(&mut self, now_ns: u64) -> Option<u32> {
        if now_ns.saturating_sub(self.began_ns) >= Self::INTERVAL_NS {
            self.began_ns = now_ns;
            self.told = 0;
        }
        if self.told >= Self::BURST {
            self.kept_back = self.kept_back.saturating_add(1);
            return None;
        }
        self.told = self.told.saturating_add(1);
        Some(core::mem::take(&mut self.kept_back))
    }
}

/// Whether two ranges of sectors have one in common; the second is a length in bytes behind `sector`.
pub const fn overlap(sector: u64, bytes: u32, other: u64, other_bytes: u32) -> bool {
    let end = sector.saturating_add((bytes as u64).div_ceil(512));
    let other_end = other.saturating_add((other_bytes as u64).div_ceil(512));
    sector < other_end && other < end
}
