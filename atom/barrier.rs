// SPDX-License-Identifier: GPL-2.0

//! The barrier: the gates of all devices together, and the drain.
//!
//! Callers hold `CONTROL`, so devices neither come nor go. Nothing here allocates.

use kernel::sync::Arc;

use crate::abi::control::Blocker;
use crate::sys::{self, Disk, Slot, STATE};

/// Calls `each` for every device, without holding `STATE` meanwhile.
fn for_each_disk(mut each: impl FnMut(&Disk)) {
    let mut index = 0;
    loop {
        // The guard is gone at the end of this statement.
        let next: Option<Arc<Disk>> = STATE.lock().disk(index);
        let Some(disk) = next else { return };
        each(&disk);
        index += 1;
    }
}

/// Closes every gate. When it returns no dispatch runs or will begin. May sleep.
///
/// All devices share one grace period, an expedited one: a dispatch runs on the RCU read side.
pub(crate) fn close() {
    for_each_disk(|disk| disk.close_gate());
    sys::grace_period();
}

/// Opens every gate; what was held is dispatched to whoever is in the slot.
pub(crate) fn open() {
    for_each_disk(|disk| disk.open_gate());
}

/// Puts the payload of `slot` behind every device, each with the cookie it was bound with. The gates
/// are closed.
pub(crate) fn fill_slots(slot: Slot) {
    let mut state = STATE.lock();
    for device in state.devices.iter_mut() {
        if let Some(cookie) = device.bound.take() {
            device.disk.fill_slot(slot, cookie);
        }
    }
}

/// Empties every slot: what is dispatched after the gates open fails. The gates are closed.
pub(crate) fn empty_slots() {
    for_each_disk(|disk| disk.empty_slot());
}

/// Waits until the payload owes no request of any device. The gates are closed, so what it owes can
/// only become less, and a device that owes nothing is never looked at again. Sleeps.
///
/// On the deadline, or when the calling task is killed, returns how many requests are owed, and names
/// the first of them in `blockers`.
pub(crate) fn drain(deadline_ns: u64, blockers: &mut [Blocker]) -> u32 {
    let until = sys::now_ns().saturating_add(deadline_ns);
    let mut waiter = sys::DrainWaiter::new();
    let mut index = 0;
    loop {
        let next = STATE.lock().disk(index);
        let Some(disk) = next else { return 0 };
        if !disk.owes_any() {
            index += 1;
        } else if !waiter.wait_until(until) {
            break;
        }
    }
    // The last of them may have ended since; then none is counted and the drain has succeeded.
    let mut owed = 0;
    for_each_disk(|disk| disk.name_owed(&mut owed, blockers));
    owed
}
