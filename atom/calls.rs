// SPDX-License-Identifier: GPL-2.0

//! What a payload may ask for. The contract of each call is in `abi/src/calls.rs`.
//!
//! All run in process context and may sleep. They take `STATE` for look-ups only; who has the turn is
//! decided by the operation that the payload is in.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::calls::NO_DEVICE;
use crate::abi::device::{ChangeError, DeviceSpec};
use crate::abi::image::Image;
use crate::abi::request::op;
use crate::abi::text::Text;
use crate::abi::version::{negotiate, reason, Offer, Refusal};
use crate::handoff::CHANGE_WAIT_NS;
use crate::points;
use crate::state::{Device, Operation, Preserved, Registered, StoredImage};
use crate::sys::{self, Disk, NoIo, Object, PageStore, Payload, STATE};

/// The kind of a page store among the preserved objects.
pub(crate) const PAGES: u32 = 0;

/// `atom_payload_register`: negotiates, and enters the payload into the list. `Err` with the refusal of one
/// that could not even be read, and its version.
pub(crate) fn register(payload: Result<Payload, (Refusal, Text)>) -> Result<u32> {
    points::REGISTER_PAYLOAD.meet()?;
    let version = payload.as_ref().map_or_else(|(_, version)| *version, Payload::version);
    let admitted = payload.map_err(|(refusal, _)| refusal).and_then(|payload| {
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
            let entry = Registered {
                id,
                payload,
                pin: None,
                was_live: false,
                dead: false,
                forsaken: false,
                died: false,
                clean: true,
            };
            state.payloads.push(entry, GFP_KERNEL)?;
            drop(state);
            pr_info!("payload {} registered as {}\n", version, id);
            sys::announce(&[fmt!("ATOM_EVENT=loaded"), fmt!("ATOM_VERSION={version}")]);
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

/// `atom_payload_unregister`. Atom holds a reference on the live payload, on a candidate, on one that is parked for a soak
/// and on a dead one. They come here only when they are removed by force, and then wait until Atom lets go of them.
pub(crate) fn unregister(id: u32) -> Result {
    points::UNREGISTER_PAYLOAD.meet()?;
    let payload = STATE.lock().payload(id).ok_or(ENOENT)?.payload.clone();
    let leaving = payload.leaving();
    if leaving.is_needed() {
        let version = payload.version();
        pr_warn!("payload {version} is removed by force and is in use: it goes when another one has taken over\n");
        sys::announce(&[fmt!("ATOM_EVENT=forced"), fmt!("ATOM_VERSION={version}")]);
        leaving.wait();
    }
    let gone = {
        let mut state = STATE.lock();
        let at = state.payloads.iter().position(|entry| entry.id == id).ok_or(ENOENT)?;
        state.payloads.remove(at).map_err(|_| ENOENT)?
    };
    let version = gone.payload.version();
    sys::announce(&[fmt!("ATOM_EVENT=unloaded"), fmt!("ATOM_VERSION={version}")]);
    Ok(())
}

/// `atom_device_create`.
pub(crate) fn device_create(spec: &DeviceSpec, cookie: u64) -> Result<u32> {
    if !spec.is_valid() {
        return Err(EINVAL);
    }
    let (id, seat) = {
        let _no_io = NoIo::enter();
        let mut state = STATE.lock();
        if !state.is_within(Operation::Command) {
            return Err(EINVAL);
        }
        state.devices.reserve(1, GFP_KERNEL)?;
        let id = state.free_device_id().ok_or(ENOSPC)?;
        let live = state.payload(state.live).ok_or(ENODEV)?;
        (id, live.payload.seat(state.epoch))
    };
    points::DEVICE_CREATE.meet()?;
    // The turn is the caller's: nobody else can take the number meanwhile.
    let disk: Arc<Disk> = Disk::create(id, spec)?;
    disk.slot().fill(seat, cookie);
    // The device is in the list before it is visible, so that whatever is opened is also held.
    let stale = {
        let device = Device { disk: disk.clone(), spec: *spec, bound: None, wanted: None };
        let mut state = STATE.lock();
        state.devices.push(device, GFP_KERNEL)?;
        state.checkpoints.take()
    };
    drop(stale);
    if let Err(error) = points::DEVICE_ADD.meet().and_then(|()| disk.add()) {
        forget_device(id);
        return Err(error);
    }
    Ok(id)
}

/// `atom_device_destroy`.
pub(crate) fn device_destroy(id: u32) -> Result {
    points::DEVICE_DESTROY.meet()?;
    let disk = {
        let mut state = STATE.lock();
        if !state.is_within(Operation::Command) {
            return Err(EINVAL);
        }
        state.device_mut(id).ok_or(ENOENT)?.disk.clone()
    };
    // A request that will never end would be waited for.
    if disk.left() != 0 || !disk.opens().refuse() {
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
    let stale = state.checkpoints.take();
    drop(state);
    drop((gone, stale));
}

/// `atom_device_bind`.
pub(crate) fn device_bind(id: u32, cookie: u64) -> Result {
    points::ADOPT_BIND.meet()?;
    let mut state = STATE.lock();
    if !state.is_taking_over(PAGES) {
        return Err(EINVAL);
    }
    let device = state.device_mut(id).ok_or(ENOENT)?;
    if device.bound.is_some() {
        return Err(EEXIST);
    }
    device.bound = Some(cookie);
    Ok(())
}

/// `atom_device_change`.
pub(crate) fn device_change(id: u32, spec: &DeviceSpec) -> Result {
    let disk = {
        let mut state = STATE.lock();
        let (adopts, commands) =
            (state.is_within(Operation::Adopt), state.is_within(Operation::Command));
        let device = state.device_mut(id).ok_or(ENOENT)?;
        let open = device.disk.opens().count() != 0;
        match device.spec.check_change(spec, open) {
            Ok(()) => {}
            Err(ChangeError::Invalid) => return Err(EINVAL),
            Err(ChangeError::Holder) => return Err(EBUSY),
        }
        if adopts {
            device.wanted = Some(*spec);
            return Ok(());
        }
        if !commands {
            return Err(EINVAL);
        }
        device.disk.clone()
    };
    disk.change(spec, CHANGE_WAIT_NS)?;
    if let Some(device) = STATE.lock().device_mut(id) {
        device.spec = device.spec.changed_to(spec);
    }
    Ok(())
}

/// `atom_checkpoint`.
pub(crate) fn checkpoint(id: u32, bytes: &[u8]) -> Result {
    // A live payload may ask for it at any time, also while a handoff holds I/O.
    let _no_io = NoIo::enter();
    let schema = Image::parse(bytes).map_err(|_| EINVAL)?.schema();
    let mut image = StoredImage::allocate(bytes.len() as u64, schema).map_err(|_| ENOMEM)?;
    image.buffer.copy_from_slice(bytes);
    image.used = bytes.len();
    points::CHECKPOINT_STORE.meet_with(&mut image.buffer)?;
    let image = Arc::new(image, GFP_KERNEL)?;
    let before = {
        let mut state = STATE.lock();
        let writes = state.payload(id).ok_or(EPERM)?.payload.schema();
        if state.live != id {
            return Err(EPERM);
        }
        if !(writes.write_min..=writes.write_max).contains(&schema) {
            return Err(EINVAL);
        }
        state.checkpoints.leave(image)
    };
    drop(before);
    Ok(())
}

/// `atom_pages_create`: the address of the store's xarray.
pub(crate) fn pages_create(key: u64) -> Result<usize> {
    let pages = {
        let _no_io = NoIo::enter();
        PageStore::new()?
    };
    let address = pages.address();
    preserve(key, PAGES, address, Object::Pages(pages))?;
    Ok(address)
}

/// `atom_object_preserve`, and the second half of creating a page store. On an error the reference is the
/// caller's as before.
pub(crate) fn preserve(key: u64, kind: u32, address: usize, object: Object) -> Result {
    // A live payload may ask for it while a handoff is on its way.
    let _no_io = NoIo::enter();
    let let_down = points::OBJECT_PRESERVE.meet();
    let mut state = STATE.lock();
    let room = match state.find_preserved(key, kind) {
        _ if let_down.is_err() => let_down,
        // A payload that was forsaken may go on; what it has made then is not for the next one.
        _ if state.is_changing_hands() => Err(EBUSY),
        Some(_) => Err(EEXIST),
        None => state.preserved.reserve(1, GFP_KERNEL).map_err(Error::from),
    };
    // It need not be claimed by the payload that has it. One that comes while a candidate reads ahead is still to be claimed.
    let claimed = state.candidate == 0 || state.is_taking_over(kind);
    let entry = Preserved { key, kind, address, object, claimed };
    match room {
        Ok(()) => state.preserved.push(entry, GFP_KERNEL).map_err(Error::from),
        Err(error) => {
            drop(state);
            entry.object.give_back();
            Err(error)
        }
    }
}

/// `atom_pages_claim`, `atom_object_claim`: what the payload is given.
pub(crate) fn claim(key: u64, kind: u32) -> Result<usize> {
    points::ADOPT_CLAIM.meet()?;
    let mut state = STATE.lock();
    if !state.is_taking_over(kind) {
        return Err(EINVAL);
    }
    let at = state.find_preserved(key, kind).ok_or(ENOENT)?;
    let entry = state.preserved.get_mut(at).ok_or(ENOENT)?;
    match core::mem::replace(&mut entry.claimed, true) {
        false => Ok(entry.address),
        true => Err(EEXIST),
    }
}

/// `atom_pages_release`, `atom_object_release`.
pub(crate) fn release(key: u64, kind: u32) -> Result {
    points::OBJECT_RELEASE.meet()?;
    let mut state = STATE.lock();
    if state.is_changing_hands() {
        // This is somebody who is late.
        return Err(EBUSY);
    }
    let at = state.find_preserved(key, kind);
    let gone = at.and_then(|at| state.preserved.remove(at).ok());
    drop(state);
    // A large store takes long to free; that happens behind the lock.
    gone.map(drop).ok_or(ENOENT)
}

/// `atom_event`.
pub(crate) fn event(id: u32, device: u32, text: Text) -> Result {
    let version = {
        let mut state = STATE.lock();
        if device != NO_DEVICE {
            state.device_mut(device).ok_or(ENOENT)?;
        }
        state.payload(id).ok_or(ENOENT)?.payload.version()
    };
    let text = text.one_line();
    if text.is_empty() {
        return Err(EINVAL);
    }
    let lines = if device == NO_DEVICE { 3 } else { 4 };
    sys::announce(
        [
            fmt!("ATOM_EVENT=payload"),
            fmt!("ATOM_VERSION={version}"),
            fmt!("ATOM_TEXT={text}"),
            fmt!("ATOM_DEVICE=atom{device}"),
        ]
        .get(..lines)
        .unwrap_or(&[]),
    );
    Ok(())
}

/// True for the operations that the ABI knows.
#[inline]
pub(crate) fn is_known_op(code: u8) -> bool {
    matches!(code, op::READ | op::WRITE | op::FLUSH | op::DISCARD | op::WRITE_ZEROES)
}
