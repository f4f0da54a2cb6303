// SPDX-License-Identifier: GPL-2.0

//! Requests and pages: the layer on the kernel for the I/O path. With `sys.rs` and `table.rs`
//! all `unsafe` code.
//!
//! Two arguments carry most of the proofs:
//!
//! - **Owned.** A record is the payload's from `queue_rq` until [`Io::end`], which takes the [`Io`] with
//!   it. Until then the block layer keeps the request, its bios and their pages.
//! - **Grace.** Whoever uses a page of a store is on the RCU read side, and Atom frees a page that was
//!   taken out only after a grace period that began then.

use core::ffi::c_void;
use core::marker::PhantomData;
use core::ptr::{null_mut, NonNull};

use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::rcu;

use crate::abi::calls;
use crate::abi::request::Request;
use crate::shape::PAGE_BYTES;
use crate::sys::epoch;

const _: () = assert!(PAGE_BYTES as usize == bindings::PAGE_SIZE);
// Indices of pages are 64 bits here and an `unsigned long` in the kernel.
const _: () = assert!(core::mem::size_of::<usize>() == core::mem::size_of::<u64>());

/// A request that the payload owns. Dropping it without [`Io::end`] is right only when `queue_rq` then
/// says that it has not taken the request.
pub(crate) struct Io {
    record: NonNull<Request>,
    rq: *mut bindings::request,
    /// First sector.
    pub(crate) sector: u64,
    /// Length in bytes.
    pub(crate) bytes: u32,
    /// One of [`crate::abi::request::op`].
    pub(crate) op: u8,
    /// Bits of [`crate::abi::request::flags`].
    pub(crate) flags: u8,
    /// Index of the hardware queue.
    pub(crate) hctx: u16,
}

#[cfg(payload_fault = "stuck")]
// SAFETY: A request may be ended on any CPU, and nobody else uses the parts of it that the payload uses.
unsafe impl Send for Io {}

impl Io {
    /// # Safety
    ///
    /// `request` must be a record that Atom has just handed to `queue_rq`.
    #[inline]
    pub(crate) unsafe fn new(request: *mut Request) -> Self {
        // SAFETY: *Owned*. The fields are copied, so that no reference outlives the end of the request.
        unsafe {
            Self {
                record: NonNull::new_unchecked(request),
                rq: (*request).rq.cast(),
                sector: (*request).sector,
                bytes: (*request).bytes,
                op: (*request).op,
                flags: (*request).flags,
                hctx: (*request).hctx,
            }
        }
    }

    /// Ends the request. Any context.
    #[inline]
    pub(crate) fn end(self, outcome: u32) {
        let epoch = epoch();
        // SAFETY: The record was handed to `queue_rq`; `self` is gone, so nobody touches it after this.
        let result = unsafe { calls::atom_request_end(self.record.as_ptr(), epoch, outcome) };
        if result != 0 {
            kernel::pr_err_once!("Atom refused the end of a request: error {}\n", result);
        }
    }

    /// Lets go of the request. What is left is the address of its record.
    #[cfg(any(payload_fault = "stuck", payload_client))]
    pub(crate) fn into_record(self) -> NonNull<Request> {
        self.record
    }

    /// The data of the request, from its start.
    #[inline]
    pub(crate) fn data(&self) -> Data<'_> {
        // SAFETY: *Owned*: the request is the payload's, so its bios stay as they are.
        unsafe { Data::of(self.rq) }
    }
}

/// Walks over the data of a request: its bios, their segments, and the pages of each segment.
///
/// INVARIANT: `bio` is null or a bio of the request, and `iter` a position within that bio.
pub(crate) struct Data<'a> {
    bio: *mut bindings::bio,
    iter: bindings::bvec_iter,
    _io: PhantomData<&'a ()>,
}

impl<'a> Data<'a> {
    /// The data of a request, from its start.
    ///
    /// # Safety
    ///
    /// The payload must own the request for as long as `'a`.
    #[inline]
    pub(crate) unsafe fn of(rq: *mut bindings::request) -> Self {
        // SAFETY: By the contract of this function its bios stay as they are.
        let bio = unsafe { (*rq).bio };
        // INVARIANT: It is the first bio of the request, and the position its start.
        let mut data = Self { bio, iter: bindings::bvec_iter::default(), _io: PhantomData };
        data.begin_bio();
        data
    }

    /// Goes on behind the next `bytes`, or to the end.
    #[cfg(payload_client)]
    pub(crate) fn skip(&mut self, mut bytes: u32) {
        while bytes != 0 && !self.bio.is_null() {
            if bytes >= self.iter.bi_size {
                bytes = bytes.saturating_sub(self.iter.bi_size);
                // SAFETY: By the invariant and *Owned*; the next bio of a request is one of it too.
                self.bio = unsafe { (*self.bio).bi_next };
                self.begin_bio();
                if self.bio.is_null() {
                    self.iter.bi_size = 0;
                }
                continue;
            }
            // SAFETY: By the invariant there are bytes left at `bi_idx`, so that segment exists (*Owned*).
            let segment = unsafe { *(*self.bio).bi_io_vec.add(self.iter.bi_idx as usize) };
            let room = segment.bv_len.saturating_sub(self.iter.bi_bvec_done);
            let step = bytes.min(room);
            bytes = bytes.saturating_sub(step);
            self.iter.bi_size = self.iter.bi_size.saturating_sub(step);
            self.iter.bi_bvec_done = self.iter.bi_bvec_done.saturating_add(step);
            if step == room {
                self.iter.bi_idx = self.iter.bi_idx.saturating_add(1);
                self.iter.bi_bvec_done = 0;
            }
        }
    }

    /// The bio and the position in it; `None` at the end.
    #[cfg(payload_client)]
    pub(crate) fn position(mut self) -> Option<(*mut bindings::bio, bindings::bvec_iter)> {
        while self.iter.bi_size == 0 {
            if self.bio.is_null() {
                return None;
            }
            // SAFETY: By the invariant and *Owned*; the next bio of a request is one of it too.
            self.bio = unsafe { (*self.bio).bi_next };
            self.begin_bio();
        }
        Some((self.bio, self.iter))
    }

    fn begin_bio(&mut self) {
        if !self.bio.is_null() {
            // SAFETY: By the invariant and *Owned*.
            self.iter = unsafe { (*self.bio).bi_iter };
        }
    }

    /// The next piece of at most `limit` bytes, all in one page; `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self, limit: u32) -> Option<Piece<'a>> {
        while self.iter.bi_size == 0 {
            if self.bio.is_null() {
                return None;
            }
            // SAFETY: By the invariant and *Owned*; the next bio of a request is one of it too.
            self.bio = unsafe { (*self.bio).bi_next };
            self.begin_bio();
        }
        // SAFETY: By the invariant there are bytes left at `bi_idx`, so that segment exists (*Owned*).
        let segment = unsafe { *(*self.bio).bi_io_vec.add(self.iter.bi_idx as usize) };
        let done = self.iter.bi_bvec_done;
        let left = segment.bv_len.checked_sub(done)?.min(self.iter.bi_size);
        let start = segment.bv_offset.checked_add(done)?;
        let offset = start % PAGE_BYTES;
        let bytes = left.min(PAGE_BYTES.checked_sub(offset)?).min(limit);
        if bytes == 0 {
            return None;
        }
        // SAFETY: The pages of a segment are contiguous in the kernel's array of pages, and the piece
        // begins within the segment.
        let page = unsafe { segment.bv_page.add((start / PAGE_BYTES) as usize) };
        self.iter.bi_size = self.iter.bi_size.checked_sub(bytes)?;
        self.iter.bi_bvec_done = done.checked_add(bytes)?;
        if self.iter.bi_bvec_done >= segment.bv_len {
            self.iter.bi_idx = self.iter.bi_idx.checked_add(1)?;
            self.iter.bi_bvec_done = 0;
        }
        Some(Piece { page, offset, bytes, _io: PhantomData })
    }
}

/// Some of the data of a request, within one page.
///
/// INVARIANT: `offset + bytes` is at most [`PAGE_BYTES`], and the page is held by the request.
pub(crate) struct Piece<'a> {
    page: *mut bindings::page,
    offset: u32,
    bytes: u32,
    _io: PhantomData<&'a ()>,
}

impl Piece<'_> {
    /// Its page, which the request holds.
    #[cfg(payload_client)]
    pub(crate) fn page(&self) -> *mut bindings::page {
        self.page
    }

    /// Where it begins in the page.
    #[cfg(payload_client)]
    pub(crate) fn offset(&self) -> u32 {
        self.offset
    }

    /// Its length.
    pub(crate) fn bytes(&self) -> u32 {
        self.bytes
    }
}

/// The pages of a volume: an xarray of Atom's, whose entries are pages of order 0 that it owns.
///
/// INVARIANT: The xarray exists for as long as the store, and its entries are pages.
pub(crate) struct Store(NonNull<bindings::xarray>);

// SAFETY: An xarray locks itself; its pages are only reached on the RCU read side.
unsafe impl Send for Store {}
// SAFETY: As above.
unsafe impl Sync for Store {}

/// A page could not be had now.
pub(crate) struct Shortage;

/// Without the reserves, which are for what frees memory: a shortage wakes those who do, and the request
/// is asked for again.
const SHORTLY: bindings::gfp_t = bindings::GFP_NOWAIT | bindings::__GFP_NOWARN;

impl Store {
    /// Creates an empty store under a key. Sleeps.
    pub(crate) fn create(key: u64) -> Result<Self> {
        let mut store = null_mut();
        // SAFETY: `store` is valid for the call.
        to_result(unsafe { calls::atom_pages_create(key, &mut store) })?;
        Self::new(store)
    }

    /// Claims the store that an earlier payload left under a key. Only within *adopt*.
    pub(crate) fn claim(key: u64) -> Result<Self> {
        let mut store = null_mut();
        // SAFETY: `store` is valid for the call.
        to_result(unsafe { calls::atom_pages_claim(key, &mut store) })?;
        Self::new(store)
    }

    fn new(store: *mut c_void) -> Result<Self> {
        // INVARIANT: Atom keeps the xarray until it is released, for which the volume has to be gone
        // first (`release_pages`), or until another payload has not claimed it, for which this one has
        // abandoned its volumes.
        NonNull::new(store.cast()).map(Self).ok_or(EINVAL)
    }

    /// The page at an index.
    #[inline]
    fn load(&self, _guard: &rcu::Guard, index: u64) -> Option<NonNull<bindings::page>> {
        // SAFETY: By the invariant the xarray exists; looking up takes the RCU read side by itself.
        NonNull::new(unsafe { bindings::xa_load(self.0.as_ptr(), index as usize) }.cast())
    }

    /// Adds a page of zeroes at an index. Returns the page that is there then, and whether it is new.
    fn add(
        &self,
        _guard: &rcu::Guard,
        index: u64,
    ) -> Result<(NonNull<bindings::page>, bool), Shortage> {
        // SAFETY: Has no precondition: the flags do not let it sleep.
        let page = unsafe { bindings::alloc_pages(SHORTLY | bindings::__GFP_ZERO, 0) };
        let page = NonNull::new(page).ok_or(Shortage)?;
        let xarray = self.0.as_ptr();
        // SAFETY:
        // - By the invariant the xarray exists.
        // - Its lock is held around the exchange, and is taken in process context only.
        // - The page's only reference goes to the store, if the exchange puts it there.
        let before = unsafe {
            bindings::xa_lock(xarray);
            let entry = page.as_ptr().cast();
            let before = bindings::__xa_cmpxchg(xarray, index as usize, null_mut(), entry, SHORTLY);
            bindings::xa_unlock(xarray);
            before
        };
        let Some(before) = NonNull::new(before) else {
            return Ok((page, true));
        };
        // SAFETY: The page did not go into the store, so its only reference is still here.
        unsafe { bindings::__free_pages(page.as_ptr(), 0) };
        // SAFETY: Has no precondition: looks at the value of the pointer only.
        if unsafe { bindings::xa_err(before.as_ptr()) } != 0 {
            return Err(Shortage);
        }
        // Another writer came first. Its page was in the store while the guard was held.
        Ok((before.cast(), false))
    }

    /// Fills a piece of a read from a place in a page. An absent page reads as zeroes.
    #[inline]
    pub(crate) fn read(&self, guard: &rcu::Guard, index: u64, offset: u32, piece: &Piece<'_>) {
        let bytes = clamp(offset, piece.bytes);
        let page = self.load(guard, index);
        // SAFETY:
        // - By its invariant the piece is within its page, which the request holds.
        // - `clamp` keeps the place within the store's page, which the guard keeps (*Grace*).
        // - A store's page is never part of a request, so the two do not overlap.
        unsafe {
            match page {
                Some(page) => copy(page.as_ptr(), offset, piece.page, piece.offset, bytes),
                None => fill_zero(piece.page, piece.offset, bytes),
            }
        }
    }

    /// Writes a piece to a place in a page, which is added if it is absent. Returns whether it was.
    #[inline]
    pub(crate) fn write(
        &self,
        guard: &rcu::Guard,
        index: u64,
        offset: u32,
        piece: &Piece<'_>,
    ) -> Result<bool, Shortage> {
        let bytes = clamp(offset, piece.bytes);
        let (page, added) = match self.load(guard, index) {
            Some(page) => (page, false),
            None => self.add(guard, index)?,
        };
        // SAFETY: As in `read`, with source and target exchanged.
        unsafe { copy(piece.page, piece.offset, page.as_ptr(), offset, bytes) };
        Ok(added)
    }

    /// Fills a place in a page with zeroes, if the page is there.
    pub(crate) fn zero(&self, guard: &rcu::Guard, index: u64, offset: u32, bytes: u32) {
        if let Some(page) = self.load(guard, index) {
            // SAFETY: `clamp` keeps the place within the page, which the guard keeps (*Grace*).
            unsafe { fill_zero(page.as_ptr(), offset, clamp(offset, bytes)) };
        }
    }

    /// The first index from `from` to `last` that has a page.
    pub(crate) fn next(&self, _guard: &rcu::Guard, from: u64, last: u64) -> Option<u64> {
        let mut index = from as usize;
        // SAFETY: By the invariant the xarray exists, and `index` is valid for the call.
        let found = unsafe {
            bindings::xa_find(self.0.as_ptr(), &mut index, last as usize, bindings::XA_PRESENT)
        };
        (!found.is_null()).then_some(index as u64)
    }

    /// How many pages there are. Takes as long as there are pages.
    pub(crate) fn count(&self) -> u64 {
        let mut pages = 0u64;
        let mut from = Some(0);
        while let Some(found) = from.and_then(|from| self.next(&rcu::read_lock(), from, u64::MAX)) {
            pages = pages.saturating_add(1);
            from = found.checked_add(1);
        }
        pages
    }

    /// Takes a page out and has it freed once nobody reads it any more. Returns whether there was one.
    pub(crate) fn remove(&self, _guard: &rcu::Guard, index: u64) -> bool {
        // SAFETY: By the invariant the xarray exists; its lock is taken in process context only.
        let page = unsafe { bindings::xa_erase(self.0.as_ptr(), index as usize) };
        if page.is_null() {
            return false;
        }
        // SAFETY: By the invariant it is a page, which is in no store any more; its reference was the
        // store's and is given away here.
        let result = unsafe { calls::atom_page_free(page) };
        if result != 0 {
            kernel::pr_err_once!("Atom did not take a page back: error {}\n", result);
        }
        true
    }
}

/// At most so many bytes as are left in a page behind `offset`.
fn clamp(offset: u32, bytes: u32) -> u32 {
    bytes.min(PAGE_BYTES.saturating_sub(offset))
}

/// Copies within two mapped pages.
///
/// Somebody in user space may write to the pages of a request meanwhile. As with `memcpy` everywhere in
/// the block layer, the bytes are then undefined and nothing else is.
///
/// # Safety
///
/// Both pages must stay, both ranges must lie within their page, and they must not overlap.
#[inline]
unsafe fn copy(
    from: *mut bindings::page,
    from_offset: u32,
    to: *mut bindings::page,
    to_offset: u32,
    bytes: u32,
) {
    // SAFETY: By the contract of this function. The mappings are undone in reverse order.
    unsafe {
        let source = bindings::kmap_local_page(from).cast::<u8>();
        let target = bindings::kmap_local_page(to).cast::<u8>();
        core::ptr::copy_nonoverlapping(
            source.add(from_offset as usize),
            target.add(to_offset as usize),
            bytes as usize,
        );
        bindings::kunmap_local(target.cast());
        bindings::kunmap_local(source.cast());
    }
}

/// Fills a range of a mapped page with zeroes.
///
/// # Safety
///
/// The page must stay, and the range must lie within it.
#[inline]
unsafe fn fill_zero(page: *mut bindings::page, offset: u32, bytes: u32) {
    // SAFETY: By the contract of this function.
    unsafe {
        let target = bindings::kmap_local_page(page).cast::<u8>();
        core::ptr::write_bytes(target.add(offset as usize), 0, bytes as usize);
        bindings::kunmap_local(target.cast());
    }
}
