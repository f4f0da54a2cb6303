// SPDX-License-Identifier: GPL-2.0

//! What Atom does by itself, and when it looks again. Pure.

#![allow(unreachable_pub, reason = "the same file is part of a library on the host")]

use crate::abi::control::{cause, hold};
use crate::abi::lifecycle::Place;

/// How often is looked while something is under way that could go wrong.
pub const TICK_NS: u64 = 100_000_000;
/// How long is slept when nothing is.
pub const IDLE_NS: u64 = 3_600_000_000_000;

/// What there is to see.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Nanoseconds of the monotonic clock.
    pub now_ns: u64,
    /// Where the devices are.
    pub place: Place,
    /// Somebody has the turn.
    pub turn: Option<TurnView>,
    /// Nobody is adopted.
    pub held: Option<HeldView>,
    /// A payload soaks.
    pub soak: Option<SoakView>,
}

/// Who has the turn.
#[derive(Clone, Copy, Debug)]
pub struct TurnView {
    /// The task has died.
    pub gone: bool,
    /// It is in an operation of a payload.
    pub in_operation: bool,
    /// When that takes too long; never while the gates are open.
    pub until_ns: u64,
}

/// Atom holds.
#[derive(Clone, Copy, Debug)]
pub struct HeldView {
    /// Since when.
    pub since_ns: u64,
    /// The policy, one of [`hold`].
    pub policy: u32,
    /// After how long it acts.
    pub deadline_ns: u64,
    /// It has acted.
    pub acted: bool,
}

/// A payload soaks.
#[derive(Clone, Copy, Debug)]
pub struct SoakView {
    /// When a commit must have come.
    pub until_ns: u64,
    /// For how long a request may be owed, 0 for ever.
    pub stall_ns: u64,
    /// For how long the oldest one has been.
    pub oldest_ns: u64,
    /// An attempt to go back has failed; the next one comes then.
    pub not_before_ns: u64,
    /// It died in one of its operations.
    pub dead: bool,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Go back for a task that died, or is in an operation for too long.
    GoBack,
    /// Fail I/O instead of holding it.
    Expire,
    /// Load the fallback payload and have it adopt.
    Fallback,
    /// Switch back to the parked payload, for one of [`cause`].
    SwitchBack(u32),
}

impl Deed {
    /// The deed as a number, for a new task.
    pub fn to_number(self) -> usize {
        match self {
            Self::GoBack => 0,
            Self::Expire => 1,
            Self::Fallback => 2,
            Self::SwitchBack(cause) => 3usize.saturating_add(cause as usize),
        }
    }

    /// The deed of a number.
    pub fn from_number(number: usize) -> Self {
        match number {
            0 => Self::GoBack,
            1 => Self::Expire,
            2 => Self::Fallback,
            more => Self::SwitchBack(u32::try_from(more.saturating_sub(3)).unwrap_or(u32::MAX)),
        }
    }
}

/// What is to be done now, if anything, and in how many nanoseconds to look again if nothing happens before.
pub fn decide(view: &View) -> (Option<Deed>, u64) {
    if let Some(turn) = view.turn {
        let late = turn.in_operation && view.now_ns > turn.until_ns;
        return match turn.gone || late {
            true => (Some(Deed::GoBack), TICK_NS),
            false => (None, turn.until_ns.saturating_sub(view.now_ns).clamp(1_000_000, TICK_NS)),
        };
    }
    match (view.place, view.held, view.soak) {
        (Place::Held, Some(held), _) if held.policy != hold::HOLD && !held.acted => {
            let left = held.since_ns.saturating_add(held.deadline_ns).saturating_sub(view.now_ns);
            match (left, held.policy) {
                (0, hold::FAIL) => (Some(Deed::Expire), IDLE_NS),
                (0, _) => (Some(Deed::Fallback), IDLE_NS),
                (left, _) => (None, left),
            }
        }
        (Place::Live, _, Some(soak)) => {
            let late = soak.until_ns.saturating_sub(view.now_ns);
            let stalls = soak.stall_ns != 0 && soak.oldest_ns > soak.stall_ns;
            let wait = soak.not_before_ns.saturating_sub(view.now_ns);
            let cause = match (soak.dead, stalls, late) {
                (true, _, _) => cause::DIED,
                (_, true, _) => cause::STALL,
                (_, _, 0) => cause::NO_COMMIT,
                (_, _, late) if soak.stall_ns == 0 => return (None, late),
                (_, _, late) => return (None, late.min(TICK_NS)),
            };
            match wait {
                0 => (Some(Deed::SwitchBack(cause)), TICK_NS),
                wait => (None, wait),
            }
        }
        _ => (None, IDLE_NS),
    }
}
