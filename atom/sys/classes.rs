// SPDX-License-Identifier: GPL-2.0

//! What lockdep is told about the locks of a device.
//!
//! To lockdep a lock of one device is the same as that of any other, unless it has a class of its own. A volume lies on other
//! devices: its dispatches issue bios to them, and the end of a bio ends a request of the volume, each with a lock held that has
//! its like below. What can be no deadlock, because the device below knows nothing of the one above, would be reported as one.

use kernel::bindings;
use kernel::prelude::*;
use kernel::sync::LockClassKey;

/// The classes of a device's locks. They are registered as long as it exists.
#[pin_data]
pub(super) struct Classes {
    /// Of the locks of its flush queues: the end of a flush below, which has that one's, ends the flush of the volume.
    #[pin]
    flush: LockClassKey,
    /// Of the read side of dispatches that may sleep, on which bios are issued. That of a device below is waited for while its
    /// queue is frozen, as for another scheduler.
    #[pin]
    dispatch: LockClassKey,
    /// Of the lock of the scheduler, within which the read side is waited for.
    #[pin]
    elevator: LockClassKey,
}

impl Classes {
    /// Registers them. Sleeps, and so does letting go of them.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            flush <- LockClassKey::new_dynamic(),
            dispatch <- LockClassKey::new_dynamic(),
            elevator <- LockClassKey::new_dynamic(),
        })
    }

    /// For a new hardware queue.
    ///
    /// # Safety
    ///
    /// Nobody may use it yet, and it must go before the classes do.
    pub(super) unsafe fn of_queue(&self, hctx: *mut bindings::blk_mq_hw_ctx) {
        // SAFETY: By the function's contract.
        unsafe { bindings::blk_mq_hctx_set_fq_lock_class(hctx, self.flush.as_ptr()) };
    }

    /// For a new queue and the SRCU of its dispatches, if it has one.
    ///
    /// # Safety
    ///
    /// Nobody may use them yet, and they must go before the classes do.
    #[cfg_attr(not(CONFIG_DEBUG_LOCK_ALLOC), allow(unused_variables, clippy::unused_self))]
    pub(super) unsafe fn of_device(
        &self,
        queue: *mut bindings::request_queue,
        srcu: Option<*mut bindings::srcu_struct>,
    ) {
        // SAFETY: By the function's contract.
        #[cfg(CONFIG_DEBUG_LOCK_ALLOC)]
        unsafe {
            let elevator = &raw mut (*queue).elevator_lock.dep_map;
            set(elevator, c"atom elevator_lock", &self.elevator);
            if let Some(srcu) = srcu {
                set(&raw mut (*srcu).dep_map, c"atom dispatch", &self.dispatch);
            }
        }
    }
}

/// As `lockdep_set_class_and_name`.
///
/// # Safety
///
/// It must be that of a lock that nobody uses yet, and that goes before the class does.
#[cfg(CONFIG_DEBUG_LOCK_ALLOC)]
unsafe fn set(map: *mut bindings::lockdep_map, name: &'static CStr, class: &LockClassKey) {
    // SAFETY: By the function's contract. The name is a static, and the class is registered.
    unsafe {
        let (inner, outer) = ((*map).wait_type_inner, (*map).wait_type_outer);
        let (key, kind) = (class.as_ptr(), (*map).lock_type);
        bindings::lockdep_init_map_type(map, name.as_char_ptr(), key, 0, inner, outer, kind);
    }
}
