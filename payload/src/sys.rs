// SPDX-License-Identifier: GPL-2.0

//! The calls of Atom, and the places of the table of volumes.
//!
//! What is here is thin: each item turns one thing of the boundary into something that the other files
//! use without `unsafe`. One argument carries most of the proofs:
//!
//! - **Grace.** Whoever reads a place of the table is on the RCU read side, and [`retire`] frees a
//!   volume only after a grace period that began when no new reader could find it any more.

use core::ops::Range;
use core::ptr::{from_ref, null_mut, NonNull};
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};

use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;
#[cfg(payload_fault = "stuck")]
use kernel::sync::rcu;

use crate::abi::calls;
use crate::abi::device::DeviceSpec;
#[cfg(payload_client)]
use crate::abi::text::Text;
use crate::level::{Spec, Table};
use crate::shape::MAX_VOLUMES;
use crate::volume::Volume;

/// `EPROTO`, which the kernel crate has no name for.
pub(crate) fn eproto() -> Error {
    Error::from_errno(-(bindings::EPROTO as i32))
}

/// `ELOOP`, as above.
#[cfg(payload_client)]
pub(crate) fn eloop() -> Error {
    Error::from_errno(-(bindings::ELOOP as i32))
}

/// `EOPNOTSUPP`, as above.
#[cfg(payload_client)]
pub(crate) fn eopnotsupp() -> Error {
    Error::from_errno(-(bindings::EOPNOTSUPP as i32))
}

// Calls of Atom.

/// The identity that Atom gave to the payload.
static ID: AtomicI32 = AtomicI32::new(0);

/// Atom knows the payload while this exists.
pub(crate) struct Registration {
    id: i32,
}

/// Offers the payload to Atom. Called once, as the last step of the module's init.
pub(crate) fn register(table: &'static Table) -> Result<Registration> {
    // SAFETY: The table is a static of the module, which outlives the registration, and begins as the
    // interface says.
    let id = unsafe { calls::atom_payload_register(from_ref(table).cast()) };
    to_result(id.min(0))?;
    ID.store(id, Ordering::Relaxed);
    Ok(Registration { id })
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: Has no precondition.
        if let Err(error) = to_result(unsafe { calls::atom_payload_unregister(self.id) }) {
            pr_err!("Atom did not know the payload: error {}\n", error.to_errno());
        }
    }
}

/// The epoch in which the payload owns requests: that of the last *adopt*.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// Sets the epoch. No request is owned meanwhile: Atom's gates are closed.
pub(crate) fn set_epoch(epoch: u64) {
    EPOCH.store(epoch, Ordering::Release);
}

/// The epoch that was set last.
#[inline]
pub(crate) fn epoch() -> u64 {
    EPOCH.load(Ordering::Acquire)
}

/// Creates a device whose requests come with `slot` as their cookie. Only within a command. Sleeps.
pub(crate) fn create_device(spec: &DeviceSpec, slot: usize) -> Result<u32> {
    let mut id = 0;
    let spec = Spec::new(spec);
    // SAFETY: Both pointers are valid for the call.
    to_result(unsafe { calls::atom_device_create(spec.as_ptr(), slot as u64, &mut id) })?;
    Ok(id)
}

/// Removes a device and waits for its requests. Only within a command. Sleeps.
pub(crate) fn destroy_device(id: u32) -> Result {
    // SAFETY: Has no precondition.
    to_result(unsafe { calls::atom_device_destroy(id) })
}

/// Takes a device over. Only within *adopt*.
pub(crate) fn bind_device(id: u32, slot: usize) -> Result {
    // SAFETY: Has no precondition.
    to_result(unsafe { calls::atom_device_bind(id, slot as u64) })
}

/// Has Atom change a device. Within *adopt*, where it takes effect after the gate has opened, or within a
/// command, where it does at once: it waits for the device's requests, and a request that was handed over
/// before has ended when it has succeeded.
#[cfg(any(payload_fault = "change", payload_client))]
pub(crate) fn change_device(id: u32, spec: &DeviceSpec) -> Result {
    // SAFETY: The spec is valid for the call.
    to_result(unsafe { calls::atom_device_change(id, spec) })
}

/// Leaves an image with Atom for the day on which the payload cannot be asked any more. Sleeps.
#[cfg(not(payload_abi = "0"))]
pub(crate) fn checkpoint(image: &[u8]) -> Result {
    let id = ID.load(Ordering::Relaxed);
    // SAFETY: The image is valid for the call.
    to_result(unsafe { calls::atom_checkpoint(id, image.as_ptr(), image.len() as u64) })
}

/// Frees a store with all its pages. The caller has removed the volume that used it. Sleeps.
pub(crate) fn release_pages(key: u64) -> Result {
    // SAFETY: Has no precondition; a volume, and with it the last use of its store, is gone after [`retire`].
    to_result(unsafe { calls::atom_pages_release(key) })
}

/// Tells whoever listens to Atom's events something about a device, or about none. Process context.
#[cfg(payload_client)]
pub(crate) fn event(device: Option<u32>, text: &Text) {
    let id = ID.load(Ordering::Relaxed);
    // SAFETY: The text is valid for the call.
    let result = unsafe { calls::atom_event(id, device.unwrap_or(calls::NO_DEVICE), text) };
    if result != 0 {
        kernel::pr_warn_once!("an event was not told: error {}\n", result);
    }
}

/// Waits until everybody who is on the RCU read side now has left it. Process context; sleeps.
#[cfg(payload_client)]
pub(crate) fn wait_for_readers() {
    // SAFETY: By the contract of this function, and because no read side is entered here.
    unsafe { bindings::synchronize_rcu_expedited() };
}

/// Processors that the machine can have.
#[cfg(payload_client)]
pub(crate) fn processors() -> u32 {
    // SAFETY: The kernel sets the number once, when it boots.
    unsafe { bindings::nr_cpu_ids }
}

// The places of the table of volumes.

type Places = [AtomicPtr<Volume>; MAX_VOLUMES];

/// The volumes that requests find. INVARIANT: A pointer here came from `KBox::into_raw` and is in
/// neither another place nor in [`RETIRED`].
static LIVE: Places = [const { AtomicPtr::new(null_mut()) }; MAX_VOLUMES];
/// Volumes on their way out; empty but within [`retire`].
static RETIRED: Places = [const { AtomicPtr::new(null_mut()) }; MAX_VOLUMES];

/// The volume at a place, when there is one, for a dispatch of its device: no lock is taken and no count is written.
///
/// # Safety
///
/// Only within a dispatch of the device whose cookie the place is, for as long as its request is owned, or its batch not ended. The volume is
/// there until then: it goes only after its device is gone, or after *abandon*, and both wait for running dispatches; one that grows
/// leaves the old one there until its queue was frozen, for which every request has ended, and a grace period has passed.
#[inline]
pub(crate) unsafe fn dispatched<'a>(slot: usize) -> Option<&'a Volume> {
    let volume = NonNull::new(LIVE.get(slot)?.load(Ordering::Acquire))?;
    // SAFETY: By the invariant of `LIVE` it was a box's, and by the contract of this function it stays. It is only
    // ever used through shared references.
    Some(unsafe { volume.as_ref() })
}

/// Calls `visit` with the volume at a place, when there is one. Any context; `visit` must not sleep.
#[cfg(payload_fault = "stuck")]
pub(crate) fn with<R>(slot: usize, visit: impl FnOnce(&Volume) -> R) -> Option<R> {
    let place = LIVE.get(slot)?;
    let _guard = rcu::read_lock();
    let volume = NonNull::new(place.load(Ordering::Acquire))?;
    // SAFETY: By the invariant of `LIVE` it was a box's, and by *Grace* it is not freed while the guard
    // is held. It is only ever used through shared references.
    Some(visit(unsafe { volume.as_ref() }))
}

/// The same for an operation or a command, in which `visit` may sleep: only they take volumes out, and there
/// is one of them at a time.
pub(crate) fn with_owned<R>(slot: usize, visit: impl FnOnce(&Volume) -> R) -> Option<R> {
    let volume = NonNull::new(LIVE.get(slot)?.load(Ordering::Acquire))?;
    // SAFETY: By the invariant of `LIVE` it was a box's, and by the contract of this function nobody takes
    // it out meanwhile. It is only ever used through shared references.
    Some(visit(unsafe { volume.as_ref() }))
}

/// Puts a volume into an empty place. Gives it back when the place is taken.
pub(crate) fn fill(slot: usize, volume: KBox<Volume>) -> Result<(), KBox<Volume>> {
    let Some(place) = LIVE.get(slot) else {
        return Err(volume);
    };
    let raw = KBox::into_raw(volume);
    match place.compare_exchange(null_mut(), raw, Ordering::Release, Ordering::Relaxed) {
        Ok(_) => Ok(()),
        // SAFETY: It came from `into_raw` just now and was not published.
        Err(_) => Err(unsafe { KBox::from_raw(raw) }),
    }
}

/// Volumes that were replaced and that requests may still be using: they go with all the others.
#[cfg(payload_client)]
static LINGERING: [AtomicPtr<Volume>; 32] = [const { AtomicPtr::new(null_mut()) }; 32];

/// Replaces a volume by one over the same targets and more, and has Atom make its device larger. On an error
/// the old one is back, and what the new one has beside it is used by nobody. Only the holder of
/// `table::TABLE_OWNER`, within a command. Sleeps.
///
/// Errors: `ENOENT`, `EBUSY` when that has failed too often, and those of [`change_device`].
#[cfg(payload_client)]
pub(crate) fn grow(slot: usize, volume: KBox<Volume>, spec: &DeviceSpec) -> Result {
    let place = LIVE.get(slot).ok_or(ENOENT)?;
    let device = volume.device();
    // Where the one goes that is not needed any more, if it cannot go at once.
    let lingering = LINGERING.iter().find(|place| place.load(Ordering::Relaxed).is_null());
    let lingering = lingering.ok_or(EBUSY)?;
    let old = place.load(Ordering::Acquire);
    if old.is_null() {
        return Err(ENOENT);
    }
    let new = KBox::into_raw(volume);
    place.store(new, Ordering::Release);
    match change_device(device, spec) {
        Ok(()) => {
            // SAFETY: Process context, by the contract of this function, and no read side is entered.
            unsafe { bindings::synchronize_rcu_expedited() };
            // SAFETY:
            // - By the invariant of `LIVE` it came from `KBox::into_raw`, and it is in no place any more.
            // - *Grace*; and every request that has found it has ended, as `change_device` says. A dispatch
            //   that is still on its way out uses the targets only, which the new one has as well.
            drop(unsafe { KBox::from_raw(old) });
            Ok(())
        }
        Err(error) => {
            place.store(old, Ordering::Release);
            // Requests that have found the new one may not have ended.
            lingering.store(new, Ordering::Relaxed);
            Err(error)
        }
    }
}

/// Takes the volumes of some places out and drops them, after one grace period for all. Only the holder
/// of `table::TABLE_OWNER` calls it. Sleeps.
pub(crate) fn retire(slots: Range<usize>) {
    let places = || LIVE.iter().zip(&RETIRED).take(slots.end).skip(slots.start);
    let mut found = false;
    for (live, retired) in places() {
        let volume = live.swap(null_mut(), Ordering::AcqRel);
        found |= !volume.is_null();
        retired.store(volume, Ordering::Relaxed);
    }
    #[cfg(payload_client)]
    {
        found |= LINGERING.iter().any(|place| !place.load(Ordering::Relaxed).is_null());
    }
    if !found {
        return;
    }
    // SAFETY: Process context, by the contract of this function, and no read side is entered.
    unsafe { bindings::synchronize_rcu_expedited() };
    #[cfg(payload_client)]
    if slots.len() == MAX_VOLUMES {
        for place in &LINGERING {
            let volume = place.swap(null_mut(), Ordering::Relaxed);
            if !volume.is_null() {
                // SAFETY: As below; all volumes go, so no request is owned.
                drop(unsafe { KBox::from_raw(volume) });
            }
        }
    }
    for (_, retired) in places() {
        let volume = retired.swap(null_mut(), Ordering::Relaxed);
        if !volume.is_null() {
            // SAFETY:
            // - By the invariant of `LIVE` it came from `KBox::into_raw`, and it is taken once.
            // - *Grace*: whoever found it has left the read side.
            drop(unsafe { KBox::from_raw(volume) });
        }
    }
}
