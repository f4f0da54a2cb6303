// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Whether a disk may be written to.

use atom_abi::control::payload_state;
use atom_abi::lifecycle::Place;

use crate::control::Control;

/// True when nothing on an Atom device waits or fails: a payload serves and is well, or there are no devices. Reads no disk.
pub(super) fn flows() -> bool {
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
