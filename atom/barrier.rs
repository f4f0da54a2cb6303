// SPDX-License-Identifier: GPL-2.0

//! The barrier: the gates of all devices together, and the drain.
//!
//! Callers hold `CONTROL`, so devices neither come nor go. Nothing here allocates, and nothing sleeps
//! with `STATE` held.

use crate::abi::control::Blocker;
use crate::sys::{self, Slot, STATE};

/// Closes every gate. When it returns no dispatch runs or will begin. Sleeps.
///
/// All devices share one grace period, an expedited one: a dispatch runs on the RCU read side.
pub(crate) fn close() {
    STATE.lock().devices.iter().for_each(|device| device.disk.close_gate());
    sys::grace_period();
}

/// Opens every gate; what was held is dispatched to whoever is in the slot.
pub(crate) fn open() {
    STATE.lock().devices.iter().for_each(|device| device.disk.open_gate());
}

/// Puts the payload of `slot` behind every device, each with the cookie it was bound with. The gates
/// are closed.
pub(crate) fn fill_slots(slot: Slot) {
    for device in STATE.lock().devices.iter_mut() {
        if let Some(cookie) = device.bound.take() {
            device.disk.fill_slot(slot, cookie);
        }
    }
}

/// Empties every slot: what is dispatched after the gates open fails. The gates are closed.
pub(crate) fn empty_slots() {
    STATE.lock().devices.iter().for_each(|device| device.disk.empty_slot());
}

/// Waits until the payload owes no request of any device. The gates are closed, so what it owes can
/// only become less, and a device that owes nothing is never looked at again. Sleeps.
///
/// At `until`, by the monotonic clock, or when the calling task is killed, returns how many requests
/// are owed, and names the first of them in `blockers`.
pub(crate) fn drain(until_ns: u64, blockers: &mut [Blocker]) -> u32 {
    let mut waiter = sys::DrainWaiter::new();
    let mut drained = 0;
    loop {
        let owes = STATE.lock().devices.get(drained).map(|device| device.disk.owed(0, 1, &mut []));
        match owes {
            None => return 0,
            Some(0) => drained += 1,
            Some(_) if waiter.wait_until(until_ns) => {}
            Some(_) => break,
        }
    }
    // The last of them may have ended since; then none is counted and the drain has succeeded.
    let state = STATE.lock();
    state.devices.iter().fold(0, |count, device| device.disk.owed(count, u32::MAX, blockers))
}
