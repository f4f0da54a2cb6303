// SPDX-License-Identifier: GPL-2.0

//! The hardware queues of a device: how many there are, which processor uses which, and what has ended on those for polled
//! I/O.

use core::ptr::{addr_of, addr_of_mut, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};

use kernel::prelude::*;
use kernel::{bindings, ffi};

use crate::abi::device::{feature, DeviceSpec};
use crate::abi::request::status;

/// Kinds of hardware queues of a device that has some for polled I/O: the kinds are numbers, and that one is the last.
const KINDS: u32 = bindings::hctx_type_HCTX_TYPE_POLL + 1;

/// What a spec asks for: kinds of hardware queues, and how many of all kinds together.
pub(super) fn wanted(spec: &DeviceSpec) -> (u32, u32) {
    // SAFETY: The kernel sets the number once, when it boots.
    let processors = unsafe { bindings::nr_cpu_ids };
    let queues = match spec.hw_queues {
        0 => processors,
        // The block layer itself makes no more of them, but only when there is one kind.
        queues => u32::from(queues).min(processors),
    };
    match spec.features & feature::POLLED {
        0 => (1, queues),
        _ => (KINDS, queues.saturating_mul(2)),
    }
}

/// Says which processor uses which hardware queue: of each kind that there is they share all. Context: process, while
/// the tag set is allocated.
///
/// # Safety
///
/// For the block layer only, which passes the tag set of a `Disk`.
pub(super) unsafe extern "C" fn map(set: *mut bindings::blk_mq_tag_set) {
    // SAFETY: By the function's contract the set is there, and nobody else uses it yet.
    let set = unsafe { &mut *set };
    let polled = set.nr_maps == KINDS;
    let each = if polled { set.nr_hw_queues / 2 } else { set.nr_hw_queues };
    for (kind, map) in (0..set.nr_maps).zip(set.map.iter_mut()) {
        match kind {
            // Reads use the same as everything else, which is what the block layer makes of none.
            bindings::hctx_type_HCTX_TYPE_READ => {
                map.nr_queues = 0;
                continue;
            }
            bindings::hctx_type_HCTX_TYPE_POLL => map.queue_offset = each,
            _ => map.queue_offset = 0,
        }
        map.nr_queues = each;
        // SAFETY: The map has room for all processors, and its queues are some of the set.
        unsafe { bindings::blk_mq_map_queues(map) };
    }
}

/// Polled requests of a hardware queue that the payload has ended, until whoever submitted them looks. Any processor adds
/// to it, whoever looks takes all: nobody takes one, so an address that comes again harms nobody.
#[repr(align(64))]
pub(super) struct Lane {
    last: AtomicPtr<bindings::request>,
}

impl Lane {
    /// One for each hardware queue for polled I/O that a spec asks for. Sleeps.
    pub(super) fn of(spec: &DeviceSpec) -> Result<KVec<Self>> {
        let (kinds, queues) = wanted(spec);
        let count = if kinds == KINDS { queues / 2 } else { 0 };
        let mut lanes = KVec::with_capacity(count as usize, GFP_KERNEL)?;
        for _ in 0..count {
            lanes.push(Self { last: AtomicPtr::new(null_mut()) }, GFP_KERNEL)?;
        }
        Ok(lanes)
    }

    /// Gives a new hardware queue its lane, if it is one for polled I/O. Those come behind the others, of which there are as
    /// many.
    pub(super) fn join(lanes: &[Self], hctx: &mut bindings::blk_mq_hw_ctx, index: u32) {
        let lane = (index as usize).checked_sub(lanes.len()).and_then(|index| lanes.get(index));
        hctx.driver_data = lane.map_or(null_mut(), |lane| addr_of!(*lane).cast_mut().cast());
    }
}

/// Where a request waits for the next one of its lane.
///
/// # Safety
///
/// The request must be of a `Disk` and nobody else's. This field is for requests on their way from the processor that has
/// ended them to another, which ours never are.
unsafe fn link(request: *mut bindings::request) -> *mut *mut bindings::request {
    // SAFETY: By the function's contract.
    unsafe { addr_of_mut!((*request).__bindgen_anon_2.ipi_list.next).cast() }
}

/// Keeps a request without an error for whoever polls. False: nobody polls for it, and it is the caller's. Any context.
///
/// # Safety
///
/// The request must be of a `Disk`, the caller's alone, and not ended yet.
#[inline]
pub(super) unsafe fn keep(request: *mut bindings::request) -> bool {
    // SAFETY: By the function's contract; the lanes are the disk's, which outlives its queue.
    unsafe {
        if (*request).cmd_flags & (1 << bindings::req_flag_bits___REQ_POLLED) == 0 {
            return false;
        }
        let Some(lane) = (*(*request).mq_hctx).driver_data.cast::<Lane>().as_ref() else {
            return false;
        };
        let mut last = lane.last.load(Ordering::Relaxed);
        loop {
            *link(request) = last;
            match lane.last.compare_exchange_weak(
                last,
                request,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => last = now,
            }
        }
    }
}

/// Ends all that is kept of a hardware queue, in the order in which it came, as one batch where that is possible. Returns how
/// many requests that were. Context: whoever polls; may not sleep.
///
/// # Safety
///
/// For the block layer only, which passes a hardware queue of a `Disk`, and a batch that is its caller's or null.
pub(super) unsafe extern "C" fn poll(
    hctx: *mut bindings::blk_mq_hw_ctx,
    batch: *mut bindings::io_comp_batch,
) -> ffi::c_int {
    // SAFETY:
    // - The lanes are the disk's, which outlives its queue.
    // - What was kept is ours from the moment on at which it was taken out of the lane.
    unsafe {
        let Some(lane) = (*hctx).driver_data.cast::<Lane>().as_ref() else { return 0 };
        if lane.last.load(Ordering::Relaxed).is_null() {
            return 0;
        }
        let mut left = lane.last.swap(null_mut(), Ordering::Acquire);
        let mut first = null_mut();
        while !left.is_null() {
            let before = *link(left);
            *link(left) = first;
            first = left;
            left = before;
        }
        let mut count: ffi::c_int = 0;
        while !first.is_null() {
            let request = first;
            first = *link(request);
            if !add(request, batch) {
                bindings::blk_mq_end_request(request, status::OK as u8);
            }
            count = count.saturating_add(1);
        }
        count
    }
}

/// Adds a request without an error to a batch that is to be ended, by the rules of `blk_mq_add_to_batch`
/// (`include/linux/blk-mq.h`), which is inline. False: it is still the caller's.
///
/// # Safety
///
/// As for [`keep`]; the batch must be the caller's, or null.
unsafe fn add(request: *mut bindings::request, batch: *mut bindings::io_comp_batch) -> bool {
    const SCHEDULED: u32 = 1 << bindings::rqf_flags___RQF_SCHED_TAGS;
    // SAFETY: By the function's contract.
    unsafe {
        let Some(batch) = batch.as_mut() else { return false };
        if (*request).rq_flags & SCHEDULED != 0 || (*request).end_io.is_some() {
            return false;
        }
        let ours: unsafe extern "C" fn(*mut bindings::io_comp_batch) =
            bindings::blk_mq_end_request_batch;
        match batch.complete {
            None => batch.complete = Some(ours),
            Some(other) if other as usize == ours as usize => {}
            Some(_) => return false,
        }
        // Who accounts for a request looks at its flags again: it may be said of all that it is wanted.
        batch.need_ts = true;
        super::dispatch::push(&mut batch.req_list, request);
    }
    true
}
