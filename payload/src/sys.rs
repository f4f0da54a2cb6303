// SPDX-License-Identifier: GPL-2.0

//! The calls from and into Atom, and the table of volumes. With `pages.rs` all `unsafe` code.
//!
//! What is here is thin: each item turns one thing of the boundary into something that the other files
//! use without `unsafe`. Two arguments carry most of the proofs:
//!
//! - **Call.** Atom calls an operation with arguments that are valid for the call (`abi/src/table.rs`).
//! - **Grace.** Whoever reads a place of the table is on the RCU read side, and [`retire`] frees a
//!   volume only after a grace period that began when no new reader could find it any more.

use core::mem::size_of;
use core::ops::Range;
use core::ptr::{null_mut, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::rcu;

use crate::abi::calls;
use crate::abi::device::DeviceSpec;
use crate::abi::request::{status, Request};
use crate::abi::stamp::STAMP_BYTES;
use crate::abi::table::{AdoptArgs, CommandArgs, FreezeArgs, PayloadTable, PrepareArgs};
use crate::pages::Io;
use crate::shape::MAX_VOLUMES;
use crate::volume::Volume;
use crate::volumes::Volumes;
use crate::{commands, identity, ops};

/// `EPROTO`, which the kernel crate has no name for.
pub(crate) fn eproto() -> Error {
    Error::from_errno(-(bindings::EPROTO as i32))
}

kernel::sync::global_lock! {
    /// Held over an operation or a command: who changes the table of volumes.
    // SAFETY: `register` initialises it before Atom knows the payload.
    pub(crate) unsafe(uninit) static TABLE_OWNER: Mutex<Volumes> = Volumes::new();
}

// What the file says about itself.

#[used(compiler)]
#[link_section = ".atom.payload"]
static STAMP: [u8; STAMP_BYTES] = identity::STAMP.to_bytes();

const MODINFO_BYTES: usize = b"version=".len() + identity::VERSION.len() + 1;

#[used(compiler)]
#[link_section = ".modinfo"]
static MODINFO: [u8; MODINFO_BYTES] = modinfo();

const fn modinfo() -> [u8; MODINFO_BYTES] {
    let (key, version) = (b"version=", identity::VERSION.as_bytes());
    let mut bytes = [0; MODINFO_BYTES];
    let mut at = 0;
    while at < key.len() + version.len() {
        bytes[at] = if at < key.len() { key[at] } else { version[at - key.len()] };
        at += 1;
    }
    bytes
}

// Registration.

/// The operations table, which only Atom reads.
#[repr(transparent)]
struct Table(PayloadTable);

// SAFETY: The table is never written after it was initialised at compile time, and the module that it
// points to may be used from all threads.
unsafe impl Sync for Table {}

static TABLE: Table = Table(PayloadTable {
    size: size_of::<PayloadTable>() as u32,
    scratch_bytes: identity::OFFER.scratch_bytes,
    abi: identity::OFFER.abi,
    layout_hash: identity::OFFER.layout_hash,
    provides: identity::OFFER.provides,
    requires: identity::OFFER.requires,
    schema: identity::SCHEMA,
    version: identity::STAMP.version,
    module: crate::THIS_MODULE.as_ptr().cast(),
    prepare: Some(prepare),
    unprepare: Some(unprepare),
    image_bytes: Some(image_bytes),
    freeze: Some(freeze),
    thaw: Some(thaw),
    adopt: Some(adopt),
    abandon: Some(abandon),
    queue_rq: Some(queue_rq),
    command: Some(command),
});

/// Atom knows the payload while this exists.
pub(crate) struct Registration {
    id: i32,
}

/// Initialises what the module's data cannot, and offers the payload to Atom. Called once, from the
/// module's init.
pub(crate) fn register() -> Result<Registration> {
    // SAFETY: The module's init runs once, and nothing else runs before Atom knows the payload.
    unsafe { TABLE_OWNER.init() };
    #[cfg(payload_fault = "stuck")]
    crate::stuck::init();
    // SAFETY: The table is a static of the module, which outlives the registration.
    let id = unsafe { calls::atom_payload_register(&TABLE.0) };
    to_result(id.min(0))?;
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

// Operations, called by Atom.

fn errno(result: Result) -> i32 {
    result.map_or_else(|error| error.to_errno(), |()| 0)
}

/// A slice of bytes of Atom's; empty for a null pointer.
///
/// # Safety
///
/// A pointer that is not null must be valid for reads of that many bytes for as long as `'a`.
unsafe fn bytes<'a>(start: *const u8, length: u64) -> Result<&'a [u8]> {
    if start.is_null() {
        return Ok(&[]);
    }
    let length = usize::try_from(length).map_err(|_| EINVAL)?;
    // SAFETY: By the contract of this function.
    Ok(unsafe { core::slice::from_raw_parts(start, length) })
}

/// The same for a buffer to write to.
///
/// # Safety
///
/// A pointer that is not null must be valid for reads and writes of that many bytes, by nobody else, for
/// as long as `'a`.
unsafe fn bytes_mut<'a>(start: *mut u8, length: u64) -> Result<&'a mut [u8]> {
    if start.is_null() {
        return Ok(&mut []);
    }
    let length = usize::try_from(length).map_err(|_| EINVAL)?;
    // SAFETY: By the contract of this function.
    Ok(unsafe { core::slice::from_raw_parts_mut(start, length) })
}

/// *prepare*: gets memory while the old payload serves.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::prepare`.
unsafe extern "C" fn prepare(args: *const PrepareArgs) -> i32 {
    // SAFETY: *Call*.
    let devices = unsafe { (*args).devices };
    errno(ops::prepare(&mut TABLE_OWNER.lock(), devices))
}

/// *unprepare*.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::unprepare`.
unsafe extern "C" fn unprepare() -> i32 {
    ops::unprepare(&mut TABLE_OWNER.lock());
    0
}

/// *image_bytes*.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::image_bytes`.
unsafe extern "C" fn image_bytes(schema: u32) -> u64 {
    ops::bound(&TABLE_OWNER.lock(), schema)
}

/// *freeze*: exports the volumes.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::freeze`.
unsafe extern "C" fn freeze(args: *mut FreezeArgs) -> i32 {
    // SAFETY: *Call*: the arguments are the payload's alone until it returns.
    let args = unsafe { &mut *args };
    // SAFETY: *Call*: the buffer is the payload's alone until it returns.
    let outcome = unsafe { bytes_mut(args.buffer, args.capacity) }
        .map_err(|error| (error, 0))
        .and_then(|buffer| ops::freeze(&TABLE_OWNER.lock(), args.schema, buffer));
    match outcome {
        Ok(used) => {
            args.used = used;
            0
        }
        Err((error, needed)) => {
            args.used = needed;
            error.to_errno()
        }
    }
}

/// *thaw*.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::thaw`.
unsafe extern "C" fn thaw() -> i32 {
    ops::thaw();
    0
}

/// *adopt*: imports the volumes and takes over their devices.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::adopt`.
unsafe extern "C" fn adopt(args: *const AdoptArgs) -> i32 {
    // SAFETY: *Call*.
    let args = unsafe { &*args };
    // SAFETY: *Call*: the image stays as it is until the operation returns.
    let image = unsafe { bytes(args.image, args.image_bytes) };
    errno(image.and_then(|image| {
        let image = (!args.image.is_null()).then_some(image);
        ops::adopt(&mut TABLE_OWNER.lock(), image, args.epoch)
    }))
}

/// *abandon*: drops the volumes.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::abandon`.
unsafe extern "C" fn abandon() -> i32 {
    ops::abandon(&mut TABLE_OWNER.lock());
    0
}

/// *command*.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::command`.
unsafe extern "C" fn command(args: *mut CommandArgs) -> i32 {
    // SAFETY: *Call*: the arguments are the payload's alone until it returns.
    let args = unsafe { &mut *args };
    args.output_bytes = 0;
    // SAFETY: *Call*: neither buffer changes but by the payload, and they do not overlap.
    let buffers = unsafe {
        bytes(args.input, args.input_bytes)
            .and_then(|input| Ok((input, bytes_mut(args.output, args.output_capacity)?)))
    };
    let outcome = buffers
        .and_then(|(input, output)| commands::carry_out(&mut TABLE_OWNER.lock(), input, output));
    errno(outcome.map(|length| args.output_bytes = length as u64))
}

/// *queue_rq*: serves a request, on the RCU read side. Does not sleep.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::queue_rq`.
unsafe extern "C" fn queue_rq(cookie: u64, request: *mut Request) -> u32 {
    // SAFETY: *Call*: the record was handed over just now.
    let io = unsafe { Io::new(request) };
    let slot = usize::try_from(cookie).unwrap_or(MAX_VOLUMES);
    #[cfg(payload_fault = "stuck")]
    let Some(io) = crate::stuck::take(slot, io) else {
        return status::OK;
    };
    match with(slot, |volume| volume.serve(&io)) {
        Some(Ok(outcome)) => {
            io.end(outcome);
            status::OK
        }
        Some(Err(not_taken)) => not_taken,
        // Atom sends what it was told to send, and for nothing else is there a volume.
        None => status::IO,
    }
}

// Calls of Atom.

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
    // SAFETY: Both pointers are valid for the call.
    to_result(unsafe { calls::atom_device_create(spec, slot as u64, &mut id) })?;
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

/// Frees a store with all its pages. The caller has removed the volume that used it. Sleeps.
pub(crate) fn release_pages(key: u64) -> Result {
    // SAFETY: Has no precondition; a volume, and with it the last use of its store, is gone after [`retire`].
    to_result(unsafe { calls::atom_pages_release(key) })
}

// The places of the table of volumes.

type Places = [AtomicPtr<Volume>; MAX_VOLUMES];

/// The volumes that requests find. INVARIANT: A pointer here came from `KBox::into_raw` and is in
/// neither another place nor in [`RETIRED`].
static LIVE: Places = [const { AtomicPtr::new(null_mut()) }; MAX_VOLUMES];
/// Volumes on their way out; empty but within [`retire`].
static RETIRED: Places = [const { AtomicPtr::new(null_mut()) }; MAX_VOLUMES];

/// Calls `visit` with the volume at a place, when there is one. Any context; `visit` must not sleep.
#[inline]
pub(crate) fn with<R>(slot: usize, visit: impl FnOnce(&Volume) -> R) -> Option<R> {
    let place = LIVE.get(slot)?;
    let _guard = rcu::read_lock();
    let volume = NonNull::new(place.load(Ordering::Acquire))?;
    // SAFETY: By the invariant of `LIVE` it was a box's, and by *Grace* it is not freed while the guard
    // is held. It is only ever used through shared references.
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

/// Takes the volumes of some places out and drops them, after one grace period for all. Only the holder
/// of `TABLE_OWNER` calls it. Sleeps.
pub(crate) fn retire(slots: Range<usize>) {
    let places = || LIVE.iter().zip(&RETIRED).take(slots.end).skip(slots.start);
    let mut found = false;
    for (live, retired) in places() {
        let volume = live.swap(null_mut(), Ordering::AcqRel);
        found |= !volume.is_null();
        retired.store(volume, Ordering::Relaxed);
    }
    if !found {
        return;
    }
    // SAFETY: Process context, by the contract of this function, and no read side is entered.
    unsafe { bindings::synchronize_rcu_expedited() };
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
