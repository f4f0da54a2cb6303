// SPDX-License-Identifier: GPL-2.0

//! Other block devices of the machine: opening them, asking them for I/O, and the end of that.
//!
//! A part of a request becomes bios of its own that share the pages of the request's: nothing is copied.
//! They come from a reserve, without waiting where requests are dispatched; what cannot be issued there is
//! left to a task of its own, which may wait: its bios come back by themselves, because the task waits for
//! nothing else.
//!
//! Arguments that carry most of the proofs:
//!
//! - **Owned.** As in `flight.rs`: while a part of it is being carried out, a request and its bios stay.
//! - **Counted.** The flight of a part that has bios is given away, and its word counts them and whoever
//!   issues them. Who counts it down to nothing has the flight.
//! - **Open.** A [`Device`] is open, and so its `struct block_device` there, until it is released with Atom, for
//!   which no request may be carried out on it any more, or until another payload has it.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::mem::size_of;
use core::ptr::{null, null_mut, NonNull};
use core::sync::atomic::{compiler_fence, AtomicPtr, Ordering};

use kernel::bindings;
use kernel::error::{from_err_ptr, to_result};
use kernel::prelude::*;
use kernel::str::{CStr, CStrExt, CString};

use crate::abi::bio::BioEnd;
use crate::abi::calls;
use crate::abi::device::{feature, object};
use crate::abi::request::{op, status, Request};
use crate::composed::Composed;
use crate::flight::{Context, Flight, FlightStack};
use crate::limits::Facts;

// `BLK_OPEN_*`, `BLK_FEAT_*`, `GFP_NOIO` and `FMODE_WRITE`, which the kernel crate does not bind
// (`include/linux/blkdev.h`, `include/linux/gfp_types.h`, `include/linux/fs.h`).
const OPEN_READ: bindings::blk_mode_t = 1 << 0;
const OPEN_WRITE: bindings::blk_mode_t = 1 << 1;
const MODE_WRITE: bindings::fmode_t = 1 << 1;
const FEATURE_WRITE_CACHE: u32 = 1 << 0;
const FEATURE_FUA: u32 = 1 << 1;
const FEATURE_ROTATIONAL: u32 = 1 << 2;
const FEATURE_ZONED: u32 = 1 << 10;

/// Does not wait for anything, and says nothing when it gets nothing.
const AT_ONCE: bindings::gfp_t = bindings::GFP_NOWAIT | bindings::__GFP_NOWARN;
/// Waits, but not for I/O.
const WAITING: bindings::gfp_t =
    1 << bindings::___GFP_DIRECT_RECLAIM_BIT | 1 << bindings::___GFP_KSWAPD_RECLAIM_BIT;

/// Bios in reserve for all volumes together. One is enough to go on.
const RESERVE: u32 = 64;

/// The flags of a request's bio that those for a target keep. The others are for the request alone, or
/// said by the request itself.
const KEPT_FLAGS: u32 = 1 << bindings::req_flag_bits___REQ_SYNC
    | 1 << bindings::req_flag_bits___REQ_META
    | 1 << bindings::req_flag_bits___REQ_PRIO
    | 1 << bindings::req_flag_bits___REQ_IDLE
    | 1 << bindings::req_flag_bits___REQ_RAHEAD
    | 1 << bindings::req_flag_bits___REQ_BACKGROUND
    | 1 << bindings::req_flag_bits___REQ_SWAP;

/// What lies before each bio.
#[repr(C)]
struct Front {
    end: BioEnd,
    request: NonNull<Request>,
}

/// The reserve of bios, and the task for what cannot be issued where it came from.
struct Pool {
    bios: UnsafeCell<bindings::bio_set>,
    work: UnsafeCell<bindings::work_struct>,
    /// Null while there is no pool. Changed by `table::TABLE_OWNER`.
    queue: AtomicPtr<bindings::workqueue_struct>,
    waiting: FlightStack,
}

// SAFETY: Reserve and work have their own locks; they are made and unmade while nothing uses them.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool {
    bios: UnsafeCell::new(pin_init::zeroed()),
    work: UnsafeCell::new(pin_init::zeroed()),
    queue: AtomicPtr::new(null_mut()),
    waiting: FlightStack::new(),
};

/// Makes reserve and task, once. Only the holder of `table::TABLE_OWNER`. Sleeps.
pub(crate) fn prepare() -> Result {
    if !POOL.queue.load(Ordering::Acquire).is_null() {
        return Ok(());
    }
    // SAFETY:
    // - There is no pool, so nothing uses reserve and work, and only one task is here.
    // - The name is a string of C's without a format in it.
    let queue = unsafe {
        POOL.bios.get().write(pin_init::zeroed());
        to_result(bindings::bioset_init(POOL.bios.get(), RESERVE, size_of::<Front>() as u32, 0))?;
        bindings::init_work_with_key(
            POOL.work.get(),
            Some(run),
            false,
            c"atom-bdev".as_char_ptr(),
            kernel::static_lock_class!().as_ptr(),
        );
        let flags = bindings::wq_flags_WQ_UNBOUND
            | bindings::wq_flags_WQ_MEM_RECLAIM
            | bindings::wq_flags_WQ_HIGHPRI;
        bindings::alloc_workqueue_noprof(c"atom-bdev".as_char_ptr(), flags, 1)
    };
    if queue.is_null() {
        // SAFETY: The reserve was made just now.
        unsafe { bindings::bioset_exit(POOL.bios.get()) };
        return Err(ENOMEM);
    }
    POOL.queue.store(queue, Ordering::Release);
    Ok(())
}

/// Inverse of [`prepare`], also without it. Only the holder of `table::TABLE_OWNER`, when no request is
/// owned and a grace period has passed since the last one was. Sleeps.
pub(crate) fn unprepare() {
    let queue = POOL.queue.swap(null_mut(), Ordering::AcqRel);
    if queue.is_null() {
        return;
    }
    // SAFETY: By the contract of this function no bio is out and nothing is left to the task. Afterwards
    // nothing of it runs.
    unsafe {
        bindings::destroy_workqueue(queue);
        bindings::bioset_exit(POOL.bios.get());
    }
}

/// Leaves a flight to the task. Any context.
pub(crate) fn later(flight: Flight) {
    POOL.waiting.push(flight);
    let queue = POOL.queue.load(Ordering::Acquire);
    if !queue.is_null() {
        // SAFETY: A queue that is there is alive, because it goes only when no request is owned.
        unsafe {
            let anywhere = bindings::wq_misc_consts_WORK_CPU_UNBOUND as i32;
            bindings::queue_work_on(anywhere, queue, POOL.work.get());
        }
    }
}

/// The task: carries out what was left to it.
///
/// # Safety
///
/// Only the kernel's work queue may call it.
unsafe extern "C" fn run(_work: *mut bindings::work_struct) {
    let mut flights = POOL.waiting.take();
    let short = together(|| {
        let mut short = false;
        while let Some(flight) = flights.pop_front() {
            if let Err(flight) = Composed::carry_on(flight) {
                POOL.waiting.push(flight);
                short = true;
            }
        }
        short
    });
    if short {
        // Memory is short, and whoever frees it was woken.
        // SAFETY: In a task.
        unsafe { bindings::fsleep(1000) };
        let queue = POOL.queue.load(Ordering::Acquire);
        // SAFETY: As in `later`.
        unsafe {
            let anywhere = bindings::wq_misc_consts_WORK_CPU_UNBOUND as i32;
            bindings::queue_work_on(anywhere, queue, POOL.work.get());
        }
    }
}

/// A block device that is open for one target alone.
///
/// INVARIANT: *Open*; Atom has the reference on the file, under `key`.
pub(crate) struct Device {
    bdev: NonNull<bindings::block_device>,
    key: u64,
    read_only: bool,
}

// SAFETY: Files and block devices may be used from all threads.
unsafe impl Send for Device {}
// SAFETY: As above.
unsafe impl Sync for Device {}

/// Why a device cannot be a target.
pub(crate) enum Unfit {
    /// It is one of Atom's own.
    Atom,
    /// Its zones can only be written from start to end.
    Zoned,
    /// It cannot be opened, or Atom does not keep it.
    Error(Error),
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Device {
    /// Opens a device for itself alone and gives it to Atom under `key`. Sleeps.
    pub(crate) fn open(path: &str, key: u64) -> Result<Self, Unfit> {
        let path = CString::try_from_fmt(fmt!("{path}"))?;
        let writable = open(&path, OPEN_READ | OPEN_WRITE, key);
        let (file, read_only) = match writable {
            Err(error) if error == EROFS || error == EACCES => (open(&path, OPEN_READ, key)?, true),
            opened => (opened?, false),
        };
        // SAFETY: The file is open.
        let bdev = unsafe { NonNull::new(bindings::file_bdev(file.as_ptr())) };
        let fit = bdev.ok_or(Unfit::Error(EINVAL)).and_then(|bdev| {
            // SAFETY: The file is open, so device, disk and queue are there.
            unsafe { fitness(bdev) }?;
            // SAFETY: It is a file whose reference is ours. Its holder is a number and has no operations, so
            // nothing in it leads into the payload.
            let kept =
                unsafe { calls::atom_object_preserve(key, object::FILE, file.as_ptr().cast()) };
            to_result(kept)?;
            Ok(bdev)
        });
        match fit {
            // INVARIANT: Atom has it now.
            Ok(bdev) => Ok(Self { bdev, key, read_only }),
            Err(unfit) => {
                // SAFETY: The reference is still ours.
                unsafe { bindings::bdev_fput(file.as_ptr()) };
                Err(unfit)
            }
        }
    }

    /// Claims the device that an earlier payload has left under `key`. Only within *adopt*.
    pub(crate) fn claim(key: u64) -> Result<Self> {
        let mut found = null_mut();
        // SAFETY: `found` is valid for the call.
        to_result(unsafe { calls::atom_object_claim(key, object::FILE, &mut found) })?;
        let file = NonNull::new(found.cast::<bindings::file>()).ok_or(EINVAL)?;
        // SAFETY: Atom has kept the file open. An earlier payload has left it here, so it is a block device.
        let (bdev, mode) = unsafe { (bindings::file_bdev(file.as_ptr()), (*file.as_ptr()).f_mode) };
        let bdev = NonNull::new(bdev).ok_or(EINVAL)?;
        // INVARIANT: Atom has it until another payload claims it.
        Ok(Self { bdev, key, read_only: mode & MODE_WRITE == 0 })
    }

    /// Has Atom close it. No request may be carried out on it any more. Sleeps.
    pub(crate) fn release(&self) -> Result {
        // SAFETY: Has no precondition; by the contract of this function nobody uses it.
        to_result(unsafe { calls::atom_object_release(self.key, object::FILE) })
    }

    /// Its size now, in sectors of 512 bytes.
    pub(crate) fn sectors(&self) -> u64 {
        // SAFETY: *Open*. The size is a number that may change at any time.
        unsafe { (&raw const (*self.bdev.as_ptr()).bd_nr_sectors).read_volatile() }
    }

    /// What it can do now.
    pub(crate) fn facts(&self) -> Facts {
        // SAFETY: *Open*: the queue is there. Limits are numbers that may change at any time.
        let (limits, read_only, takes_bios) = unsafe {
            let bdev = self.bdev.as_ptr();
            let takes_bios = (*(*(*bdev).bd_disk).fops).submit_bio.is_some();
            (&(*(*bdev).bd_queue).limits, is_read_only(self.bdev), takes_bios)
        };
        let flag = |from: u32, to: u32| if limits.features & from != 0 { to } else { 0 };
        Facts {
            sectors: self.sectors(),
            logical_block_bytes: limits.logical_block_size,
            physical_block_bytes: limits.physical_block_size,
            io_min_bytes: limits.io_min,
            io_opt_bytes: limits.io_opt,
            // Who takes bios has no requests that could be too long; what it says then is a default (255 sectors).
            max_sectors: if takes_bios { 0 } else { limits.max_sectors },
            discard_granularity_bytes: match limits.max_discard_sectors {
                0 => 0,
                _ => limits.discard_granularity.max(limits.logical_block_size),
            },
            max_discard_sectors: limits.max_discard_sectors,
            max_write_zeroes_sectors: limits.max_write_zeroes_sectors,
            dma_alignment_mask: limits.dma_alignment,
            features: flag(FEATURE_WRITE_CACHE, feature::WRITE_CACHE)
                | flag(FEATURE_FUA, feature::FUA)
                | flag(FEATURE_ROTATIONAL, feature::ROTATIONAL)
                | if self.read_only || read_only { feature::READ_ONLY } else { 0 },
        }
    }

    /// Has the device carry out the part of a flight.
    pub(crate) fn submit(&self, flight: Flight, context: Context) {
        let issued = match context {
            Context::Together => self.issue(flight),
            Context::MaySleep if may_submit(&flight) => {
                let _apart = Apart::enter();
                self.issue(flight)
            }
            _ => Err(flight),
        };
        if let Err(flight) = issued {
            later(flight);
        }
    }

    /// The same in the task, which waits for bios: one after the other, so that one in reserve is enough.
    pub(crate) fn submit_waiting(&self, flight: Flight) {
        flight.word().store(1, Ordering::Relaxed);
        let raw = flight.into_raw();
        // SAFETY: *Counted*: this task is counted, so the flight stays until `one_less`; it is looked at only.
        let flight = unsafe { core::mem::ManuallyDrop::new(Flight::from_raw(raw)) };
        let mut cursor = Cursor::default();
        let outcome = loop {
            // SAFETY: In a task that may wait, and no bio is kept back meanwhile.
            match unsafe { self.next_bio(&flight, &mut cursor, WAITING) } {
                Next::Bio(bio) => {
                    flight.word().fetch_add(1, Ordering::Relaxed);
                    // The I/O was accounted for with the request's own bios.
                    // SAFETY: The bio is complete, and is issued once.
                    unsafe { bindings::submit_bio_noacct(bio.as_ptr()) };
                }
                Next::End if cursor.at == flight.bytes() => break status::OK,
                Next::End | Next::Short => break status::IO,
            }
        };
        // SAFETY: *Counted*: this task's own count.
        unsafe { one_less(raw, outcome) };
    }

    /// Issues all bios of a part, or none when they cannot be had at once.
    fn issue(&self, flight: Flight) -> Result<(), Flight> {
        let mut cursor = Cursor::default();
        let mut first: *mut bindings::bio = null_mut();
        let mut last: *mut bindings::bio = null_mut();
        let mut count = 0u64;
        let short = loop {
            // SAFETY: Nothing is waited for.
            match unsafe { self.next_bio(&flight, &mut cursor, AT_ONCE) } {
                Next::Bio(bio) => {
                    match NonNull::new(last) {
                        None => first = bio.as_ptr(),
                        // SAFETY: It was made above and is not issued yet, so its link is free.
                        Some(last) => unsafe { (*last.as_ptr()).bi_next = bio.as_ptr() },
                    }
                    last = bio.as_ptr();
                    count = count.saturating_add(1);
                }
                Next::End => break false,
                Next::Short => break true,
            }
        };
        if short || cursor.at != flight.bytes() || count == 0 {
            // SAFETY: They were made above and not issued.
            unsafe { each(first, |bio| bindings::bio_put(bio)) };
            if short {
                return Err(flight);
            }
            // Less data than the request says.
            flight.finish(status::IO);
            return Ok(());
        }
        flight.word().store(count, Ordering::Release);
        // The bios have it now.
        let _ = flight.into_raw();
        // The I/O was accounted for with the request's own bios.
        // SAFETY: They are complete, and each is issued once.
        let hand_over = || unsafe { each(first, |bio| bindings::submit_bio_noacct(bio)) };
        match count {
            1 => hand_over(),
            // The block layer has made one request of many bios, and the device below may do so as well. A long request
            // comes alone, because the block layer does not wait for others behind it.
            _ => plugged(hand_over),
        }
        Ok(())
    }

    /// The bio for what comes next of a part.
    ///
    /// # Safety
    ///
    /// The context must allow what `gfp` says. The flight must stay for as long as the bio.
    unsafe fn next_bio(&self, flight: &Flight, cursor: &mut Cursor, gfp: bindings::gfp_t) -> Next {
        let bdev = self.bdev.as_ptr();
        let reserve = POOL.bios.get();
        let bit = |set: bool, number: u32| if set { 1 << number } else { 0 };
        let fua = bit(flight.fua(), bindings::req_flag_bits___REQ_FUA);
        let at = cursor.at;
        let (bio, bytes) = match flight.op() {
            // Mostly one bio has had all of it.
            op::READ | op::WRITE if at != 0 && at == flight.bytes() => return Next::End,
            code @ (op::READ | op::WRITE) => {
                let Some((source, iter, bytes)) = flight.bvec_iter(at) else {
                    return Next::End;
                };
                // SAFETY: *Open*, and the reserve is there while a device is. *Owned*: the bio that is
                // cloned, and its array of pages, stay as they are until the part has ended.
                let bio = unsafe { bindings::bio_alloc_clone(bdev, source, gfp, reserve) };
                let Some(bio) = NonNull::new(bio) else {
                    return Next::Short;
                };
                // SAFETY: As above; the new bio is nobody else's.
                unsafe {
                    let kept = (*source).bi_opf & KEPT_FLAGS;
                    (*bio.as_ptr()).bi_opf = u32::from(code) | kept | fua;
                    (*bio.as_ptr()).bi_iter = iter;
                }
                (bio, bytes)
            }
            _ if cursor.bare => return Next::End,
            code => {
                let opf = match code {
                    op::FLUSH => u32::from(op::WRITE) | 1 << bindings::req_flag_bits___REQ_PREFLUSH,
                    op::WRITE_ZEROES => {
                        let nounmap = bit(flight.nounmap(), bindings::req_flag_bits___REQ_NOUNMAP);
                        u32::from(code) | nounmap | fua
                    }
                    _ => u32::from(code),
                } | 1 << bindings::req_flag_bits___REQ_SYNC;
                // SAFETY: *Open*, and the reserve is there while a device is.
                let bio = unsafe { bindings::bio_alloc_bioset(bdev, 0, opf, gfp, reserve) };
                let Some(bio) = NonNull::new(bio) else {
                    return Next::Short;
                };
                cursor.bare = true;
                // SAFETY: The new bio is nobody else's.
                unsafe { (*bio.as_ptr()).bi_iter.bi_size = flight.bytes() };
                (bio, flight.bytes())
            }
        };
        // SAFETY: The new bio is nobody else's, and before it there is room for what `front_of` says.
        unsafe {
            let raw = bio.as_ptr();
            (*raw).bi_iter.bi_sector = flight.sector().saturating_add(u64::from(at / 512));
            let front = front_of(raw);
            front.write(Front { end: BioEnd { end: ended }, request: flight.as_raw() });
            (*raw).bi_private = (&raw mut (*front).end).cast();
            (*raw).bi_end_io = Some(atom_bio_end());
        }
        cursor.at = at.saturating_add(bytes);
        Next::Bio(bio)
    }
}

/// How far the bios of a part go.
#[derive(Default)]
struct Cursor {
    /// Bytes of the part that have a bio.
    at: u32,
    /// There is the one bio of an operation without data.
    bare: bool,
}

enum Next {
    /// It is nobody else's.
    Bio(NonNull<bindings::bio>),
    /// The part, or the data of its request, ends here.
    End,
    /// There is none to be had at once.
    Short,
}

/// What lies before a bio of the reserve.
///
/// # Safety
///
/// The bio must be of the reserve.
unsafe fn front_of(bio: *mut bindings::bio) -> *mut Front {
    // SAFETY: The reserve was made with so much room before each bio, and both are aligned to words.
    unsafe { bio.cast::<u8>().sub(size_of::<Front>()).cast() }
}

/// Calls `visit` with each of the bios that are linked, and cuts the links.
///
/// # Safety
///
/// They must be nobody else's, and `visit` may take each of them.
unsafe fn each(first: *mut bindings::bio, visit: impl Fn(*mut bindings::bio)) {
    let mut at = NonNull::new(first);
    while let Some(bio) = at {
        // SAFETY: By the contract of this function it is still there.
        let next = unsafe { core::mem::replace(&mut (*bio.as_ptr()).bi_next, null_mut()) };
        visit(bio.as_ptr());
        at = NonNull::new(next);
    }
}

/// Atom's function for the end of a bio, as the kernel has it.
fn atom_bio_end() -> unsafe extern "C" fn(*mut bindings::bio) {
    let end: unsafe extern "C" fn(*mut c_void) = calls::atom_bio_end;
    // SAFETY: It takes a pointer to a bio, whatever the interface calls it.
    unsafe { core::mem::transmute(end) }
}

/// The end of a bio, called by Atom on the RCU read side.
///
/// # Safety
///
/// Only Atom may call it, with a bio that [`Device::next_bio`] has made.
unsafe extern "C" fn ended(bio: *mut c_void) {
    let bio: *mut bindings::bio = bio.cast();
    // SAFETY:
    // - The bio is of the reserve, and what lies before it was written when it was made.
    // - *Counted*: the bio's own count. It is given back before that, so that the reserve is whole when no
    //   request is owned.
    unsafe {
        let request = (*front_of(bio)).request;
        let outcome = u32::from((*bio).bi_status);
        bindings::bio_put(bio);
        one_less(request, outcome);
    }
}

/// Counts one less, which has ended with a status of the kernel, and finishes the part with the last one.
/// Of several errors the first one stays.
///
/// # Safety
///
/// *Counted*: the caller must be counted.
unsafe fn one_less(request: NonNull<Request>, outcome: u32) {
    // SAFETY: By the contract of this function the flight stays; it is looked at only.
    let flight = unsafe { core::mem::ManuallyDrop::new(Flight::from_raw(request)) };
    if outcome != status::OK {
        let first = |word: u64| (word >> 32 == 0).then_some(word | u64::from(outcome) << 32);
        // It fails when another error was first.
        let _ = flight.word().fetch_update(Ordering::Relaxed, Ordering::Relaxed, first);
    }
    let before = flight.word().fetch_sub(1, Ordering::AcqRel);
    if before as u32 == 1 {
        let flight = core::mem::ManuallyDrop::into_inner(flight);
        flight.finish(status::at_end((before >> 32) as u32).into());
    }
}

/// Opens a block device for `holder` alone.
fn open(
    path: &CString,
    mode: bindings::blk_mode_t,
    holder: u64,
) -> Result<NonNull<bindings::file>> {
    // The holder is compared and never followed: the key, which nobody else has.
    let holder = core::ptr::without_provenance_mut::<c_void>(holder as usize);
    // SAFETY: The path is a string of C's. There are no holder operations.
    let file =
        unsafe { bindings::bdev_file_open_by_path(path.as_char_ptr(), mode, holder, null()) };
    NonNull::new(from_err_ptr(file)?).ok_or(EINVAL)
}

/// Whether a device can be a target.
///
/// # Safety
///
/// The device must be open.
unsafe fn fitness(bdev: NonNull<bindings::block_device>) -> Result<(), Unfit> {
    // SAFETY: By the contract of this function disk and queue are there. The owner of the operations, a
    // module, stays while the device is open.
    let (owner, features) = unsafe {
        let disk = (*bdev.as_ptr()).bd_disk;
        let features = (*(*bdev.as_ptr()).bd_queue).limits.features;
        ((*(*disk).fops).owner, features)
    };
    let name = NonNull::new(owner).map(|owner| {
        // SAFETY: As above; a module's name ends with a zero.
        unsafe { CStr::from_char_ptr((*owner.as_ptr()).name.as_ptr().cast()) }
    });
    if name == Some(c"atom") {
        return Err(Unfit::Atom);
    }
    if features & FEATURE_ZONED != 0 {
        return Err(Unfit::Zoned);
    }
    Ok(())
}

/// Whether nobody may write to a device.
///
/// # Safety
///
/// The device must be open.
unsafe fn is_read_only(bdev: NonNull<bindings::block_device>) -> bool {
    // SAFETY: By the contract of this function the disk and its whole device are there; the flags are
    // numbers that may change at any time.
    unsafe {
        let disk = (*bdev.as_ptr()).bd_disk;
        let flags = |device: *mut bindings::block_device| {
            (&raw const (*device).__bd_flags.counter).read_volatile() as u32
        };
        let state = (&raw const (*disk).state).read_volatile();
        (flags(bdev.as_ptr()) | flags((*disk).part0)) & bindings::BD_READ_ONLY != 0
            || state & 1 << bindings::GD_READ_ONLY != 0
    }
}

/// Whether bios for another device may be issued here. While the task dispatches a plug of requests, those
/// that are still in it can hold what the other device waits for; unless they are all of this device.
pub(crate) fn may_submit(flight: &Flight) -> bool {
    // SAFETY: The task's own plug changes in the task only; the requests in it exist.
    unsafe {
        let Some(plug) = NonNull::new((*bindings::get_current()).plug) else {
            return true;
        };
        let plug = plug.as_ref();
        match NonNull::new(plug.mq_list.head) {
            None => true,
            Some(next) => !plug.multiple_queues && (*next.as_ptr()).q == (*flight.rq()).q,
        }
    }
}

/// The task's plug and its list of bios, taken away. What is issued meanwhile must not go into a plug that is being
/// dispatched. Nor behind the bios of the list: the rest of a bio that was split is in it, and waits for a tag, or
/// for a queue that is frozen to thaw, both of which can wait for the request that is dispatched here.
struct Apart {
    plug: *mut bindings::blk_plug,
    bios: *mut bindings::bio_list,
}

impl Apart {
    fn enter() -> Self {
        // SAFETY: The task's own plug, list and flags change in the task only. The time that a plug remembers goes
        // first, as in `blk_finish_plug`: whoever preempts the task looks for it where the flag is set.
        unsafe {
            let task = bindings::get_current();
            let plug = (*task).plug;
            if let Some(plug) = NonNull::new(plug) {
                (*plug.as_ptr()).cur_ktime = 0;
                (*task).flags &= !bindings::PF_BLOCK_TS;
            }
            compiler_fence(Ordering::SeqCst);
            (*task).plug = null_mut();
            let bios = core::mem::replace(&mut (*task).bio_list, null_mut());
            Self { plug, bios }
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // SAFETY: As in `enter`; it is the same task, which has made no other plug or list that is still there.
        unsafe {
            let task = bindings::get_current();
            (*task).plug = self.plug;
            (*task).bio_list = self.bios;
        }
    }
}

/// Carries out `hand_over` with a plug of its own, so that what a batch of requests asks other devices for comes to
/// them as a batch as well: at the end, or when the task sleeps. In a dispatch that may sleep, or the task.
pub(crate) fn together<R>(hand_over: impl FnOnce() -> R) -> R {
    let _apart = Apart::enter();
    plugged(hand_over)
}

/// Carries out `hand_over` with a plug, unless there is one.
fn plugged<R>(hand_over: impl FnOnce() -> R) -> R {
    let mut plug = bindings::blk_plug::default();
    // SAFETY: The plug stays here until it is finished, in the same task.
    unsafe { bindings::blk_start_plug(&mut plug) };
    let result = hand_over();
    // SAFETY: As above. One that was not started, because there was another one, changes nothing.
    unsafe { bindings::blk_finish_plug(&mut plug) };
    result
}
