// SPDX-License-Identifier: GPL-2.0

//! The barrier: the gates of all devices together, and the drain.
//!
//! Callers have the turn, so devices neither come nor go. Nothing here allocates, and nothing sleeps
//! with `STATE` held.

use crate::abi::control::{Blocker, Stage};
use crate::slot::Seat;
use crate::state::State;
use crate::sys::{self, Owed, Woken, STATE};

/// How often the count of what is outstanding is made anew for those who look at it.
const COUNT_NS: u64 = 50_000_000;

/// How long a dispatch that sleeps is looked after closely.
const SHORT_NS: u64 = 5_000_000;

/// Closes every gate. When it returns no dispatch will begin, and none runs but those that [`settle`] waits
/// for. Sleeps.
///
/// All devices share one grace period, an expedited one: a dispatch looks at its slot on the RCU read side. Those of
/// the dispatches that may sleep, one for each such device, begin before it and pass beside it.
pub(crate) fn close() {
    STATE.lock().devices.iter().for_each(|device| device.disk.close_gate());
    sys::grace_period();
}

/// Waits until no dispatch runs any more, also none that sleeps. The gates are closed. Sleeps.
///
/// Ends at `until_ns`, by the monotonic clock, or when the calling task is killed. Returns the number of devices
/// of which one still runs, and false when the task was killed.
pub(crate) fn settle(until_ns: u64) -> (u32, bool) {
    let start = sys::now_ns();
    let mut alive = true;
    loop {
        let devices = |state: &State| {
            state.devices.iter().filter(|device| !device.disk.is_settled()).count() as u32
        };
        let running = devices(&STATE.lock());
        let now = sys::now_ns();
        if running == 0 || now >= until_ns || !alive {
            return (running, alive);
        }
        match now.saturating_sub(start) < SHORT_NS {
            true => sys::instant(),
            false => alive = sys::moment(),
        }
    }
}

/// Opens every gate; what was held is dispatched to whoever is in the slot.
pub(crate) fn open() {
    STATE.lock().devices.iter().for_each(|device| device.disk.open_gate());
}

/// Gives the requests that are still owed as much more time as the gates were closed.
pub(crate) fn refresh_timers(paused_ns: u64) {
    STATE.lock().devices.iter().for_each(|device| device.disk.refresh_timers(paused_ns));
}

/// Puts the payload of `seat` behind every device, each with the cookie it was bound with. The gates
/// are closed.
pub(crate) fn fill_slots(seat: Seat) {
    for device in STATE.lock().devices.iter_mut() {
        if let Some(cookie) = device.bound.take() {
            device.disk.slot().fill(seat, cookie);
        }
    }
}

/// Empties every slot: what is dispatched after the gates open fails. The gates are closed.
pub(crate) fn empty_slots() {
    STATE.lock().devices.iter().for_each(|device| device.disk.slot().clear());
}

/// What the payload owes of all devices, by stages.
pub(crate) fn owed() -> Owed {
    let mut all = Owed::default();
    STATE.lock().devices.iter().for_each(|device| all.join(&device.disk.owed()));
    all
}

/// Waits until the payload owes nothing of a stage. The gates are closed, so what it owes can only become
/// less, and a device that owes nothing is never looked at again. Sleeps.
///
/// Ends at `until`, by the monotonic clock, or when the calling task is killed: then something is left.
/// False when it was killed.
pub(crate) fn drain(stage: usize, began: u32, until_ns: u64, result: &mut Stage) -> bool {
    let mut waiter = sys::DrainWaiter::new();
    let start = sys::now_ns();
    let mut drained = 0;
    let mut counted_ns = start;
    let mut alive = true;
    *result = Stage { began, left: began, ns: 0 };
    STATE.lock().stage = (stage as u32 + 1, began);
    loop {
        let owes = STATE.lock().devices.get(drained).map(|device| device.disk.owes(stage));
        let now = sys::now_ns();
        match owes {
            None => {
                result.left = 0;
                break;
            }
            Some(false) => {
                drained += 1;
                continue;
            }
            Some(true) if now >= until_ns || !alive => {
                // The last of them may have ended since; then the stage is done.
                result.left = owed().of(stage);
                break;
            }
            Some(true) => {}
        }
        if now.saturating_sub(counted_ns) >= COUNT_NS {
            counted_ns = now;
            let left = owed().of(stage);
            STATE.lock().stage.1 = left;
        }
        alive = waiter.wait(until_ns.saturating_sub(now).min(COUNT_NS)) != Woken::Killed;
    }
    STATE.lock().stage = (0, 0);
    result.ns = sys::now_ns().saturating_sub(start);
    alive
}

/// Names the first requests that are owed. Returns how many were named.
pub(crate) fn name_owed(blockers: &mut [Blocker]) -> usize {
    let state = STATE.lock();
    state.devices.iter().fold(0, |named: usize, device| {
        let rest = blockers.get_mut(named..).unwrap_or(&mut []);
        named.saturating_add(device.disk.name_owed(rest))
    })
}

/// What the live payload knows a device by.
pub(crate) fn cookie_of(id: u32) -> Option<u64> {
    let mut state = STATE.lock();
    state.device_mut(id).and_then(|device| device.disk.slot().read()).map(|seated| seated.cookie)
}

/// Takes back whatever is owed. The gates are closed. Returns how many requests it was.
pub(crate) fn take_back(at_deadline: u32) -> u32 {
    STATE
        .lock()
        .devices
        .iter()
        .fold(0, |taken: u32, device| taken.saturating_add(device.disk.take_back(at_deadline)))
}
