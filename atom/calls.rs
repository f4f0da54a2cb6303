// SPDX-License-Identifier: GPL-2.0

//! What a payload may ask for: the bodies of the functions in `abi/src/calls.rs`.
//!
//! `sys.rs` turns the raw pointers of a call into what these take. Each takes `STATE` for table
//! look-ups only; creating and destroying a device happens with no lock of ours but `CONTROL`, which
//! the caller of the payload's operation holds.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::device::DeviceSpec;
use crate::abi::request::op;
use crate::abi::text::Text;
use crate::abi::version::{negotiate, reason, Offer, Refusal};
use crate::state::{Device, Registered, Running, Store};
use crate::sys::{self, Disk, NoIo, PageStore, Payload, STATE};

/// `atom_payload_register`: negotiates, and enters the payload into the list.
pub(crate) fn register(payload: Result<Payload, Refusal>, version: Text) -> Result<u32> {
    let admitted = payload.and_then(|payload| {
        negotiate(&Offer::ATOM, &payload.offer())?;
        payload.is_complete().then_some(payload).ok_or(Refusal::new(reason::TABLE, 1, 0))
    });
    // A handoff may be holding I/O and need `STATE` to let it go on.
    let _no_io = NoIo::enter();
    let mut state = STATE.lock();
    let twin = state.payloads.iter().any(|entry| entry.payload.version() == version);
    let admitted = admitted.and_then(|payload| match twin {
        false => Ok(payload),
        true => Err(Refusal::new(reason::DUPLICATE, 0, 0)),
    });
    match admitted {
        Ok(payload) => {
            let id = state.next_payload_id();
            state.payloads.push(Registered { id, payload, was_live: false }, GFP_KERNEL)?;
            drop(state);
            pr_info!("payload {} registered as {}\n", version, id);
            Ok(id)
        }
        Err(refusal) => {
            state.refused = version;
            state.refusal = refusal;
            drop(state);
            pr_err!("payload {} refused: {}\n", version, refusal);
            Err(Error::from_errno(sys::REFUSED))
        }
    }
}

/// `atom_payload_unregister`. The kernel runs a module's exit only without references, and Atom holds
/// one on the live payload and on a candidate, so neither can come here.
pub(crate) fn unregister(id: u32) -> Result {
    let mut state = STATE.lock();
    let before = state.payloads.len();
    state.payloads.retain(|entry| entry.id != id);
    if state.payloads.len() == before {
        return Err(ENOENT);
    }
    Ok(())
}

/// `atom_device_create`.
pub(crate) fn device_create(spec: &DeviceSpec, cookie: u64) -> Result<u32> {
    if !spec.is_valid() {
        return Err(EINVAL);
    }
    let (id, slot) = {
        let mut state = STATE.lock();
        if state.running != Running::Command {
            return Err(EINVAL);
        }
        state.devices.reserve(1, GFP_KERNEL)?;
        let id = state.free_device_id().ok_or(ENOSPC)?;
        let live = state.live.and_then(|live| state.payload(live));
        let slot = live.ok_or(ENODEV)?.payload.slot(state.epoch);
        (id, slot)
    };
    // `CONTROL` is held: nobody else can take the number meanwhile.
    let disk: Arc<Disk> = Disk::create(id, spec)?;
    disk.fill_slot(slot, cookie);
    // The device is in the list before it is visible, so that whatever is opened is also held.
    STATE
        .lock()
        .devices
        .push(Device { disk: disk.clone(), spec: *spec, bound: None }, GFP_KERNEL)?;
    if let Err(error) = disk.add() {
        forget_device(id);
        return Err(error);
    }
    Ok(id)
}

/// `atom_device_destroy`.
pub(crate) fn device_destroy(id: u32) -> Result {
    let disk = {
        let mut state = STATE.lock();
        if state.running != Running::Command {
            return Err(EINVAL);
        }
        state.device_mut(id).ok_or(ENOENT)?.disk.clone()
    };
    if !disk.refuse_opens() {
        return Err(EBUSY);
    }
    // Its number stays taken until the name is free.
    disk.remove();
    forget_device(id);
    Ok(())
}

/// Takes a disk that was removed, or never added, out of the list.
fn forget_device(id: u32) {
    // Dropping it may sleep; it happens behind the lock.
    let mut state = STATE.lock();
    let at = state.devices.iter().position(|device| device.disk.id() == id);
    let gone = at.and_then(|at| state.devices.remove(at).ok());
    drop(state);
    drop(gone);
}

/// `atom_device_bind`.
pub(crate) fn device_bind(id: u32, cookie: u64) -> Result {
    let mut state = STATE.lock();
    if state.running != Running::Adopt {
        return Err(EINVAL);
    }
    let device = state.device_mut(id).ok_or(ENOENT)?;
    if device.bound.is_some() {
        return Err(EEXIST);
    }
    device.bound = Some(cookie);
    Ok(())
}

/// `atom_pages_create`: the address of the store's xarray.
pub(crate) fn pages_create(key: u64) -> Result<usize> {
    // A live payload may ask for it at any time, also while a handoff holds I/O.
    let _no_io = NoIo::enter();
    let pages = PageStore::new()?;
    let address = pages.address();
    let mut state = STATE.lock();
    if state.store_mut(key).is_some() {
        return Err(EEXIST);
    }
    // It need not be claimed by the payload that has it; the next adopt begins with nothing claimed.
    state.stores.push(Store { key, pages, claimed: true }, GFP_KERNEL)?;
    Ok(address)
}

/// `atom_pages_claim`: the address of the store's xarray.
pub(crate) fn pages_claim(key: u64) -> Result<usize> {
    let mut state = STATE.lock();
    if state.running != Running::Adopt {
        return Err(EINVAL);
    }
    let store = state.store_mut(key).ok_or(ENOENT)?;
    match core::mem::replace(&mut store.claimed, true) {
        false => Ok(store.pages.address()),
        true => Err(EEXIST),
    }
}

/// `atom_pages_release`.
pub(crate) fn pages_release(key: u64) -> Result {
    let mut state = STATE.lock();
    let at = state.stores.iter().position(|store| store.key == key);
    let gone = at.and_then(|at| state.stores.remove(at).ok());
    drop(state);
    // A large store takes long to free; that happens behind the lock.
    gone.map(drop).ok_or(ENOENT)
}

/// True for the operations that the ABI knows.
#[inline]
pub(crate) fn is_known_op(code: u8) -> bool {
    matches!(code, op::READ | op::WRITE | op::FLUSH | op::DISCARD | op::WRITE_ZEROES)
}
