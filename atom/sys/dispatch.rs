// SPDX-License-Identifier: GPL-2.0

//! The I/O path: how requests come to the payload, and how they end.
//!
//! The **Gate** argument of [`super`] has its two ends here and in [`Disk::close_gate`].

use core::ptr::{addr_of, null_mut, NonNull};
use core::sync::atomic::{fence, Ordering};

use kernel::{bindings, ffi};

use super::disk::Disk;
use super::queues;
use crate::abi::request::{flags, status, timeout, Owner, Ownership, Request};
use crate::calls;
use crate::points;
use crate::slot::{Seat, Seated, Slot};

/// What lies behind each `struct request`: what the payload sees, and what it does not.
#[repr(C)]
pub(super) struct Record {
    pub(super) request: Request,
    /// Jiffies at which the payload got it; only where it is asked about requests that take long, because
    /// the block layer's own number changes then.
    pub(super) claimed: ffi::c_ulong,
}

type QueueRq = unsafe extern "C" fn(u64, *mut Request) -> u32;
type Commit = unsafe extern "C" fn(u64, u32);

/// The kernel's clock of ticks. Any context.
#[inline]
pub(super) fn jiffies() -> ffi::c_ulong {
    // SAFETY: A number that the kernel writes as a whole.
    unsafe { addr_of!(bindings::jiffies).read_volatile() }
}

/// The record of a request of one of our tag sets.
#[inline]
pub(super) fn record_of(request: *mut bindings::request) -> *mut Request {
    request.wrapping_add(1).cast()
}

/// True while the gate is closed. When it is false on the RCU read side, the grace period of a gate that closes
/// now lasts until that side has ended.
///
/// # Safety
///
/// `queue` must be that of a `Disk`.
#[inline]
unsafe fn is_closed(queue: *const bindings::request_queue) -> bool {
    // SAFETY: By the function's contract; the flags are a word that the block layer writes as a whole.
    let flags = unsafe { addr_of!((*queue).queue_flags).read_volatile() };
    flags & (1 << bindings::QUEUE_FLAG_QUIESCED) != 0
}

/// Writes into a record what never changes in it. Context: process, while requests are allocated.
///
/// # Safety
///
/// For the block layer only, which passes the tag set of a `Disk`, with the device's identity, and a new request of it.
pub(super) unsafe extern "C" fn init_request(
    set: *mut bindings::blk_mq_tag_set,
    request: *mut bindings::request,
    hctx: ffi::c_uint,
    _node: ffi::c_int,
) -> i32 {
    let record = record_of(request);
    // SAFETY: By the function's contract; the memory of the record is there and all zeroes, and nobody else uses it yet.
    unsafe {
        (*record).rq = request.cast();
        (*record).hctx = hctx as u16;
        (*record).device = (*set).driver_data.addr() as u32;
    }
    0
}

/// Context: a dispatch: RCU read side, must not sleep; or, of a device whose dispatches may sleep (`SLEEPS`), process.
///
/// # Safety
///
/// For the block layer only, which passes objects of a `Disk`.
pub(super) unsafe extern "C" fn queue_rq<const SLEEPS: bool>(
    hctx: *mut bindings::blk_mq_hw_ctx,
    data: *const bindings::blk_mq_queue_data,
) -> u8 {
    // SAFETY: As the block layer passes them.
    unsafe { hand_over::<SLEEPS>(hctx, (*data).rq, None) }
}

/// The same for many requests of one device, of which those that are to be dispatched again are left in the list.
///
/// Only here a payload is told that there is more, because only here it is certain that it learns of the end: the block layer's own
/// word for that is not kept when a queue is quiesced in between (`blk_mq_request_issue_directly`).
///
/// # Safety
///
/// For the block layer only, which passes a list of requests of a `Disk`.
pub(super) unsafe extern "C" fn queue_rqs<const SLEEPS: bool>(list: *mut bindings::rq_list) {
    // SAFETY: The block layer passes its own list, of requests that are ours until they are ended or left in it.
    unsafe {
        let mut again = bindings::rq_list { head: null_mut(), tail: null_mut() };
        let mut told = None;
        while let Some(request) = pop(&mut *list) {
            let hctx = (*request).mq_hctx;
            let next = NonNull::new((*list).head);
            let more = next.is_some_and(|next| (*next.as_ptr()).mq_hctx == hctx);
            let outcome = hand_over::<SLEEPS>(hctx, request, more.then_some(&mut told));
            match u32::from(outcome) {
                status::OK => {}
                // The payload has refused it after it was started. What is left in the list must not be.
                status::RESOURCE if (*request).state != bindings::mq_rq_state_MQ_RQ_IDLE => {
                    bindings::blk_mq_requeue_request(request, true);
                }
                status::RESOURCE => push(&mut again, request),
                _ => bindings::blk_mq_end_request(request, outcome),
            }
            if !more {
                // Who takes the last one carries out all of them.
                if let (Some(seated), false) = (told.take(), outcome == status::OK as u8) {
                    commit(hctx, &seated);
                }
            }
        }
        *list = again;
    }
}

/// Takes the first request out of a list.
///
/// # Safety
///
/// The list must be of requests that nobody else uses.
unsafe fn pop(list: &mut bindings::rq_list) -> Option<*mut bindings::request> {
    let first = NonNull::new(list.head)?.as_ptr();
    // SAFETY: By the function's contract; the link is that of a list of this kind.
    unsafe {
        list.head = (*first).__bindgen_anon_1.rq_next;
        (*first).__bindgen_anon_1.rq_next = null_mut();
    }
    if list.head.is_null() {
        list.tail = null_mut();
    }
    Some(first)
}

/// Adds a request behind the others of a list.
///
/// # Safety
///
/// As for [`pop`]; the request must be in no list.
pub(super) unsafe fn push(list: &mut bindings::rq_list, request: *mut bindings::request) {
    // SAFETY: As in `pop`.
    unsafe {
        (*request).__bindgen_anon_1.rq_next = null_mut();
        match NonNull::new(list.tail) {
            Some(tail) => (*tail.as_ptr()).__bindgen_anon_1.rq_next = request,
            None => list.head = request,
        }
    }
    list.tail = request;
}

/// Tells a payload that no more follows on a hardware queue. Context: as for [`queue_rq`].
///
/// # Safety
///
/// `seated` must come from [`hand_over`] in this dispatch, of `hctx`.
unsafe fn commit(hctx: *mut bindings::blk_mq_hw_ctx, seated: &Seated) {
    // SAFETY: The gate argument: the dispatch in which the slot was read has not returned.
    unsafe {
        let entry = core::mem::transmute::<*mut ffi::c_void, Commit>(seated.entry);
        entry(seated.cookie, (*hctx).queue_num);
    }
}

/// Hands a request to the payload. Returns a status of the block layer: OK when it is taken, and else the request is
/// still the caller's. With `told` another one of the queue follows in this dispatch; who was told that is left there. Context:
/// as for [`queue_rq`].
///
/// # Safety
///
/// `hctx` must be of a `Disk` and the request of its tag set, which is ours until it is ended, in a dispatch of it. `SLEEPS` must say
/// whether its dispatches may sleep.
#[inline(always)]
unsafe fn hand_over<const SLEEPS: bool>(
    hctx: *mut bindings::blk_mq_hw_ctx,
    request: *mut bindings::request,
    told: Option<&mut Option<Seated>>,
) -> u8 {
    if points::DISPATCH_REQUEST.meet().is_err() {
        return status::RESOURCE as u8;
    }
    // SAFETY: By the function's contract; the queue data is the `Disk` and outlives the queue.
    unsafe {
        // A dispatch that may sleep is on the read side until the request is the payload's: from there on a
        // drain waits for it.
        let guard = SLEEPS.then(kernel::sync::rcu::read_lock);
        if SLEEPS && is_closed((*hctx).queue) {
            // The dispatch before it has slept meanwhile.
            return status::RESOURCE as u8;
        }
        // Whatever the gate's opening made visible is read after it; free on x86.
        fence(Ordering::Acquire);
        let disk = &*(*(*hctx).queue).queuedata.cast::<Disk>();
        let record = record_of(request);
        let Some(entry) = disk.slot.entry() else {
            return nobody(disk, record);
        };
        let code = ((*request).cmd_flags & ((1 << bindings::REQ_OP_BITS) - 1)) as u8;
        if !calls::is_known_op(code) {
            return status::NOT_SUPPORTED as u8;
        }
        (*record).sector = (*request).__sector;
        (*record).bytes = (*request).__data_len;
        (*record).op = code;
        (*record).flags = to_flags((*request).cmd_flags);
        if let Some(told) = told {
            if let Some(commits) = disk.slot.commit() {
                (*record).flags |= flags::MORE;
                *told = Some(commits);
            }
        }
        (*record).tag = (*request).tag as u32;
        bindings::blk_mq_start_request(request);
        if disk.asks.load(Ordering::Relaxed) {
            (*record.cast::<Record>()).claimed = jiffies();
        }
        // Only now, so that less has to be kept beside the call of the block layer.
        let seated = disk.slot.whole(entry);
        if (*record).ownership.claim(seated.epoch) {
            (*record).flags |= flags::REPLAY;
        }
        drop(guard);
        // The gate argument: a filled slot's entry can be called here.
        let entry = core::mem::transmute::<*mut ffi::c_void, QueueRq>(seated.entry);
        match entry(seated.cookie, record) {
            status::OK => status::OK as u8,
            refused => not_taken(disk, record, seated.epoch, refused),
        }
    }
}

/// Takes a request back from a payload that has not taken it, and returns the block layer's status for it.
///
/// # Safety
///
/// `record` must be that of a request of the disk which is being dispatched, and which was handed to the payload of `epoch`.
#[cold]
unsafe fn not_taken(disk: &Disk, record: *mut Request, epoch: u64, refused: u32) -> u8 {
    // SAFETY: By the function's contract the record is there; as long as that epoch owns it, its flags are those of this dispatch.
    let given_back = unsafe {
        let replay = (*record).flags & flags::REPLAY != 0;
        (*record).ownership.give_back(epoch, replay && refused == status::RESOURCE)
    };
    if given_back.is_err() {
        // It has ended the request all the same; the block layer must not end it again.
        return status::OK as u8;
    }
    let status = status::to_kernel(refused);
    if status != status::RESOURCE as u8 {
        disk.errors.fetch_add(1, Ordering::Relaxed);
    }
    status
}

/// Fails a request because nobody serves, as a dead path does: whoever has another path takes that one.
///
/// # Safety
///
/// `record` must be that of a request of the disk which is being dispatched.
#[cold]
unsafe fn nobody(disk: &Disk, record: *mut Request) -> u8 {
    // A request that was taken back is no replay when its tag comes again.
    // SAFETY: By the function's contract the record is there.
    unsafe { (*record).ownership.free() };
    disk.errors.fetch_add(1, Ordering::Relaxed);
    status::TRANSPORT as u8
}

#[inline]
fn to_flags(cmd_flags: u32) -> u8 {
    const ANY: u32 =
        (1 << bindings::req_flag_bits___REQ_FUA) | (1 << bindings::req_flag_bits___REQ_NOUNMAP);
    if cmd_flags & ANY == 0 {
        return 0;
    }
    let ours = |bit: u32, flag: u8| if cmd_flags & (1 << bit) != 0 { flag } else { 0 };
    ours(bindings::req_flag_bits___REQ_FUA, flags::FUA)
        | ours(bindings::req_flag_bits___REQ_NOUNMAP, flags::NOUNMAP)
}

/// Asks the payload about a request that takes long; while the gate is closed nobody is asked, and the timer
/// starts again. Context: the timeout work.
///
/// # Safety
///
/// For the block layer only, which passes objects of a `Disk`.
pub(super) unsafe extern "C" fn timed_out(
    request: *mut bindings::request,
) -> bindings::blk_eh_timer_return {
    // SAFETY:
    // - The block layer passes a request of a `Disk`'s queue and holds it.
    // - The gate argument: on the read side, with the flag not set, the entry of a filled slot can be called.
    unsafe {
        let queue = (*request).q;
        let disk = &*(*queue).queuedata.cast::<Disk>();
        let record = record_of(request);
        let _guard = kernel::sync::rcu::read_lock();
        let closed = is_closed(queue);
        fence(Ordering::Acquire);
        match disk.slot.timeout() {
            Some(seated)
                if !closed && (*record).ownership.read() == (seated.epoch, Owner::Payload) =>
            {
                let entry = core::mem::transmute::<*mut ffi::c_void, QueueRq>(seated.entry);
                match entry(seated.cookie, record) {
                    timeout::HANDLED => bindings::blk_eh_timer_return_BLK_EH_DONE,
                    _ => bindings::blk_eh_timer_return_BLK_EH_RESET_TIMER,
                }
            }
            _ => bindings::blk_eh_timer_return_BLK_EH_RESET_TIMER,
        }
    }
}

/// Ends a request for `atom_request_end`: false when that epoch does not own it. Any context.
///
/// # Safety
///
/// `record` must be a record of one of our tag sets.
#[inline]
pub(super) unsafe fn end(record: *mut Request, epoch: u64, code: u32) -> bool {
    // SAFETY: By the function's contract: the memory exists as long as the device.
    let ownership: &Ownership = unsafe { &(*record).ownership };
    if ownership.end(epoch).is_err() {
        return false;
    }
    // SAFETY: Only the call that moved the request from owned to ended comes here, so it is ended once,
    // and until then it keeps its queue and the queue its disk.
    unsafe {
        let request: *mut bindings::request = (*record).rq.cast();
        let status = match code {
            // Nearly always.
            status::OK if queues::keep(request) => return true,
            status::OK => status::OK as u8,
            status::NOT_STARTED => {
                start_again(request, &*record);
                return true;
            }
            code => failed(request, code),
        };
        bindings::blk_mq_end_request(request, status);
    }
    true
}

/// Has a request dispatched again that its payload has not started. While the gate is closed it waits there. Any context.
///
/// # Safety
///
/// The request must be of a `Disk`, `record` its own, and this call the one that has moved it to *ended*.
#[cold]
unsafe fn start_again(request: *mut bindings::request, record: &Request) {
    super::HANDED_BACK.fetch_add(1, Ordering::Relaxed);
    record.ownership.again(record.flags & flags::REPLAY != 0);
    // SAFETY: By the function's contract: it is the block layer's from here on.
    unsafe { bindings::blk_mq_requeue_request(request, true) };
}

/// Counts a request that ends with an error, and returns the block layer's status for it.
///
/// # Safety
///
/// The request must be of a `Disk` and not ended yet.
#[cold]
unsafe fn failed(request: *mut bindings::request, code: u32) -> u8 {
    let status = status::at_end(code);
    if status != status::OK as u8 {
        // SAFETY: By the function's contract; the queue's data is the `Disk`.
        let disk = unsafe { &*(*(*request).q).queuedata.cast::<Disk>() };
        disk.errors.fetch_add(1, Ordering::Relaxed);
    }
    status
}

// `Seat` is named here so that the proof of `hand_over` has its two ends in one file: what a slot is filled
// with are entries of the type that is called.
const _: fn(&Slot, Seat, u64) = Slot::fill;
