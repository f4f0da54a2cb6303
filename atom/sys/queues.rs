// SPDX-License-Identifier: GPL-2.0

//! The hardware queues of a device: how many there are, which processor uses which, and those for polled I/O.

use kernel::{bindings, ffi};

use crate::abi::device::{feature, DeviceSpec};

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

/// Looks for requests that have come to their end, and finds none: the payload ends a request at once, wherever it learns
/// of it, and whoever polls sees that by itself. Any context.
///
/// # Safety
///
/// For the block layer only.
pub(super) unsafe extern "C" fn poll(
    _hctx: *mut bindings::blk_mq_hw_ctx,
    _batch: *mut bindings::io_comp_batch,
) -> ffi::c_int {
    0
}
