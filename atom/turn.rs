// SPDX-License-Identifier: GPL-2.0

//! The turn: one task at a time hands over, commands, or goes back.
//!
//! It is a lock that survives its owner. A payload's operation runs in the task that has the turn; when the
//! operation kills that task, or keeps it beyond the deadline of a closed gate, another task gets the
//! turn, marks the payload as dead and goes back for it. A task that has lost its turn finds that out
//! when the operation returns after all, and touches nothing any more.

use kernel::prelude::*;

use crate::back;
use crate::state::{Operation, State};
use crate::sys::{self, Task, Woken, STATE, TURN, WATCH};

/// For how long one who waits sleeps before he looks whether the holder is still alive.
const LOOK_NS: u64 = 100_000_000;

/// How long an operation of the live payload is waited for by one who does not need the payload.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Who has the turn.
pub(crate) struct Holder {
    number: u64,
    task: Task,
}

impl Holder {
    /// Tells this turn from every other one.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// True when the calling task has it.
    pub(crate) fn is_current(&self) -> bool {
        self.task.is_current()
    }

    /// True when the task that has it has died.
    pub(crate) fn is_gone(&self) -> bool {
        self.task.is_gone()
    }
}

/// What somebody had when the turn was taken from him.
pub(crate) struct Lost {
    /// He is alive, in an operation that takes too long.
    pub(crate) seized: bool,
    /// The operation that he was in, and whose.
    pub(crate) culprit: Option<(Operation, u32)>,
}

/// The right to hand over, as long as nobody took it away.
pub(crate) struct Turn {
    number: u64,
}

impl Turn {
    /// Waits for it. Sleeps. `EINTR` when the calling task is being killed.
    pub(crate) fn take() -> Result<Self> {
        loop {
            if let Some(turn) = Self::try_take(|_, _| false) {
                return Ok(turn);
            }
            if TURN.wait(LOOK_NS) == Woken::Killed {
                return Err(EINTR);
            }
        }
    }

    /// The same, and the wait cannot be killed.
    pub(crate) fn take_always() -> Self {
        loop {
            if let Some(turn) = Self::try_take(|_, _| false) {
                return turn;
            }
            sys::moments();
        }
    }

    /// The same, by one who will not ask the live payload for anything, or leaves it: when the holder has been in an
    /// operation of the live payload for all of a second, it is taken away.
    pub(crate) fn take_from_live() -> Result<Self> {
        let mut since = (0, sys::now_ns());
        loop {
            let now = sys::now_ns();
            let late = now.saturating_sub(since.1) > PATIENCE_NS;
            let taken = Self::try_take(|state, holder| {
                if holder.number != since.0 {
                    since = (holder.number, now);
                    return false;
                }
                late && state.running.is_some_and(|(_, id)| id == state.live)
            });
            if let Some(turn) = taken {
                return Ok(turn);
            }
            if TURN.wait(LOOK_NS) == Woken::Killed {
                return Err(EINTR);
            }
        }
    }

    /// Takes it away from the holder with that number, who has died or whose operation takes too long. Sleeps.
    pub(crate) fn seize(from: u64) -> Option<Self> {
        Self::try_take(|state, holder| {
            // Only from one who is in an operation: when it returns he finds out before he touches anything.
            let late = state.running.is_some() && sys::now_ns() > state.progress.until_ns;
            holder.number == from && late
        })
    }

    /// `seizes` says whether the turn is to be taken from a holder who is alive and in an operation.
    fn try_take(mut seizes: impl FnMut(&State, &Holder) -> bool) -> Option<Self> {
        let task = Task::current();
        let (turn, lost, _before) = {
            let mut state = STATE.lock();
            let seized = match &state.holder {
                None => None,
                Some(holder) if holder.is_gone() => Some(false),
                Some(holder) if seizes(&state, holder) => Some(true),
                _ => return None,
            };
            state.turns = state.turns.saturating_add(1);
            let number = state.turns;
            let before = state.holder.replace(Holder { number, task });
            // Whose operation it was goes with the turn: to the watch, an operation that is too late and stands here for a
            // moment longer would be that of the new holder, and it would go back for him as well.
            let lost = seized.map(|seized| Lost { seized, culprit: state.running.take() });
            (Self { number }, lost, before)
        };
        // It looks after whoever has the turn.
        WATCH.wake();
        if let Some(lost) = lost {
            back::inherit(&turn, lost);
        }
        Some(turn)
    }

    /// False when somebody took it away.
    pub(crate) fn is_mine(&self, state: &State) -> bool {
        state.holder.as_ref().is_some_and(|holder| holder.number == self.number)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = STATE.lock();
        if self.is_mine(&state) {
            state.holder = None;
            drop(state);
            TURN.clear();
            TURN.call();
        }
    }
}
