// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The functions of Atom that a payload may call: all of them.
//!
//! Each but [`atom_bio_end`] returns 0 or a negative errno of the kernel. *Process context* means that it may sleep and
//! must not be called with a spinlock held or from `queue_rq`, also not from one that may sleep.

use core::ffi::c_void;

use super::device::DeviceSpec;
use super::request::Request;
use super::table::PayloadTable;
use super::text::Text;

/// The device of an event that is not about a device.
pub const NO_DEVICE: u32 = u32::MAX;

extern "C" {
    /// Offers the payload to Atom. Returns its identity, greater than zero. Process context; called
    /// from the module's init, as the last step of it that can fail: the kernel frees a module whose init
    /// fails without asking anybody. Nothing of the payload is called before its init has ended.
    ///
    /// Errors: `-EPROTO` when it was refused, also because its version is registered already (the kernel
    /// log and the status say why), `-ENOMEM`.
    ///
    /// # Safety
    ///
    /// `table` must stay valid and unchanged until `atom_payload_unregister` has returned.
    pub fn atom_payload_register(table: *const PayloadTable) -> i32;

    /// Takes the offer back. Process context, sleeps; called from the module's exit, before anything that the
    /// payload's operations need is given up. The kernel runs the exit when Atom holds no reference on the module. When
    /// that is overruled (`rmmod -f`), the call returns when Atom has none any more: the payload serves on until then.
    /// Errors: `-ENOENT`.
    pub fn atom_payload_unregister(id: i32) -> i32;

    /// Creates `/dev/atomN` and adds it to the system; requests for it can arrive before this
    /// returns. Its partition table is not read here but when it is opened first. Process context, only within
    /// *command*. N is written to `id`.
    ///
    /// Errors: `-EINVAL` for a spec outside the limits, `-ENOMEM`, `-ENOSPC` when all numbers are
    /// taken, and those of the kernel's `device_add_disk`.
    ///
    /// # Safety
    ///
    /// Both pointers must be valid for the call.
    pub fn atom_device_create(spec: *const DeviceSpec, cookie: u64, id: *mut u32) -> i32;

    /// Removes a device. Waits for its requests. Process context, only within *command*.
    /// Errors: `-ENOENT`, `-EBUSY` while somebody has it open.
    pub fn atom_device_destroy(id: u32) -> i32;

    /// Takes a device over: its requests come with `cookie` once the gate opens. Process context,
    /// only within *adopt*; since 1.3 also within *adopt_ahead*. When *adopt* fails Atom forgets the binding by itself.
    /// Errors: `-ENOENT`, `-EEXIST` for a second binding, `-EINVAL` outside of these.
    pub fn atom_device_bind(id: u32, cookie: u64) -> i32;

    /// Ends a request that the payload of `epoch` owns with one of [`super::request::status`].
    /// Any context, also within `queue_rq`. After it the record must not be touched.
    ///
    /// Errors: `-ESTALE` when that epoch does not own the request: the call has changed nothing.
    ///
    /// # Safety
    ///
    /// `request` must be a record that was handed to the caller's `queue_rq`.
    pub fn atom_request_end(request: *mut Request, epoch: u64, status: u32) -> i32;

    /// Creates an empty page store under `key` and writes its `struct xarray *` to `store`. Each entry
    /// is a `struct page *` of order 0 whose reference the store owns; the index is the payload's.
    /// The payload uses the store with the kernel's xarray functions while it is live, and hands it on
    /// by not releasing it. Process context. Errors: `-EEXIST`, `-ENOMEM`.
    ///
    /// # Safety
    ///
    /// `store` must be valid for the call.
    pub fn atom_pages_create(key: u64, store: *mut *mut c_void) -> i32;

    /// Claims the store that an earlier payload left under `key`. Only within *adopt*, since 1.3 also within
    /// *adopt_ahead*, where it must not be used yet; what no payload claims is released once the switch is final.
    /// When the handoff fails Atom forgets the claim by itself.
    /// Errors: `-ENOENT`, `-EEXIST` for a second claim, `-EINVAL` outside of these.
    ///
    /// # Safety
    ///
    /// `store` must be valid for the call.
    pub fn atom_pages_claim(key: u64, store: *mut *mut c_void) -> i32;

    /// Frees a store with all its pages. No request may use it any more. Process context.
    /// Errors: `-ENOENT`.
    pub fn atom_pages_release(key: u64) -> i32;

    /// Frees a page that the payload has taken out of a store, once no CPU can still be reading it
    /// under RCU. Any context. The callback that frees it is Atom's, so the payload may be gone by then.
    ///
    /// # Safety
    ///
    /// `page` must be a `struct page *` of order 0 whose last reference is the caller's to give away,
    /// and no entry of any store.
    pub fn atom_page_free(page: *mut c_void) -> i32;

    /// Since 1.1. Has Atom change a device to what `spec` says: capacity (only more while it is open), limits
    /// (not a larger logical block while it is open), write cache, FUA, read-only. `hw_queues` and
    /// `queue_depth` must be 0 or as they are. Process context, only within *adopt*, where it takes effect
    /// after the gate has opened and before *resume*, and within *command*, where it does at once.
    /// Until then the device is used by its old shape, which the payload goes on serving.
    /// When *adopt* fails Atom forgets the change by itself.
    ///
    /// Errors: `-ENOENT`, `-EINVAL` for a spec outside the limits or outside of *adopt* and *command*,
    /// `-EBUSY` for a change that would break whoever has the device open.
    ///
    /// # Safety
    ///
    /// `spec` must be valid for the call.
    pub fn atom_device_change(id: u32, spec: *const DeviceSpec) -> i32;

    /// Since 1.1. Keeps an image for the day on which the payload cannot be asked any more: copies `bytes` from
    /// `image`. Only the last one counts, and only until devices come or go. The image of an *adopt* counts
    /// as the first. Process context, by the live payload.
    ///
    /// Errors: `-EINVAL` for what is no image or has a schema that the payload does not write,
    /// `-EPERM` for a payload that is not live, `-ENOMEM`.
    ///
    /// # Safety
    ///
    /// `image` must be valid for reads of `bytes`.
    pub fn atom_checkpoint(id: i32, image: *const u8, bytes: u64) -> i32;

    /// Since 1.1. Gives Atom a reference on a kernel object, to be found again under its key by a later payload:
    /// `kind` is one of [`super::device::object`]. The live payload uses the object as before. Process
    /// context. Errors: `-EEXIST`, `-EINVAL` for an unknown kind or no object, `-ENOMEM`, `-EBUSY` while a handoff
    /// has the gates closed, for everybody but the operations of that handoff; the reference is then still the
    /// caller's.
    ///
    /// # Safety
    ///
    /// `object` must be of that kind and the reference the caller's to give away. No callback, holder
    /// or private pointer in it may lead into the payload once it is abandoned.
    pub fn atom_object_preserve(key: u64, kind: u32, object: *mut c_void) -> i32;

    /// Since 1.1. Claims an object that an earlier payload left, and writes it to `object`. Only within *adopt*; what
    /// no payload claims is released once the switch is final. When *adopt* fails Atom forgets the claim
    /// by itself. Errors: `-ENOENT`, also for another kind, `-EEXIST` for a second claim, `-EINVAL`
    /// outside of *adopt*.
    ///
    /// # Safety
    ///
    /// `object` must be valid for the call.
    pub fn atom_object_claim(key: u64, kind: u32, object: *mut *mut c_void) -> i32;

    /// Since 1.1. Releases an object: a file is put, a socket closed. The payload uses it no more. Process context.
    /// Errors: `-ENOENT`.
    pub fn atom_object_release(key: u64, kind: u32) -> i32;

    /// Since 1.2. The end of a bio of the payload's, to be set as its `bi_end_io` and never called by the
    /// payload: calls [`super::bio::BioEnd::end`] on the RCU read side. Returns nothing, because that is what
    /// the kernel calls. Any context.
    ///
    /// # Safety
    ///
    /// `bio` must be a `struct bio *` whose `bi_private` points to a [`super::bio::BioEnd`].
    pub fn atom_bio_end(bio: *mut c_void);

    /// Since 1.2. Tells everybody who listens to Atom's events of one of the payload `id`, which must be
    /// registered: about the device `device`, or about none with [`NO_DEVICE`]. It is for people and scripts; the
    /// text is one line. Never waits for I/O. Process context. Events that could come in a stream the payload
    /// limits in rate by itself. Errors: `-ENOENT` for no such payload or device, `-EINVAL` for an empty text.
    ///
    /// # Safety
    ///
    /// `text` must be valid for reads.
    pub fn atom_event(id: i32, device: u32, text: *const Text) -> i32;
}
