// SPDX-License-Identifier: GPL-2.0

//! What the payload's files call of Atom, where there is no Atom: one store of pages for the only volume in memory.

use core::mem::offset_of;
use core::ptr::{addr_of_mut, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};

use kernel::prelude::*;
use kernel::types::Opaque;
use kernel::{bindings, ffi};

/// The store; null while there is none.
static STORE: AtomicPtr<Opaque<bindings::xarray>> = AtomicPtr::new(null_mut());

/// Stands in for `abi/src/calls.rs`: makes the store. Sleeps.
///
/// # Safety
///
/// `store` must be valid for a write.
#[no_mangle]
unsafe extern "C" fn atom_pages_create(_key: u64, store: *mut *mut ffi::c_void) -> i32 {
    let made = KBox::new(Opaque::<bindings::xarray>::uninit(), GFP_KERNEL);
    let Ok(made) = made else {
        return ENOMEM.to_errno();
    };
    let made = KBox::into_raw(made);
    // SAFETY: The memory is valid for writes and stays where it is; the rest by the contract of this function.
    unsafe {
        bindings::xa_init_flags(Opaque::cast_into(made), 0);
        store.write(Opaque::cast_into(made).cast());
    }
    STORE.store(made, Ordering::Release);
    0
}

/// Stands in for `abi/src/calls.rs`: nobody has left a store.
#[no_mangle]
extern "C" fn atom_pages_claim(_key: u64, _store: *mut *mut ffi::c_void) -> i32 {
    ENOENT.to_errno()
}

/// Stands in for `abi/src/calls.rs`: frees a page after a grace period.
///
/// # Safety
///
/// `page` must be a page of order 0 whose last reference is the caller's to give away.
#[no_mangle]
unsafe extern "C" fn atom_page_free(page: *mut ffi::c_void) -> i32 {
    let page: *mut bindings::page = page.cast();
    // SAFETY: The page is the caller's to give away, so nobody uses the union that holds the head.
    unsafe {
        bindings::call_rcu(addr_of_mut!((*page).__bindgen_anon_1.callback_head), Some(free_page))
    };
    0
}

/// Context: RCU callback, softirq.
///
/// # Safety
///
/// For RCU only, with a head that [`atom_page_free`] has queued.
unsafe extern "C" fn free_page(head: *mut bindings::callback_head) {
    let offset = offset_of!(bindings::page, __bindgen_anon_1);
    let page = head.wrapping_byte_sub(offset).cast();
    // SAFETY: The head is within a page that is ours to free.
    unsafe { bindings::__free_pages(page, 0) };
}

/// Stands in for `abi/src/calls.rs`: no request is ended this way here.
#[no_mangle]
extern "C" fn atom_request_end(_request: *mut ffi::c_void, _epoch: u64, _status: u32) -> i32 {
    EINVAL.to_errno()
}

/// Frees the store with its pages. Nobody uses it any more. Sleeps.
pub(crate) fn free() {
    let store = STORE.swap(null_mut(), Ordering::AcqRel);
    if store.is_null() {
        return;
    }
    let pages = Opaque::cast_into(store);
    let mut index = 0;
    // SAFETY: Nobody uses the store any more; each entry is a page whose reference it owns. The memory was a box.
    unsafe {
        // The module must not go before what RCU still calls of it.
        bindings::rcu_barrier();
        let mut page = bindings::xa_find(pages, &mut index, usize::MAX, bindings::XA_PRESENT);
        while !page.is_null() {
            bindings::__free_pages(page.cast(), 0);
            page = bindings::xa_find_after(pages, &mut index, usize::MAX, bindings::XA_PRESENT);
        }
        bindings::xa_destroy(pages);
        drop(KBox::from_raw(store));
    }
}
