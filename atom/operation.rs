// SPDX-License-Identifier: GPL-2.0

//! Calling an operation of a payload, in a way that survives its never returning.

use kernel::prelude::*;

use crate::abi::version::{reason, Refusal};
use crate::state::Operation;
use crate::sys::{Payload, STATE};
use crate::turn::Turn;

/// Why a handoff does not go on.
pub(crate) enum Stop {
    /// It was refused or is to be undone, for this reason.
    Refused(Refusal),
    /// The task has lost its turn: somebody else goes back, and nothing may be touched here.
    Lost,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What became of a handoff or a part of it.
pub(crate) type Outcome<T = ()> = Result<T, Stop>;

/// The refusal of a payload whose operation returned an errno.
pub(crate) fn failed(errno: i32) -> Refusal {
    Refusal::new(reason::OPERATION, 0, errno.unsigned_abs().into())
}

/// Calls an operation of the payload `id`, on whose module Atom has a reference. Sleeps; `STATE` is not held.
pub(crate) fn run<R>(
    turn: &Turn,
    id: u32,
    operation: Operation,
    call: impl FnOnce(&Payload) -> R,
) -> Outcome<R> {
    let payload = {
        let mut state = STATE.lock();
        if !turn.is_mine(&state) {
            return Err(Stop::Lost);
        }
        let missing = Refusal::new(reason::NO_PAYLOAD, 0, id.into());
        let entry = state.payload(id).filter(|entry| entry.pin.is_some()).ok_or(missing)?;
        if entry.dead {
            return Err(Refusal::new(reason::DEAD, 0, id.into()).into());
        }
        let payload = entry.payload.clone();
        state.running = Some((operation, id));
        payload
    };
    let result = call(&payload);
    let mut state = STATE.lock();
    if turn.is_mine(&state) {
        state.running = None;
        return Ok(result);
    }
    drop(state);
    came_back(id, operation);
    Err(Stop::Lost)
}

type Inverse = fn(&Payload) -> i32;

/// An operation has returned after its task had lost the turn. The payload takes back what it did, and is called
/// again; but not one that may have let go of requests which nobody has taken from it, nor one that was
/// replaced meanwhile without being asked.
fn came_back(id: u32, operation: Operation) {
    let turn = Turn::take_always();
    let (live, parked) = {
        let mut state = STATE.lock();
        let (live, soak) = (state.live == id, state.soak);
        let Some(entry) = state.payload_mut(id).filter(|entry| !entry.forsaken) else {
            return;
        };
        if operation == Operation::Revoke {
            return;
        }
        entry.dead = false;
        (live, soak.is_some_and(|soak| soak.parked == id))
    };
    // As after a failure, but it may as well have succeeded: the inverses are also for that.
    let undo: &[(Operation, Inverse)] = match operation {
        Operation::Freeze => &[(Operation::Thaw, Payload::thaw)],
        Operation::Adopt => {
            &[(Operation::Abandon, Payload::abandon), (Operation::Unprepare, Payload::unprepare)]
        }
        Operation::Prepare | Operation::AdoptAhead | Operation::Abandon if !live && !parked => {
            &[(Operation::Unprepare, Payload::unprepare)]
        }
        _ => &[],
    };
    for (operation, call) in undo {
        if run(&turn, id, *operation, call).is_err() {
            return;
        }
    }
    // It may have been told to suspend, and nobody could tell it to resume.
    if live && run(&turn, id, Operation::Resume, |payload| payload.resume(0, 0)).is_err() {
        return;
    }
    pr_warn!("payload {} has come back from an operation that took too long\n", id);
    STATE.lock().unpin(id);
}
