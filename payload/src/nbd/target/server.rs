// SPDX-License-Identifier: GPL-2.0

//! What a target knows of its server: whether it is there, when it is tried again, and what was agreed on.

use core::sync::atomic::Ordering;

use super::super::connection::Lost;
use super::super::handshake::{Agreed, Blocks};
use super::super::rules::{fails_ns, ns, Attempts, Limit};
use super::super::wire::transmission;
use super::super::{line, suspended, tell};
use super::{Target, MAX_PAYLOAD_BYTES};
use crate::abi::request::status;
use crate::abi::text::Text;
use crate::flight::now_ns;
use crate::shape::PAGE_BYTES;
use crate::spec::OnFailure;

/// A connection that lived for less counts as an attempt that failed, so that a server that accepts and drops is
/// not asked in a loop.
const STABLE_NS: u64 = ns(1000);
/// Why a second connection is refused.
const SINGLE: &str = "the server does not allow several connections";

/// What is taken for granted of an export before its server has answered: that it has a cache, so that it is flushed.
pub(super) const NOTHING: Agreed = Agreed {
    bytes: 0,
    flags: transmission::HAS_FLAGS | transmission::SEND_FLUSH,
    blocks: Blocks::DEFAULT,
    structured: false,
};

/// What is known of the server.
pub(super) struct State {
    /// What was agreed on last.
    pub(super) agreed: Option<Agreed>,
    /// Since when it has a connection, or has none.
    pub(super) since_ns: u64,
    pub(super) failed: bool,
    pub(super) attempts: Attempts,
    pub(super) reconnects: u64,
    pub(super) protocol_errors: u64,
    pub(super) last_error: Text,
    /// How the first attempt has ended, once it has.
    pub(super) first: Option<core::result::Result<(), Text>>,
    /// Somebody wants to know the size; then what it is.
    pub(super) probing: bool,
    pub(super) probed: Option<core::result::Result<u64, Text>>,
    pub(super) limit: Limit,
}

impl State {
    pub(super) fn new(now: u64) -> Self {
        Self {
            agreed: None,
            since_ns: now,
            failed: false,
            attempts: Attempts::default(),
            reconnects: 0,
            protocol_errors: 0,
            last_error: Text::EMPTY,
            first: None,
            probing: false,
            probed: None,
            limit: Limit::NEW,
        }
    }
}

impl Target {
    fn is_multi(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & u32::from(transmission::CAN_MULTI_CONN) != 0
    }

    /// When a connection is to be attempted; `None`: not before something has happened.
    pub(in crate::nbd) fn attempt_due(&self, index: usize, probes: bool) -> Option<u64> {
        // While requests wait, a drain waits for them, and so for a connection.
        if suspended() && self.waiting.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut state = self.state.lock();
        self.forgive(&mut state);
        if probes {
            return state.probing.then_some(0);
        }
        let alone = self.live.load(Ordering::SeqCst) == 0;
        let wanted = match alone {
            true => index == 0,
            false => self.is_multi(),
        };
        if !wanted {
            return None;
        }
        state.attempts.due_ns(index, alone, &self.terms)
    }

    /// Attempts that have failed count no more once somebody has asked for one.
    fn forgive(&self, state: &mut State) {
        if self.retry.swap(false, Ordering::SeqCst) {
            state.attempts = Attempts::default();
        }
    }

    /// Whether an export can serve in the place of the one that was there before.
    pub(in crate::nbd) fn judge(&self, agreed: &Agreed) -> core::result::Result<(), Text> {
        if agreed.blocks.maximum < PAGE_BYTES {
            // The block layer's requests cannot be made shorter.
            return Err(Text::new("the export takes less than a page at a time"));
        }
        let Some(before) = self.state.lock().agreed else {
            return Ok(());
        };
        let needed = transmission::SEND_FLUSH
            | transmission::SEND_FUA
            | transmission::SEND_TRIM
            | transmission::SEND_WRITE_ZEROES;
        let missing = before.flags & !agreed.flags & needed;
        let read_only = agreed.flags & !before.flags & transmission::READ_ONLY;
        let others = self.live.load(Ordering::SeqCst) != 0;
        let why = match () {
            () if agreed.bytes < before.bytes => "the export has shrunk",
            () if agreed.blocks.minimum > before.blocks.minimum => "the export has larger blocks",
            () if agreed.blocks.maximum.min(MAX_PAYLOAD_BYTES)
                < before.blocks.maximum.min(MAX_PAYLOAD_BYTES) =>
            {
                "the export takes shorter requests"
            }
            () if missing != 0 => "the export can do less than before",
            () if read_only != 0 => "the export has become read-only",
            () if others && agreed.flags & transmission::CAN_MULTI_CONN == 0 => SINGLE,
            () => return Ok(()),
        };
        let mut state = self.state.lock();
        if self.live.load(Ordering::SeqCst) == 0 {
            self.fail(&mut state, Text::new(why));
        }
        Err(Text::new(why))
    }

    /// A connection is in the transmission phase, unless another one was quicker and there may be one only.
    pub(in crate::nbd) fn connected(
        &self,
        index: usize,
        agreed: &Agreed,
        now: u64,
    ) -> core::result::Result<(), Text> {
        let before = self.live.fetch_or(1 << index, Ordering::SeqCst);
        if before != 0 && agreed.flags & transmission::CAN_MULTI_CONN == 0 {
            self.live.fetch_and(!(1 << index), Ordering::SeqCst);
            return Err(Text::new(SINGLE));
        }
        self.flags.store(u32::from(agreed.flags), Ordering::Relaxed);
        let mut state = self.state.lock();
        let again = matches!(state.first, Some(Ok(())));
        if before == 0 {
            let away = now.saturating_sub(state.since_ns) / ns(1000);
            state.since_ns = now;
            state.failed = false;
            state.attempts.connected();
            self.fails.store(false, Ordering::SeqCst);
            if again {
                state.reconnects = state.reconnects.saturating_add(1);
                self.tell(&mut state, format_args!("back after {away} s"));
            } else {
                self.tell(&mut state, format_args!("connected"));
            }
        }
        // What was agreed on first holds for the device; a larger export is found by `resize_check`.
        if state.agreed.is_none() {
            state.agreed = Some(*agreed);
        }
        state.first = Some(Ok(()));
        drop(state);
        self.changed.notify_all();
        // The others have something to do now.
        self.connections.iter().for_each(|connection| connection.ring());
        Ok(())
    }

    /// A connection has ended, after so many nanoseconds, or an attempt has failed.
    pub(in crate::nbd) fn lost(&self, index: usize, lost: &Lost, lived_ns: Option<u64>, now: u64) {
        let before = self.live.fetch_and(!(1 << index), Ordering::SeqCst);
        let last = before == 1 << index;
        let alone = before & !(1 << index) == 0;
        let why = lost.why();
        let mut state = self.state.lock();
        state.last_error = why;
        if matches!(lost, Lost::Protocol(_)) {
            state.protocol_errors = state.protocol_errors.saturating_add(1);
        }
        match lived_ns {
            Some(lived_ns) if lived_ns >= STABLE_NS => state.attempts.ended(index, alone, now),
            _ => state.attempts.fail(index, alone, now, &self.terms),
        }
        if last {
            state.since_ns = now;
        }
        let what = match (lost, lived_ns) {
            (Lost::Protocol(_), Some(_)) => "protocol error",
            (_, Some(_)) => "lost",
            (_, None) => "retrying",
        };
        self.tell(&mut state, format_args!("{what}: {why}"));
        if state.first.is_none() {
            state.first = Some(Err(why));
        }
        drop(state);
        self.changed.notify_all();
        // Other connections take the requests at once, and the first one is made anew.
        self.connections.iter().for_each(|connection| connection.ring());
    }

    /// What an export is like that was looked at.
    pub(in crate::nbd) fn probed(&self, outcome: core::result::Result<u64, Text>) {
        let mut state = self.state.lock();
        state.probing = false;
        state.probed = Some(outcome);
        drop(state);
        self.changed.notify_all();
    }

    /// Declares it failed when it is time for that, and then ends what waits if it must not wait.
    pub(super) fn tick(&self, now: u64) -> Option<u64> {
        if self.live.load(Ordering::SeqCst) != 0 {
            return None;
        }
        let mut state = self.state.lock();
        self.forgive(&mut state);
        // Time in which no attempt may be made does not count, nor a pause that `resume` has yet to take out.
        let counts = self.resumed.load(Ordering::SeqCst) && !suspended();
        let at = fails_ns(state.since_ns, &self.terms).filter(|_| counts);
        if counts && !state.failed {
            if state.attempts.alone.is_exhausted(&self.terms) {
                self.fail(&mut state, Text::new("all attempts to connect have failed"));
            } else if at.is_some_and(|at| now >= at) {
                self.fail(&mut state, Text::new("there was no connection in time"));
            }
        }
        let failed = state.failed;
        drop(state);
        if self.fails.load(Ordering::SeqCst) {
            let mut queue = self.empty_queue();
            while let Some(flight) = queue.pop_front() {
                flight.finish(status::TRANSPORT);
            }
        }
        at.filter(|_| !failed)
    }

    fn fail(&self, state: &mut State, why: Text) {
        if core::mem::replace(&mut state.failed, true) {
            return;
        }
        let policy = self.terms.on_failure;
        self.fails.store(policy == OnFailure::Error, Ordering::SeqCst);
        self.tell(state, format_args!("failed ({}): {why}", policy.name()));
        self.ring_first();
    }

    fn tell(&self, state: &mut State, what: core::fmt::Arguments<'_>) {
        if let Some(kept_back) = state.limit.allow(now_ns()) {
            if kept_back != 0 {
                tell(&line(format_args!("{}: {kept_back} messages were left out", self.name)));
            }
            tell(&line(format_args!("{}: {what}", self.name)));
        }
    }
}
