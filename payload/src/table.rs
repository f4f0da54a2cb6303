// SPDX-License-Identifier: GPL-2.0

//! The operations table, and what Atom calls through it.
//!
//! What is here is thin: each operation turns pointers into what `ops.rs` and `commands.rs` take, and
//! their results into what Atom is told. One argument carries most of the proofs:
//!
//! - **Call.** Atom calls an operation with arguments that are valid for the call (`abi/src/table.rs`).

use kernel::prelude::*;

use crate::abi::request::{status, Request};
#[cfg(payload_ahead)]
use crate::abi::table::freeze_flags;
use crate::abi::table::{AdoptArgs, CommandArgs, FreezeArgs, PayloadTable, PrepareArgs};
#[cfg(payload_ahead)]
use crate::ahead;
use crate::fault::{Points, Step, Variant};
#[cfg(payload_client)]
use crate::flight::Flight;
use crate::level::Table;
use crate::ops::{Extent, ImageKind};
use crate::pages::Io;
use crate::shape::MAX_VOLUMES;
use crate::sys::{self, dispatched, Registration};
use crate::volume::NotServed;
#[cfg(payload_client)]
use crate::volume::Volume;
use crate::volumes::Volumes;
use crate::{commands, identity, ops, points};

#[cfg(not(payload_abi = "0"))]
use crate::abi::{
    control::Blocker,
    request::timeout as answer,
    table::{adopt_flags, ResumeArgs, SuspendArgs},
    text::Text,
};

kernel::sync::global_lock! {
    /// Held over an operation or a command: who changes the table of volumes.
    // SAFETY: `register` initialises it before Atom knows the payload.
    unsafe(uninit) static TABLE_OWNER: Mutex<Volumes> = Volumes::new();
}

// SAFETY: The table is never written after it was initialised at compile time, and the module that it
// points to may be used from all threads.
unsafe impl Sync for Table {}

static TABLE: Table = Table::new(PayloadTable {
    size: Table::BYTES,
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
    #[cfg(not(payload_abi = "0"))]
    suspend: Some(suspend),
    #[cfg(not(payload_abi = "0"))]
    resume: Some(resume),
    #[cfg(not(payload_abi = "0"))]
    revoke: Some(revoke),
    #[cfg(not(payload_abi = "0"))]
    explain: Some(explain),
    #[cfg(not(payload_abi = "0"))]
    timeout: Some(timeout),
    #[cfg(payload_client)]
    commit: Some(commit),
    #[cfg(not(payload_client))]
    commit: None,
    #[cfg(payload_ahead)]
    copy_ahead: Some(copy_ahead),
    #[cfg(payload_ahead)]
    adopt_ahead: Some(adopt_ahead),
    #[cfg(not(payload_ahead))]
    copy_ahead: None,
    #[cfg(not(payload_ahead))]
    adopt_ahead: None,
    #[cfg(payload_client)]
    hand_back: Some(hand_back),
    #[cfg(not(payload_client))]
    hand_back: None,
    // Behind the table's stated size, where Atom must not look.
    #[cfg(payload_abi = "0")]
    suspend: None,
    #[cfg(payload_abi = "0")]
    resume: None,
    #[cfg(payload_abi = "0")]
    revoke: None,
    #[cfg(payload_abi = "0")]
    explain: None,
    #[cfg(payload_abi = "0")]
    timeout: None,
});

/// Initialises what the module's data cannot, and offers the payload to Atom. Called once, from the
/// module's init.
pub(crate) fn register() -> Result<Registration> {
    // SAFETY: The module's init runs once, and nothing else runs before Atom knows the payload.
    unsafe { TABLE_OWNER.init() };
    Variant::init();
    sys::register(&TABLE)
}

fn errno(result: Result) -> i32 {
    result.map_or_else(|error| error.to_errno(), |()| 0)
}

/// Carries out an operation with the table of volumes locked.
fn locked<R>(step: Step, operation: impl FnOnce(&mut Volumes) -> R) -> Result<R> {
    Variant::before(step)?;
    step.point().meet()?;
    let mut volumes = TABLE_OWNER.lock();
    Variant::holding(step);
    Ok(operation(&mut volumes))
}

/// The same for an inverse, whose work is done in any case.
fn inverse(step: Step, operation: impl FnOnce(&mut Volumes)) -> i32 {
    let outcome = Variant::before(step).and_then(|()| step.point().meet());
    let mut volumes = TABLE_OWNER.lock();
    Variant::holding(step);
    operation(&mut volumes);
    errno(outcome)
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
    errno(locked(Step::Prepare, |volumes| ops::prepare(volumes, devices)).and_then(|done| done))
}

/// *unprepare*.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::unprepare`.
unsafe extern "C" fn unprepare() -> i32 {
    inverse(Step::Unprepare, ops::unprepare)
}

/// *image_bytes*.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::image_bytes`.
unsafe extern "C" fn image_bytes(schema: u32) -> u64 {
    // There is no errno to return: an injected one is a bound that no image can have.
    locked(Step::ImageBytes, |volumes| ops::bound(volumes, schema))
        .unwrap_or_else(|error| error.to_errno() as u64)
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
    let buffer = unsafe { bytes_mut(args.buffer, args.capacity) };
    let (schema, extent) = (args.schema, extent(args));
    let outcome = buffer
        .and_then(|buffer| {
            locked(Step::Freeze, |volumes| ops::freeze(volumes, schema, buffer, extent))
        })
        .unwrap_or_else(|error| Err((error, 0)));
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

/// What *freeze* is to write.
#[cfg(payload_ahead)]
fn extent(args: &FreezeArgs) -> Extent {
    // An Atom that has no copies has shorter arguments.
    match is_difference(args) {
        true => Extent::Difference,
        false => Extent::Whole,
    }
}

#[cfg(not(payload_ahead))]
fn extent(_args: &FreezeArgs) -> Extent {
    Extent::Whole
}

/// *copy_ahead*: exports the volumes while they are served.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::copy_ahead`.
#[cfg(payload_ahead)]
unsafe extern "C" fn copy_ahead(args: *mut FreezeArgs) -> i32 {
    // SAFETY: *Call*: the arguments are the payload's alone until it returns.
    let args = unsafe { &mut *args };
    // SAFETY: *Call*: the buffer is the payload's alone until it returns.
    let buffer = unsafe { bytes_mut(args.buffer, args.capacity) };
    let outcome = buffer
        .and_then(|buffer| {
            locked(Step::CopyAhead, |volumes| {
                ahead::copy(volumes, args.schema, buffer, is_difference(args))
            })
        })
        .unwrap_or_else(|error| Err((error, 0)));
    match outcome {
        Ok((used, difference)) => {
            (args.used, args.delta_bytes) = (used, difference);
            0
        }
        Err((error, needed)) => {
            args.used = needed;
            error.to_errno()
        }
    }
}

/// *adopt_ahead*: imports what *copy_ahead* has exported.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::adopt_ahead`.
#[cfg(payload_ahead)]
unsafe extern "C" fn adopt_ahead(args: *const AdoptArgs) -> i32 {
    // SAFETY: *Call*: an Atom that calls this has the whole structure.
    let args = unsafe { &*args };
    // SAFETY: *Call*: the image stays as it is until the operation returns.
    let image = unsafe { bytes(args.image, args.image_bytes) };
    let difference = args.flags & adopt_flags::DELTA != 0;
    let outcome = image.and_then(|image| {
        locked(Step::AdoptAhead, |volumes| ahead::adopt_ahead(volumes, image, difference))
    });
    errno(outcome.and_then(|done| done))
}

/// *thaw*: what *freeze* has stopped begins again.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::thaw`.
unsafe extern "C" fn thaw() -> i32 {
    inverse(Step::Thaw, ops::thaw)
}

/// *adopt*: imports the volumes and takes over their devices.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::adopt`.
unsafe extern "C" fn adopt(args: *const AdoptArgs) -> i32 {
    // SAFETY: *Call*. No reference, because an older Atom has less than the whole structure.
    let (image, image_bytes, epoch) =
        unsafe { ((*args).image, (*args).image_bytes, (*args).epoch) };
    // SAFETY: *Call*.
    let kind = unsafe { image_kind(args) };
    // SAFETY: *Call*: the image stays as it is until the operation returns.
    let outcome = unsafe { bytes(image, image_bytes) }.and_then(|content| {
        let content = (!image.is_null()).then_some(content);
        locked(Step::Adopt, |volumes| ops::adopt(volumes, content, epoch, kind))
    });
    errno(outcome.and_then(|done| done))
}

/// What the image is of.
///
/// # Safety
///
/// The arguments must be as long as they say.
#[cfg(not(payload_abi = "0"))]
unsafe fn image_kind(args: *const AdoptArgs) -> ImageKind {
    const END: usize = core::mem::offset_of!(AdoptArgs, flags) + core::mem::size_of::<u32>();
    // SAFETY: By the contract of this function; the flags are read only when they are there.
    let flags = unsafe {
        if (*args).size as usize >= END {
            (*args).flags
        } else {
            0
        }
    };
    match flags {
        #[cfg(payload_ahead)]
        _ if flags & adopt_flags::DELTA != 0 => ImageKind::Difference,
        _ if flags & adopt_flags::CHECKPOINT != 0 => ImageKind::Checkpoint,
        _ => ImageKind::Whole,
    }
}

/// There is only one kind in 1.0.
///
/// # Safety
///
/// None.
#[cfg(payload_abi = "0")]
unsafe fn image_kind(_args: *const AdoptArgs) -> ImageKind {
    ImageKind::Whole
}

/// Whether only a difference is to be written.
#[cfg(payload_ahead)]
fn is_difference(args: &FreezeArgs) -> bool {
    const END: usize = core::mem::offset_of!(FreezeArgs, flags) + core::mem::size_of::<u32>();
    args.size as usize >= END && args.flags & freeze_flags::DELTA != 0
}

/// *abandon*: drops the volumes.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::abandon`.
unsafe extern "C" fn abandon() -> i32 {
    inverse(Step::Abandon, ops::abandon)
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
    let outcome = buffers.and_then(|(input, output)| {
        locked(Step::Command, |volumes| commands::carry_out(volumes, input, output))
    });
    errno(outcome.and_then(|done| done).map(|length| args.output_bytes = length as u64))
}

/// *queue_rq*: serves a request, on the RCU read side, and then does not sleep; or that of a device which has
/// asked for it, where it may.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::queue_rq`.
unsafe extern "C" fn queue_rq(cookie: u64, request: *mut Request) -> u32 {
    if let Some(refused) = Variant::refuses() {
        return refused;
    }
    if points::QUEUE_REQUEST.meet().is_err() {
        return status::RESOURCE;
    }
    // SAFETY: *Call*: the record was handed over just now.
    let io = unsafe { Io::new(request) };
    let slot = place(cookie);
    let Some(io) = Variant::take(slot, io) else {
        return status::OK;
    };
    // SAFETY: *Call*: this is a dispatch for the device of this volume, and the request is owned until it is ended or not taken.
    match unsafe { dispatched(slot) }.map(|volume| volume.serve(&io)) {
        Some(Ok(outcome)) => {
            io.end(outcome);
            status::OK
        }
        Some(Err(NotServed::Status(not_taken))) => not_taken,
        #[cfg(payload_client)]
        Some(Err(NotServed::Targets(composed))) => {
            // SAFETY: As above; the record was handed over just now.
            unsafe {
                let composed = composed.as_ref();
                composed.dispatch(Flight::begin(io.into_record(), composed))
            }
        }
        // Atom sends what it was told to send, and for nothing else is there a volume.
        None => status::IO,
    }
}

/// *commit*: the batch of requests that was dispatched last on a hardware queue has ended.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::commit`.
#[cfg(payload_client)]
unsafe extern "C" fn commit(cookie: u64, hctx: u32) {
    // SAFETY: *Call*: this is within a dispatch for the device of this volume, whose batch ends here.
    if let Some(composed) = unsafe { dispatched(place(cookie)) }.and_then(Volume::composed) {
        composed.commit(hctx);
    }
}

/// The place of a volume, from the cookie of its device.
fn place(cookie: u64) -> usize {
    usize::try_from(cookie).unwrap_or(MAX_VOLUMES)
}

/// *suspend*: stops what runs without a request.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::suspend`.
#[cfg(not(payload_abi = "0"))]
unsafe extern "C" fn suspend(_args: *const SuspendArgs) -> i32 {
    locked(Step::Suspend, |_| {
        ops::suspend();
        Variant::background()
    })
    .unwrap_or_else(|error| error.to_errno())
}

/// *resume*: what *suspend* has stopped begins again, and deadlines move.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::resume`.
#[cfg(not(payload_abi = "0"))]
unsafe extern "C" fn resume(args: *const ResumeArgs) -> i32 {
    // SAFETY: *Call*.
    let paused_ns = unsafe { (*args).paused_ns };
    inverse(Step::Resume, |volumes| {
        ops::resume(paused_ns);
        Variant::resumed(paused_ns);
        if Variant::CHANGES {
            ops::checkpoint(volumes);
        }
    })
}

/// *hand_back*: what waits for a connection, or to be sent on one, has not been started.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::hand_back`.
#[cfg(payload_client)]
unsafe extern "C" fn hand_back() -> i32 {
    errno(locked(Step::HandBack, |volumes| ops::hand_back(volumes)))
}

/// *revoke*: a request of a volume without targets is carried out and ended within its dispatch, and no
/// dispatch runs any more. So there is nothing to let go of, and nothing that could follow late. Targets
/// are asked.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::revoke`.
#[cfg(not(payload_abi = "0"))]
unsafe extern "C" fn revoke() -> i32 {
    errno(
        locked(Step::Revoke, |volumes| {
            Variant::revoke();
            ops::revoke(volumes)
        })
        .and_then(|done| done),
    )
}

/// *explain*: says why a request has not ended.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::explain`.
#[cfg(not(payload_abi = "0"))]
unsafe extern "C" fn explain(cookie: u64, blocker: *const Blocker, reason: *mut Text) -> i32 {
    if let Err(error) = points::EXPLAIN_BEGIN.meet() {
        return error.to_errno();
    }
    // SAFETY: *Call*.
    let blocker = unsafe { &*blocker };
    let text = match Variant::reason(place(cookie), blocker) {
        Some(known) => Text::new(known),
        None => ops::explain(place(cookie), blocker),
    };
    // SAFETY: *Call*.
    unsafe { reason.write(text) };
    0
}

/// *timeout*: no request is given up.
///
/// # Safety
///
/// Only Atom may call it, by the contract of `PayloadTable::timeout`.
#[cfg(not(payload_abi = "0"))]
unsafe extern "C" fn timeout(_cookie: u64, _request: *mut Request) -> u32 {
    Variant::timed_out();
    answer::WAIT
}
