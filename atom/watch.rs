// SPDX-License-Identifier: GPL-2.0

//! What Atom does when nobody asks: what must work even when the tool has died.
//!
//! The watch is a task of its own that looks and decides, and never waits for anything else. What it decides
//! on is carried out by another task, because that may take long or go wrong.

use core::mem::replace;

use kernel::prelude::*;

use crate::abi::control::{cause, hold, kind, outcome, phase, policy, Report};
use crate::abi::lifecycle::{Event, Place, Step};
use crate::abi::text::Text;
use crate::abi::version::{reason, Refusal};
use crate::back::advance;
use crate::barrier;
use crate::handoff::{self, Plan};
use crate::points;
use crate::state::State;
use crate::sys::{self, NoIo, STATE, WATCH};
use crate::turn::{Holder, Turn};
use crate::watch_rules::{decide, HeldView, SoakView, TurnView, View, TICK_NS};

pub(crate) use crate::watch_rules::Deed;

/// For each operation of a fallback payload that adopts.
const ADOPT_NS: u64 = 10_000_000_000;
/// Between two attempts to switch back.
const AGAIN_NS: u64 = 1_000_000_000;

/// Looks, has done what is to be done, and says in how many nanoseconds to look again. Sleeps.
pub(crate) fn look() -> u64 {
    let stalls = STATE.lock().soak.is_some_and(|soak| soak.stall_ns != 0);
    let oldest_ns = if stalls { barrier::owed().oldest_ns } else { 0 };
    let (deed, wait_ns) = {
        let mut state = STATE.lock();
        let (deed, wait_ns) = decide(&view(&state, oldest_ns));
        let holder = state.holder.as_ref().map_or(0, Holder::number);
        let deed = match deed {
            // Once for each holder; whoever hangs in going back is gone back for himself.
            Some(Deed::GoBack) if replace(&mut state.back_for, holder) == holder => None,
            Some(Deed::GoBack) => deed,
            // The others one at a time.
            Some(_) if replace(&mut state.doing, true) => None,
            deed => deed,
        };
        (deed, wait_ns)
    };
    let spawn = |deed| points::WATCH_SPAWN.meet().and_then(|()| sys::spawn(deed));
    if let Some(Err(error)) = deed.map(spawn) {
        pr_err!("the watch could not act: {}\n", error.to_errno());
        let mut state = STATE.lock();
        (state.doing, state.back_for) = (false, 0);
        return TICK_NS;
    }
    wait_ns
}

/// Whether it is still what is to be done, for one who has the turn.
fn still(deed: Deed) -> bool {
    let oldest_ns = barrier::owed().oldest_ns;
    let view = View { turn: None, ..view(&STATE.lock(), oldest_ns) };
    decide(&view).0 == Some(deed)
}

fn view(state: &State, oldest_ns: u64) -> View {
    let settings = &state.settings;
    View {
        now_ns: sys::now_ns(),
        place: state.lifecycle.place,
        turn: state.holder.as_ref().map(|holder| TurnView {
            gone: holder.is_gone(),
            in_operation: state.running.is_some(),
            until_ns: state.progress.until_ns,
        }),
        held: (state.held_since_ns != 0).then_some(HeldView {
            since_ns: state.held_since_ns,
            policy: settings.hold,
            deadline_ns: settings.hold_deadline_ns,
            acted: state.hold_acted,
        }),
        soak: state.soak.map(|soak| SoakView {
            until_ns: soak.until_ns,
            stall_ns: soak.stall_ns,
            oldest_ns,
            not_before_ns: soak.not_before_ns,
            dead: state.is_dead(state.live),
        }),
    }
}

/// Carries out what the watch has decided, if it is still to be done. Sleeps.
pub(crate) fn carry_out(deed: Deed) {
    match deed {
        Deed::GoBack => return go_back(),
        Deed::Expire => expire(),
        Deed::Fallback => fall_back(),
        Deed::SwitchBack(cause) => switch_back(cause),
    }
    STATE.lock().doing = false;
    WATCH.wake();
}

fn go_back() {
    let number = STATE.lock().holder.as_ref().map_or(0, Holder::number);
    // Inheriting is all there is to do; the turn is given back at once.
    let turn = Turn::seize(number);
    if turn.is_none() {
        // It has come back just in time, and may hang in the next operation.
        STATE.lock().back_for = 0;
        WATCH.wake();
    }
    drop(turn);
}

// On the stack of a task a report takes as much as the decoder of a volume, and a payload that adopts needs that.
#[inline(never)]
fn expire() {
    let Ok(_turn) = Turn::take() else {
        return;
    };
    if !still(Deed::Expire) {
        return;
    }
    let mut report = {
        let mut state = STATE.lock();
        if state.lifecycle.place != Place::Held || state.settings.hold != hold::FAIL {
            return;
        }
        state.hold_acted = true;
        let held_ns = sys::now_ns().saturating_sub(state.held_since_ns);
        let mut report = Report {
            kind: kind::EXPIRE,
            cause: cause::NOBODY,
            outcome: outcome::DONE,
            refusal: Refusal::new(reason::NOBODY, 0, 0),
            started_ns: sys::now_ns(),
            pause_ns: held_ns,
            devices: state.devices.len() as u32,
            opens: state.opens(),
            ..Report::EMPTY
        };
        if let Some(held) = report.phases_ns.get_mut(phase::HELD) {
            *held = held_ns;
        }
        report
    };
    if advance(Event::Done(Step::Expire)).is_ok() {
        // Nobody is in the slots: what comes fails.
        barrier::open();
        STATE.lock().keep(&mut report);
        pr_err!("nobody adopted in time: I/O fails until somebody does\n");
        handoff::announce(&report);
    }
}

fn fall_back() {
    let name = {
        let mut state = STATE.lock();
        state.hold_acted = true;
        state.settings.fallback
    };
    let adopted = match find(&name) {
        Some(target) => adopt(target),
        None => {
            let loaded = {
                let _no_io = NoIo::enter();
                sys::load_module(&name)
            };
            match find(&name) {
                Some(target) => adopt(target),
                None => Err(loaded.err().unwrap_or(ENOENT)),
            }
        }
    };
    if let Err(error) = adopted {
        pr_err!("the fallback payload {} does not serve: {}\n", name, error.to_errno());
        STATE.lock().fallback_error = error.to_errno();
        sys::announce(&[fmt!("ATOM_EVENT=fallback"), fmt!("ATOM_OUTCOME=undone")]);
    }
}

/// The registered payload whose module has that name.
fn find(name: &Text) -> Option<u32> {
    let state = STATE.lock();
    let mut entries = state.payloads.iter();
    let same = |other: Text| {
        // The kernel has underscores where people may write hyphens.
        let pairs = other.to_bytes().into_iter().zip(name.to_bytes());
        pairs.into_iter().all(|(one, other)| one == other || (one == b'_' && other == b'-'))
    };
    entries.find(|entry| same(entry.payload.module_name())).map(|entry| entry.id)
}

fn adopt(target: u32) -> Result {
    let turn = Turn::take()?;
    if STATE.lock().lifecycle.place != Place::Held {
        // Somebody else has adopted meanwhile.
        return Ok(());
    }
    let plan = Plan {
        kind: kind::ADOPT,
        target,
        schema: 0,
        policy: policy::ABORT,
        deadline_ns: ADOPT_NS,
        cause: cause::NOBODY,
    };
    match handoff::carry_out(&turn, plan)?.outcome {
        outcome::DONE => Ok(()),
        _ => Err(EIO),
    }
}

fn switch_back(cause: u32) {
    let Ok(turn) = Turn::take_from_live() else {
        return;
    };
    if !still(Deed::SwitchBack(cause)) {
        return;
    }
    let plan = {
        let state = STATE.lock();
        let Some(soak) = state.soak else {
            return;
        };
        Plan {
            kind: kind::SWITCH,
            target: soak.parked,
            schema: 0,
            policy: soak.back_policy,
            deadline_ns: soak.back_deadline_ns,
            cause,
        }
    };
    let done = handoff::carry_out(&turn, plan).is_ok_and(|report| report.outcome == outcome::DONE);
    let mut state = STATE.lock();
    if let Some(soak) = state.soak.as_mut().filter(|_| !done) {
        soak.not_before_ns = sys::now_ns().saturating_add(AGAIN_NS);
    }
    // Before the turn, whose end takes it.
    drop(state);
}
