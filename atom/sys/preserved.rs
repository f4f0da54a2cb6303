// SPDX-License-Identifier: GPL-2.0

//! Kernel objects that outlive a payload: page stores, files, sockets. What releases them is Atom's code or
//! the kernel's.

use core::mem::offset_of;
use core::ptr::addr_of_mut;

use kernel::prelude::*;
use kernel::types::Opaque;
use kernel::{bindings, ffi};

use crate::abi::device::object;

/// An object in Atom's keeping. Dropping it releases it, which may sleep and take long.
pub(crate) enum Object {
    Pages(#[expect(dead_code, reason = "owned for its drop")] Pin<KBox<PageStore>>),
    Kernel(Reference),
}

/// A reference on a kernel object of one of the kinds of [`object`].
pub(crate) struct Reference {
    kind: u32,
    object: *mut ffi::c_void,
}

// SAFETY: The references may be dropped by any task.
unsafe impl Send for Reference {}

impl Object {
    /// Takes over the caller's reference, of a kind that Atom knows how to release.
    ///
    /// # Safety
    ///
    /// `object` must be of that kind, and the reference the caller's to give away.
    pub(super) unsafe fn new(kind: u32, object: *mut ffi::c_void) -> Result<Self> {
        match kind {
            object::FILE | object::SOCKET if !object.is_null() => {
                Ok(Self::Kernel(Reference { kind, object }))
            }
            _ => Err(EINVAL),
        }
    }

    /// Gives a payload's reference back to it; a page store, which is Atom's own, goes.
    pub(crate) fn give_back(self) {
        if let Self::Kernel(reference) = self {
            core::mem::forget(reference);
        }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // SAFETY: By the contract of `Object::new`, and the reference is dropped once.
        unsafe {
            match self.kind {
                object::FILE => bindings::fput(self.object.cast()),
                _ => bindings::sock_release(self.object.cast()),
            }
        }
    }
}

/// An xarray of pages, in Atom's memory.
#[pin_data(PinnedDrop)]
pub(crate) struct PageStore {
    #[pin]
    pages: Opaque<bindings::xarray>,
}

// SAFETY: The xarray has its own lock.
unsafe impl Send for PageStore {}

impl PageStore {
    pub(crate) fn new() -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            pin_init!(Self {
                pages <- Opaque::ffi_init(|slot: *mut bindings::xarray| {
                    // SAFETY: The slot is valid for writes and pinned.
                    unsafe { bindings::xa_init_flags(slot, 0) }
                }),
            }),
            GFP_KERNEL,
        )
    }

    /// Address of the `struct xarray`, valid as long as the store.
    pub(crate) fn address(&self) -> usize {
        self.pages.get() as usize
    }
}

#[pinned_drop]
impl PinnedDrop for PageStore {
    fn drop(self: Pin<&mut Self>) {
        let pages = self.pages.get();
        let mut index = 0;
        // SAFETY: Nobody uses the store any more; each entry is a page whose reference it owns.
        unsafe {
            let mut page = bindings::xa_find(pages, &mut index, usize::MAX, bindings::XA_PRESENT);
            while !page.is_null() {
                bindings::__free_pages(page.cast(), 0);
                // A kernel that is built to be preempted anywhere has no such function.
                #[cfg(any(not(CONFIG_PREEMPTION), CONFIG_PREEMPT_DYNAMIC))]
                bindings::__cond_resched();
                page = bindings::xa_find_after(pages, &mut index, usize::MAX, bindings::XA_PRESENT);
            }
            bindings::xa_destroy(pages);
        }
    }
}

/// Frees a page after a grace period.
///
/// # Safety
///
/// `page` must be a page of order 0 whose last reference is the caller's to give away.
pub(super) unsafe fn free_page_later(page: *mut bindings::page) {
    // SAFETY: The page is the caller's to give away, so nobody uses the union that holds the head.
    unsafe {
        bindings::call_rcu(addr_of_mut!((*page).__bindgen_anon_1.callback_head), Some(free_page))
    };
}

/// Context: RCU callback, softirq.
///
/// # Safety
///
/// For RCU only, with a head that `free_page_later` has queued.
unsafe extern "C" fn free_page(head: *mut bindings::callback_head) {
    let offset = offset_of!(bindings::page, __bindgen_anon_1);
    let page = head.wrapping_byte_sub(offset).cast();
    // SAFETY: `free_page_later` passed the head within a page that is ours to free.
    unsafe { bindings::__free_pages(page, 0) };
}
