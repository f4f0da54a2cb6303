// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Whether a disk may be written to.

use std::sync::atomic::{AtomicBool, Ordering};

use atom_abi::control::payload_state;
use atom_abi::lifecycle::Place;

use crate::control::Control;
use crate::live;

/// Set by the scripts of an initramfs, whose folders nobody sees again.
const INITRAMFS: &str = "ATOM_INITRAMFS";

/// True when the disk with the journal may be written to: I/O flows, and the disk is there.
pub(super) fn flows() -> bool {
    // Where I/O is held, not even the table of file systems may be looked at.
    io_flows() && disk_is_there()
}

/// Whether the disk with the journal is there: not in an initramfs, and not early in a boot where it is mounted later. What is
/// written below its mount point is not seen again.
pub(crate) fn disk_is_there() -> bool {
    // It stays. The table of file systems is read once, since later its own disk may not answer.
    static IS_THERE: AtomicBool = AtomicBool::new(false);
    if !IS_THERE.load(Ordering::Relaxed) {
        let is_there = std::env::var_os(INITRAMFS).is_none() && !live::is_to_be_mounted();
        IS_THERE.store(is_there, Ordering::Relaxed);
    }
    IS_THERE.load(Ordering::Relaxed)
}

/// True when nothing on an Atom device waits or fails: a payload serves and is well, or there are no devices. Reads no disk.
pub(super) fn io_flows() -> bool {
    // Without Atom there are no devices of it.
    let Ok(control) = Control::open() else {
        return true;
    };
    let Ok(status) = control.status() else {
        return false;
    };
    if status.place == Place::Vacant.code() {
        return true;
    }
    let dead = control.payloads().map(|payloads| {
        payloads.iter().any(|one| one.id == status.live && one.state == payload_state::DEAD)
    });
    status.place == Place::Live.code() && dead.is_ok_and(|dead| !dead)
}
