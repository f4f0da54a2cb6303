// SPDX-License-Identifier: GPL-2.0

//! A request on its way through the targets of a volume.
//!
//! A request is carried out part by part, one at a time. What is known of it lies in the scratch of its
//! record, in Atom's memory, so that nothing is allocated. Whoever has the [`Flight`] has the request: it
//! is given to a target with a part to carry out, and [`Flight::finish`] gives it back.
//!
//! Who goes on when a part has ended is decided by one word. *Issuing*: a task is handing the part to a
//! target, and will look when it has done so. *Waiting*: it has looked, and the part had not ended: whoever
//! ends it goes on. *Ended*: the part has ended while it was being issued. So parts that end at once are a
//! loop and no recursion, and a part that ends on another CPU meanwhile is gone on with once.
//!
//! Two arguments carry the proofs:
//!
//! - **Owned.** A record is the payload's from `queue_rq` until `atom_request_end`. There is one `Flight`
//!   of it at a time, because it is made once, in [`Flight::begin`], cannot be copied, and changes hands as
//!   the word above says. A payload that lets go of a request in *revoke* drops its `Flight`.
//! - **Volume.** A volume exists for as long as one of its requests is owned: it goes only after its device
//!   has gone or was frozen, or after *abandon*, which all wait for its requests.

use core::mem::{align_of, size_of};
use core::ptr::{null_mut, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use kernel::bindings;

use crate::abi::calls;
use crate::abi::request::{flags, status, Request, SCRATCH_BYTES};
use crate::composed::Composed;
use crate::layout::Part;
use crate::pages::{Data, Piece};
use crate::sys::epoch;

/// Bytes of scratch that a flight needs.
pub(crate) const FLIGHT_BYTES: u32 = size_of::<Scratch>() as u32;

const _: () = assert!(size_of::<Scratch>() <= SCRATCH_BYTES);
const _: () = assert!(align_of::<Scratch>() <= align_of::<u64>());

/// Where a target is asked to carry out a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Context {
    /// In a task. It may sleep where the volume has asked for that, but not wait for other requests.
    MaySleep,
    /// As [`Self::MaySleep`], with others of a batch, in `bios::together`. Whoever hands them over says when
    /// that was all.
    Together,
    /// At the end of another part, perhaps in an interrupt.
    Atomic,
}

// The states of `Scratch::state`.
const ISSUING: u32 = 0;
const WAITING: u32 = 1;
const ENDED: u32 = 2;

/// What lies in the scratch of a record.
#[repr(C)]
struct Scratch {
    /// The next one of a list.
    next: AtomicPtr<Request>,
    /// Of whoever has the part.
    word: AtomicU64,
    /// What the request is for.
    composed: NonNull<Composed>,
    /// When the part was issued, in nanoseconds of the monotonic clock.
    started_ns: u64,
    /// Where to go on behind the part, see [`Part::next`].
    next_at: u64,
    /// First sector of the part, on the target.
    sector: u64,
    /// Bytes of the part.
    bytes: u32,
    /// Bytes of the request's data before those of the part.
    skip: u32,
    /// Index of the target.
    target: u32,
    /// How the part has ended.
    status: u32,
    state: AtomicU32,
    reserved: u32,
}

/// A request that is owned, with the part of it that is carried out now.
///
/// INVARIANT: The record is owned by this payload, its scratch is a [`Scratch`], and there is no other.
#[must_use = "a request that is not finished is owed for ever"]
pub(crate) struct Flight(NonNull<Request>);

// SAFETY: A request may be carried out and ended on any CPU, and nobody else uses it.
unsafe impl Send for Flight {}

/// Who has given a part to a target and has to look whether it has ended.
pub(crate) struct Issuer(NonNull<Request>);

impl Flight {
    /// Begins the flight of a request through a volume. No part is carried out yet.
    ///
    /// # Safety
    ///
    /// `request` must be a record that Atom has just handed to `queue_rq`, for the device of this volume.
    /// The volume must stay as *Volume* says.
    pub(crate) unsafe fn begin(request: NonNull<Request>, composed: &Composed) -> Self {
        let scratch = Scratch {
            next: AtomicPtr::new(null_mut()),
            word: AtomicU64::new(0),
            composed: NonNull::from(composed),
            started_ns: 0,
            next_at: 0,
            sector: 0,
            bytes: 0,
            skip: 0,
            target: 0,
            status: status::OK,
            state: AtomicU32::new(WAITING),
            reserved: 0,
        };
        // SAFETY: *Owned*; the scratch is the payload's, long enough and aligned, as asserted above.
        unsafe { (&raw mut (*request.as_ptr()).scratch).cast::<Scratch>().write(scratch) };
        // INVARIANT: It was written just now, and the record was handed over just now.
        Self(request)
    }

    /// Goes on with a flight that was given away by [`Flight::into_raw`].
    ///
    /// # Safety
    ///
    /// `request` must come from there, and only once.
    pub(crate) unsafe fn from_raw(request: NonNull<Request>) -> Self {
        // INVARIANT: By the contract of this function.
        Self(request)
    }

    /// Gives it away, for a table of whoever has the part.
    pub(crate) fn into_raw(self) -> NonNull<Request> {
        self.0
    }

    /// The address of its record.
    pub(crate) fn as_raw(&self) -> NonNull<Request> {
        self.0
    }

    fn record(&self) -> &Request {
        // SAFETY: *Owned*.
        unsafe { self.0.as_ref() }
    }

    fn scratch(&self) -> &Scratch {
        // SAFETY: By the invariant. What is no atomic in it is written with the flight in hand only.
        unsafe { &*(&raw const (*self.0.as_ptr()).scratch).cast::<Scratch>() }
    }

    fn scratch_mut(&mut self) -> &mut Scratch {
        // SAFETY: By the invariant, and whoever issues looks at nothing before the word is *ended* or *waiting*.
        unsafe { &mut *(&raw mut (*self.0.as_ptr()).scratch).cast::<Scratch>() }
    }

    /// The volume that the request is for.
    pub(crate) fn composed(&self) -> &Composed {
        // SAFETY: *Volume*.
        unsafe { self.scratch().composed.as_ref() }
    }

    /// Gives the flight away within its volume.
    ///
    /// The volume may be used also after the request has ended. Whoever calls this is in the dispatch of a
    /// request, which a volume outlives; or on the RCU read side, after which a volume is freed; or it
    /// does not use the volume once it has given the flight away.
    pub(crate) fn within<R>(self, with: impl FnOnce(&Composed, Self) -> R) -> R {
        // SAFETY: *Volume*.
        let composed = unsafe { self.scratch().composed.as_ref() };
        with(composed, self)
    }

    /// One of [`crate::abi::request::op`].
    pub(crate) fn op(&self) -> u8 {
        self.record().op
    }

    /// Bits of [`crate::abi::request::flags`].
    pub(crate) fn flags(&self) -> u8 {
        self.record().flags
    }

    /// The write must be durable when it ends.
    pub(crate) fn fua(&self) -> bool {
        self.flags() & flags::FUA != 0
    }

    /// Write-zeroes must not deallocate.
    pub(crate) fn nounmap(&self) -> bool {
        self.flags() & flags::NOUNMAP != 0
    }

    /// Another request of its hardware queue follows at once.
    pub(crate) fn more(&self) -> bool {
        self.flags() & flags::MORE != 0
    }

    /// First sector of the request, on the volume.
    pub(crate) fn volume_sector(&self) -> u64 {
        self.record().sector
    }

    /// Bytes of the request.
    pub(crate) fn volume_bytes(&self) -> u32 {
        self.record().bytes
    }

    /// Index of the hardware queue.
    pub(crate) fn hctx(&self) -> u16 {
        self.record().hctx
    }

    /// Index of the target that carries the part out.
    pub(crate) fn target(&self) -> usize {
        self.scratch().target as usize
    }

    /// First sector of the part, on the target, in sectors of 512 bytes.
    pub(crate) fn sector(&self) -> u64 {
        self.scratch().sector
    }

    /// Bytes of the part; 0 for a flush.
    pub(crate) fn bytes(&self) -> u32 {
        self.scratch().bytes
    }

    /// How the part before has ended.
    pub(crate) fn outcome(&self) -> u32 {
        self.scratch().status
    }

    /// Where to go on, see [`Part::next`].
    pub(crate) fn next_at(&self) -> u64 {
        self.scratch().next_at
    }

    /// Nanoseconds since the part was issued.
    pub(crate) fn age_ns(&self) -> u64 {
        now_ns().saturating_sub(self.scratch().started_ns)
    }

    /// One word for whoever has the part. Its content is undefined when a part is issued.
    pub(crate) fn word(&self) -> &AtomicU64 {
        &self.scratch().word
    }

    /// The data of the part, from its start.
    pub(crate) fn data(&self) -> PartData<'_> {
        self.data_from(0)
    }

    /// The data of the part, from byte `at` of it.
    pub(crate) fn data_from(&self, at: u32) -> PartData<'_> {
        let scratch = self.scratch();
        // SAFETY: *Owned*: the request and its bios stay while the flight is borrowed.
        let mut data = unsafe { Data::of(self.rq()) };
        data.skip(scratch.skip.saturating_add(at));
        PartData { data, left: scratch.bytes.saturating_sub(at) }
    }

    /// The bio of the request that has byte `at` of the part, a position in it that begins there and ends with
    /// the bio or the part, and the bytes between. `None` at the end of the part.
    pub(crate) fn bvec_iter(
        &self,
        at: u32,
    ) -> Option<(*mut bindings::bio, bindings::bvec_iter, u32)> {
        let PartData { data, left } = self.data_from(at);
        let (bio, mut iter) = data.position()?;
        iter.bi_size = iter.bi_size.min(left);
        (iter.bi_size != 0).then_some((bio, iter, iter.bi_size))
    }

    /// The kernel's request.
    pub(crate) fn rq(&self) -> *mut bindings::request {
        self.record().rq.cast()
    }

    /// Begins a part. The flight is to be given to the target, and the issuer asked after that.
    pub(crate) fn issue(mut self, part: &Part) -> (Self, Issuer) {
        let scratch = self.scratch_mut();
        scratch.started_ns = now_ns();
        scratch.next_at = part.next;
        scratch.sector = part.sector;
        // A part is no longer than its request, whose bytes are 32 bits.
        scratch.bytes = part.sectors.saturating_mul(512) as u32;
        scratch.skip = part.skip.saturating_mul(512) as u32;
        scratch.target = part.target as u32;
        scratch.status = status::OK;
        scratch.state.store(ISSUING, Ordering::Relaxed);
        let issuer = Issuer(self.0);
        (self, issuer)
    }

    /// Ends the part with one of [`crate::abi::request::status`], and goes on with the request. Any context.
    pub(crate) fn finish(mut self, outcome: u32) {
        self.composed().part_ended(&self, outcome);
        self.scratch_mut().status = outcome;
        match self.scratch().state.swap(ENDED, Ordering::AcqRel) {
            // The issuer goes on; from here on the flight is its own.
            ISSUING => {}
            _ => {
                let _guard = kernel::sync::rcu::read_lock();
                Composed::go_on(self);
            }
        }
    }

    /// Ends the request. Any context.
    pub(crate) fn end(self, outcome: u32) {
        // SAFETY: *Owned*; `self` is gone, so nobody touches it after this.
        let result = unsafe { calls::atom_request_end(self.0.as_ptr(), epoch(), outcome) };
        if result != 0 {
            kernel::pr_err_once!("Atom refused the end of a request: error {}\n", result);
        }
    }

    /// Of a part that was not taken: whoever ends it later goes on with the request.
    pub(crate) fn is_left(&self) {
        self.scratch().state.store(WAITING, Ordering::Relaxed);
    }

    /// Gives the request back, which `queue_rq` then has to say.
    pub(crate) fn give_back(self) {}
}

impl Issuer {
    /// After the flight was given to a target: the flight, when the part has ended already. Else whoever ends
    /// it goes on.
    pub(crate) fn issued(self) -> Option<Flight> {
        // SAFETY: *Owned*: while the word is *issuing* whoever ends the part leaves the request to the issuer,
        // so it is still owned. Only the word is looked at.
        let state = unsafe {
            let scratch = (&raw const (*self.0.as_ptr()).scratch).cast::<Scratch>();
            &(*scratch).state
        };
        match state.compare_exchange(ISSUING, WAITING, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => None,
            // INVARIANT: The part was ended while it was being issued, and its flight left to the issuer.
            Err(_) => Some(Flight(self.0)),
        }
    }
}

/// The data of a part of a request.
pub(crate) struct PartData<'a> {
    data: Data<'a>,
    left: u32,
}

impl<'a> PartData<'a> {
    /// The next piece of at most `limit` bytes, all in one page; `None` at the end.
    pub(crate) fn next(&mut self, limit: u32) -> Option<Piece<'a>> {
        let piece = self.data.next(limit.min(self.left))?;
        self.left = self.left.saturating_sub(piece.bytes());
        Some(piece)
    }
}

/// A queue of flights, linked through their scratch. Whoever has it locks it.
///
/// INVARIANT: Each record in it came from [`Flight::into_raw`], and `tail` is the last one.
pub(crate) struct FlightList {
    head: *mut Request,
    tail: *mut Request,
}

// SAFETY: It owns its flights, which may go to any CPU.
unsafe impl Send for FlightList {}

impl FlightList {
    /// Empty.
    pub(crate) const fn new() -> Self {
        Self { head: null_mut(), tail: null_mut() }
    }

    /// True when there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// Adds one behind the others.
    pub(crate) fn push_back(&mut self, flight: Flight) {
        set_next(&flight, null_mut());
        let record = flight.into_raw().as_ptr();
        match NonNull::new(self.tail) {
            None => self.head = record,
            // SAFETY: By the invariant it is a flight of this list.
            Some(tail) => set_next(&*unsafe { borrowed(tail) }, record),
        }
        self.tail = record;
    }

    /// Adds one before the others.
    pub(crate) fn push_front(&mut self, flight: Flight) {
        set_next(&flight, self.head);
        let record = flight.into_raw().as_ptr();
        if self.tail.is_null() {
            self.tail = record;
        }
        self.head = record;
    }

    /// Takes the first one.
    pub(crate) fn pop_front(&mut self) -> Option<Flight> {
        let head = NonNull::new(self.head)?;
        // SAFETY: By the invariant it came from `into_raw`, and it leaves the list here.
        let flight = unsafe { Flight::from_raw(head) };
        self.head = next_of(&flight);
        if self.head.is_null() {
            self.tail = null_mut();
        }
        Some(flight)
    }

    /// Takes all of them.
    pub(crate) fn take(&mut self) -> Self {
        core::mem::replace(self, Self::new())
    }

    /// Adds all of another list behind the others.
    pub(crate) fn append(&mut self, other: &mut Self) {
        let other = other.take();
        let Some(head) = NonNull::new(other.head) else {
            return;
        };
        match NonNull::new(self.tail) {
            None => self.head = head.as_ptr(),
            // SAFETY: By the invariant it is a flight of this list.
            Some(tail) => set_next(&*unsafe { borrowed(tail) }, head.as_ptr()),
        }
        self.tail = other.tail;
    }

    /// Calls `visit` for each, from the first on, until it answers false.
    pub(crate) fn each(&self, mut visit: impl FnMut(&Flight) -> bool) {
        let mut at = self.head;
        while let Some(record) = NonNull::new(at) {
            // SAFETY: By the invariant it is a flight of this list, which is borrowed.
            let flight = unsafe { borrowed(record) };
            if !visit(&flight) {
                return;
            }
            at = next_of(&flight);
        }
    }
}

/// A flight of a list, to be looked at only.
///
/// # Safety
///
/// `record` must be in a list that is not changed by anybody else for as long as the result is used.
unsafe fn borrowed(record: NonNull<Request>) -> core::mem::ManuallyDrop<Flight> {
    core::mem::ManuallyDrop::new(Flight(record))
}

fn next_of(flight: &Flight) -> *mut Request {
    flight.scratch().next.load(Ordering::Relaxed)
}

fn set_next(flight: &Flight, next: *mut Request) {
    flight.scratch().next.store(next, Ordering::Relaxed);
}

/// Flights that anybody adds to without a lock, in any context, and one task takes all at once.
///
/// INVARIANT: As for [`FlightList`], the last one that was added first.
pub(crate) struct FlightStack(AtomicPtr<Request>);

impl FlightStack {
    /// Empty.
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    /// True when there is none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed).is_null()
    }

    /// Adds one. Any context.
    pub(crate) fn push(&self, flight: Flight) {
        let mut first = self.0.load(Ordering::Relaxed);
        loop {
            set_next(&flight, first);
            let record = flight.0.as_ptr();
            match self.0.compare_exchange_weak(first, record, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(now) => first = now,
            }
        }
        // It is the list's now.
        let _ = flight.into_raw();
    }

    /// Takes all of them, in the order in which they were added.
    pub(crate) fn take(&self) -> FlightList {
        let mut list = FlightList::new();
        let mut at = self.0.swap(null_mut(), Ordering::Acquire);
        while let Some(record) = NonNull::new(at) {
            // SAFETY: By the invariant it came from a flight that was given away, and it is taken once.
            let flight = unsafe { Flight::from_raw(record) };
            at = next_of(&flight);
            list.push_front(flight);
        }
        list
    }
}

/// Now, in nanoseconds of the monotonic clock.
pub(crate) fn now_ns() -> u64 {
    // SAFETY: Has no precondition.
    let now = unsafe { bindings::ktime_get() };
    u64::try_from(now).unwrap_or(0)
}

/// Now, in nanoseconds since the machine has started.
pub(crate) fn boottime_ns() -> u64 {
    // SAFETY: Has no precondition.
    let now = unsafe { bindings::ktime_get_with_offset(bindings::tk_offsets_TK_OFFS_BOOT) };
    u64::try_from(now).unwrap_or(0)
}
