// SPDX-License-Identifier: GPL-2.0

//! The way back: what the lifecycle says is to be undone, by whoever has the turn.

use core::mem::replace;

use kernel::prelude::*;

use crate::abi::control::{cause, outcome, Report};
use crate::abi::lifecycle::{self, Event, Inverse, Place};
use crate::abi::version::{reason, Refusal};
use crate::barrier;
use crate::operation::{failed, run, Outcome, Stop};
use crate::points;
use crate::state::{Operation, Progress};
use crate::sys::{self, NoIo, Payload, STATE};
use crate::turn::{Lost, Turn};

/// How long the inverses may take while the gates are closed.
const UNDO_NS: u64 = 1_000_000_000;

/// Tells the lifecycle what happened; what it wants undone for that stands in the state.
pub(crate) fn advance(event: Event) -> Result<(), Refusal> {
    let mut state = STATE.lock();
    let transition = lifecycle::advance(state.lifecycle, event)
        .map_err(|lifecycle::Illegal| Refusal::new(reason::STATE, 0, 0))?;
    state.lifecycle = transition.to;
    state.undo = transition.undo;
    Ok(())
}

/// Undoes what is to be undone, in order. Returns the sum of the errors of inverses. Sleeps.
pub(crate) fn undo(turn: &Turn) -> Outcome<u32> {
    let mut errors: u32 = 0;
    {
        let mut state = STATE.lock();
        if state.undo.is_empty() && state.candidate == 0 {
            return Ok(0);
        }
        let Progress { closed_ns, paused_ns, .. } = state.progress;
        let closed = closed_ns != 0 && paused_ns == 0 || state.lifecycle.place == Place::Held;
        state.progress.until_ns =
            if closed { sys::now_ns().saturating_add(UNDO_NS) } else { u64::MAX };
    }
    loop {
        let (inverse, live, candidate) = {
            let mut state = STATE.lock();
            let Some((first, rest)) = state.undo.split_first() else {
                break;
            };
            // Taken off before it is done: whoever inherits goes on with the next one.
            state.undo = rest;
            (*first, state.live, state.candidate)
        };
        let error = match inverse {
            Inverse::Thaw => {
                points::UNDO_THAW.slow_down();
                inverse_of(turn, live, Operation::Thaw, Payload::thaw)?
            }
            Inverse::Reopen => {
                points::UNDO_REOPEN.slow_down();
                reopen();
                0
            }
            Inverse::Resume => resume(turn, live, 0)?,
            Inverse::Unprepare => {
                points::UNDO_UNPREPARE.slow_down();
                inverse_of(turn, candidate, Operation::Unprepare, Payload::unprepare)?
            }
        };
        errors = errors.saturating_add(error);
    }
    let mut state = STATE.lock();
    state.reset_bindings();
    let candidate = replace(&mut state.candidate, 0);
    state.unpin(candidate);
    Ok(errors)
}

/// Calls an inverse, which must succeed; nothing is called of a payload that is dead.
pub(crate) fn inverse_of(
    turn: &Turn,
    id: u32,
    operation: Operation,
    call: impl FnOnce(&Payload) -> i32,
) -> Outcome<u32> {
    match run(turn, id, operation, call) {
        Ok(error) => Ok(error.unsigned_abs()),
        Err(Stop::Refused(_)) => Ok(0),
        Err(Stop::Lost) => Err(Stop::Lost),
    }
}

/// Tells the payload that serves for how long the gates were closed.
pub(crate) fn resume(turn: &Turn, live: u32, unchanged: u32) -> Outcome<u32> {
    points::UNDO_RESUME.slow_down();
    let paused_ns = STATE.lock().progress.paused_ns;
    inverse_of(turn, live, Operation::Resume, |payload| payload.resume(unchanged, paused_ns))
}

/// Opens the gates, which ends the pause. Returns the time at which they were open.
pub(crate) fn reopen() -> u64 {
    let closed_ns = STATE.lock().progress.closed_ns;
    // Before they open, so that no request is given time for a pause that it has not been through.
    barrier::refresh_timers(sys::now_ns().saturating_sub(closed_ns));
    barrier::open();
    let now = sys::now_ns();
    let mut state = STATE.lock();
    state.progress.paused_ns = now.saturating_sub(closed_ns);
    // Nobody waits for what comes now.
    state.progress.until_ns = u64::MAX;
    now
}

/// The payload that was live before forgets. It stays for a soak, or its module may go; so may that of a payload
/// that was parked for its sake. Objects that nobody claimed are released, if somebody adopted. Returns the sum of
/// the errors. Sleeps.
pub(crate) fn let_go(turn: &Turn) -> Outcome<u32> {
    points::RELEASE_OLD.slow_down();
    let old = STATE.lock().releasing;
    let errors = inverse_of(turn, old, Operation::Abandon, Payload::abandon)?;
    {
        let mut state = STATE.lock();
        state.releasing = 0;
        state.unpin(old);
        let parked_before = replace(&mut state.parked_before, 0);
        state.unpin(parked_before);
        if replace(&mut state.finishing, false) && state.live == 0 {
            return Ok(errors);
        }
    }
    loop {
        let unclaimed = {
            let mut state = STATE.lock();
            let at = state.preserved.iter().position(|entry| !entry.claimed);
            at.and_then(|at| state.preserved.remove(at).ok())
        };
        // A large store takes long to free; that happens behind the lock.
        if unclaimed.is_none() {
            return Ok(errors);
        }
    }
}

/// Goes back for a task that has died in an operation of a payload, or, when the turn was seized, has been
/// in it for too long. The payload is dead from here on. Sleeps.
pub(crate) fn inherit(turn: &Turn, lost: Lost) {
    let _no_io = NoIo::enter();
    points::UNDO_INHERIT.slow_down();
    let Lost { seized, culprit } = lost;
    let mut report = {
        let mut state = STATE.lock();
        let culprit = culprit.map_or(0, |(_, id)| id);
        if let Some(entry) = state.payload_mut(culprit) {
            entry.dead = true;
            entry.died = !seized && entry.clean;
        }
        // One that is irrevocable leads to whoever serves by now, from whoever is being let go of.
        let (from, to) = match state.finishing {
            true => (state.releasing, state.live),
            false => (state.live, state.candidate),
        };
        // If it was Atom's own task, it does nothing any more.
        state.doing = false;
        if state.undo.is_empty() && !state.lifecycle.at_rest() {
            let transition = lifecycle::give_up(state.lifecycle);
            (state.lifecycle, state.undo) = (transition.to, transition.undo);
        }
        Report {
            kind: state.progress.kind,
            outcome: if state.finishing { outcome::DONE } else { outcome::UNDONE },
            refusal: match seized {
                true => failed(ETIMEDOUT.to_errno()),
                false => Refusal::new(reason::DIED, 0, culprit.into()),
            },
            cause: cause::DIED,
            from: state.version(from),
            to: state.version(to),
            started_ns: state.progress.started_ns,
            devices: state.devices.len() as u32,
            opens: state.opens(),
            ..Report::EMPTY
        }
    };
    pr_err!("going back: an operation {}\n", if seized { "hangs" } else { "killed its task" });
    let Ok(errors) = undo(turn) else {
        return;
    };
    // What was irrevocable is brought to its end. Nothing else may be: objects that nobody has claimed are
    // those of the payload that serves.
    let finishing = STATE.lock().finishing;
    let Ok(more) = (if finishing { let_go(turn) } else { Ok(0) }) else {
        return;
    };
    let mut state = STATE.lock();
    report.inverse_errors = errors.saturating_add(more);
    report.pause_ns = state.progress.paused_ns;
    state.progress = Progress::NONE;
    state.stage = (0, 0);
    state.keep(&mut report);
    drop(state);
    crate::handoff::announce(&report);
}
