// SPDX-License-Identifier: GPL-2.0

//! Sockets: the layer on the network. With `poller.rs` all `unsafe` code of the NBD client.
//!
//! Nothing here waits: every call has `MSG_DONTWAIT` or its like. Data of requests goes from and into their own
//! pages. It is copied into the socket and not spliced (`MSG_SPLICE_PAGES`): the network says nothing of when it
//! has let go of a page, so that a server of this machine that was given up could read what the page holds after
//! its request was sent elsewhere and ended.
//!
//! Two arguments carry the proofs:
//!
//! - **Held.** A [`Socket`] has a reference on its `struct socket`, or Atom has one that it keeps until
//!   `atom_object_release`, which is called when the `Socket` is dropped and not before.
//! - **Owned.** Pages of a request stay while its `Flight` is borrowed.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::marker::{PhantomData, PhantomPinned};
use core::mem::{zeroed, MaybeUninit};
use core::ptr::{addr_of_mut, null_mut, NonNull};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicU8, Ordering};

use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::Arc;

use super::poller::Poller;
use super::rules::{user_timeout_ms, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES};
use super::wire::REQUEST_BYTES;
use crate::abi::calls;
use crate::abi::device::object;
use crate::flight::PartData;
use crate::shape::PAGE_BYTES;
use crate::spec::Address;

/// What bindgen makes of `socket.h`.
#[allow(dead_code, missing_docs, unreachable_pub, clippy::all, clippy::undocumented_unsafe_blocks)]
pub(super) mod extra {
    include!("socket_bindings.rs");
}

/// Most pieces of memory in one message.
pub(super) const MAX_PIECES: usize = 64;
/// Keys of a connection: its number is in the three lowest bits, and the last one of all is not ours.
const KEYS: u64 = 31;
const KEY_SHIFT: u32 = 3;
const _: () = assert!(crate::spec::MAX_CONNECTIONS as u64 <= 1 << KEY_SHIFT);

/// Longest address: that of a socket in the file system, with the zero behind its path.
const ADDRESS_BYTES: usize = 2 + 108;

/// Where a server listens, as the kernel is told.
#[repr(C, align(8))]
pub(super) struct Place {
    bytes: [u8; 128],
    length: usize,
    family: u32,
}

impl Place {
    /// From what the volume is made of.
    pub(super) fn new(address: &Address<'_>) -> Result<Self> {
        let mut bytes = [0u8; 128];
        let (family, length) = match address {
            Address::V4 { .. } => (bindings::AF_INET, 16),
            Address::V6 { .. } => (bindings::AF_INET6, 28),
            Address::Unix { path } => (bindings::AF_UNIX, path.len().saturating_add(3)),
        };
        if length > ADDRESS_BYTES {
            return Err(EINVAL);
        }
        // `struct sockaddr_in`, `sockaddr_in6` and `sockaddr_un`.
        let start = (family as u16).to_ne_bytes();
        let (port, zero, scope);
        let parts: [&[u8]; 5] = match address {
            Address::V4 { address, port: number, .. } => {
                port = number.to_be_bytes();
                [&start, &port, address, &[], &[]]
            }
            Address::V6 { address, port: number, scope: index, .. } => {
                port = number.to_be_bytes();
                zero = [0; 4];
                scope = index.to_ne_bytes();
                [&start, &port, &zero, address, &scope]
            }
            Address::Unix { path } => [&start, path.as_bytes(), &[], &[], &[]],
        };
        for (to, from) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        Ok(Self { bytes, length, family })
    }
}

/// How far connecting is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Connected.
    Done,
    /// It goes on by itself; who waits for the socket is woken.
    UnderWay,
}

/// What was received.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) bytes: usize,
    /// There may be more, or the end. Else the socket was empty behind it and not at its end, and whoever waits for
    /// it is woken by what comes.
    pub(super) more: bool,
}

// What becomes of a socket when it is dropped.
/// The reference is ours: it is closed.
const CLOSE: u32 = 0;
/// Atom has it and keeps it.
const LEAVE: u32 = 1;
/// Atom has it and is told to release it.
const RELEASE: u32 = 2;

/// A socket, connected or on its way there.
///
/// INVARIANT: *Held*, and `sk` stays with it.
pub(super) struct Socket {
    raw: NonNull<bindings::socket>,
    key: AtomicU64,
    fate: AtomicU32,
}

// SAFETY: Sockets of the kernel may be used from all threads.
unsafe impl Send for Socket {}
// SAFETY: As above: they lock themselves.
unsafe impl Sync for Socket {}

impl Socket {
    /// Creates one and begins to connect it. Does not wait for the server. `key` is for Atom to keep it by, later.
    pub(super) fn connect(place: &Place, keepalive_s: u32, key: u64) -> Result<(Self, Progress)> {
        let tcp = place.family != bindings::AF_UNIX;
        let mut raw = null_mut();
        // SAFETY: The first network namespace is always there, and `raw` is valid for the call.
        to_result(unsafe {
            bindings::sock_create_kern(
                addr_of_mut!(bindings::init_net),
                place.family as c_int,
                bindings::sock_type_SOCK_STREAM as c_int,
                if tcp { extra::ATOM_TCP as c_int } else { 0 },
                &mut raw,
            )
        })?;
        let raw = NonNull::new(raw).ok_or(EINVAL)?;
        // INVARIANT: It was created for us just now.
        let socket = Self { raw, key: AtomicU64::new(key), fate: AtomicU32::new(CLOSE) };
        socket.prepare();
        if tcp {
            socket.prepare_tcp(keepalive_s)?;
        }
        let progress = socket.connect_on(place)?;
        Ok((socket, progress))
    }

    /// Takes a socket over that an earlier payload left with Atom. Only within *adopt*.
    pub(super) fn claim(key: u64) -> Result<Self> {
        let mut found = null_mut();
        // SAFETY: `found` is valid for the call.
        to_result(unsafe { calls::atom_object_claim(key, object::SOCKET, &mut found) })?;
        let raw = NonNull::new(found.cast()).ok_or(EINVAL)?;
        // INVARIANT: Atom keeps it, until it is told otherwise.
        Ok(Self { raw, key: AtomicU64::new(key), fate: AtomicU32::new(LEAVE) })
    }

    /// Ends the connections that a dead payload has left under the keys of one connection, and leaves them with Atom.
    /// Only within *adopt*.
    pub(super) fn shut_down_left(first: u64) {
        for turn in 0..KEYS {
            // There is none under most keys.
            if let Ok(socket) = Self::claim(first | turn << KEY_SHIFT) {
                socket.shut_down();
            }
        }
    }

    /// Memory for what this socket sends comes from the reserves and waits for no I/O: it may be what
    /// memory is freed by.
    fn prepare(&self) {
        let sk = self.sk();
        // SAFETY: *Held*; the offsets are those of the members in this kernel, and nobody else uses the
        // socket yet.
        unsafe {
            extra::sk_set_memalloc(sk);
            let start = sk.cast::<u8>();
            let allocation = start.add(extra::ATOM_SK_ALLOCATION as usize).cast();
            *allocation = extra::ATOM_GFP_RESERVES;
            // A task that is on its way to reclaim memory may be using its own fragment.
            start.add(extra::ATOM_SK_USE_TASK_FRAG as usize).cast::<bool>().write(false);
        }
    }

    fn prepare_tcp(&self, keepalive_s: u32) -> Result {
        let sk = self.sk();
        // SAFETY: *Held*, and it is a TCP socket.
        unsafe {
            extra::tcp_sock_set_nodelay(sk);
            if keepalive_s != 0 {
                extra::sock_set_keepalive(sk);
                to_result(extra::tcp_sock_set_keepidle(sk, keepalive_s as c_int))?;
                to_result(extra::tcp_sock_set_keepintvl(sk, KEEPALIVE_INTERVAL_S as c_int))?;
                to_result(extra::tcp_sock_set_keepcnt(sk, KEEPALIVE_PROBES as c_int))?;
                // While something is on its way nothing is probed, and what is not acknowledged would be sent
                // again for a quarter of an hour.
                to_result(extra::tcp_sock_set_user_timeout(
                    sk,
                    user_timeout_ms(keepalive_s) as c_int,
                ))?;
            }
        }
        Ok(())
    }

    fn sk(&self) -> *mut bindings::sock {
        // SAFETY: *Held*.
        unsafe { (*self.raw.as_ptr()).sk }
    }

    /// Goes on connecting.
    pub(super) fn connect_on(&self, place: &Place) -> Result<Progress> {
        let _reserves = Reserves::enter();
        // SAFETY: *Held*. The address is as long as is said, and is copied by the call.
        let result = unsafe {
            bindings::kernel_connect(
                self.raw.as_ptr(),
                place.bytes.as_ptr().cast_mut().cast(),
                place.length as c_int,
                extra::ATOM_NONBLOCK as c_int,
            )
        };
        match result.unsigned_abs() {
            0 | bindings::EISCONN => Ok(Progress::Done),
            bindings::EINPROGRESS | bindings::EALREADY => Ok(Progress::UnderWay),
            _ => Err(Error::from_errno(result)),
        }
    }

    /// Has Atom keep it from here on, by the first key that is free: one that a dead payload has used stays taken.
    pub(super) fn preserve(&self) -> Result {
        let first = self.key();
        let keys = (0..KEYS).map(|turn| first | turn << KEY_SHIFT);
        for key in keys {
            // SAFETY: It is a socket whose reference is ours until now, and nothing in it leads into the payload
            // once the wait entries are removed, as they are before *freeze* ends.
            let kept = to_result(unsafe {
                calls::atom_object_preserve(key, object::SOCKET, self.raw.as_ptr().cast())
            });
            match kept {
                Err(error) if error == EEXIST => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    self.key.store(key, Ordering::Relaxed);
                    // INVARIANT: The reference is Atom's now.
                    self.fate.store(LEAVE, Ordering::Relaxed);
                    return Ok(());
                }
            }
        }
        Err(EEXIST)
    }

    /// The key by which Atom keeps it, or is to keep it.
    pub(super) fn key(&self) -> u64 {
        self.key.load(Ordering::Relaxed)
    }

    /// It is of no use any more: when it is dropped it is closed, by Atom if Atom keeps it.
    pub(super) fn give_up(&self) {
        let _ = self.fate.compare_exchange(LEAVE, RELEASE, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The same; what was not sent yet is not sent any more either.
    pub(super) fn abort(&self) {
        // SAFETY: *Held*.
        unsafe { extra::sock_no_linger(self.sk()) };
        self.give_up();
    }

    /// Ends the connection, whoever else may still use the socket.
    pub(super) fn shut_down(&self) {
        // SAFETY: *Held*.
        let _ = unsafe {
            bindings::kernel_sock_shutdown(self.raw.as_ptr(), bindings::sock_shutdown_cmd_SHUT_RDWR)
        };
    }

    /// The TCP port on this machine; 0 for a socket in the file system.
    pub(super) fn local_port(&self) -> u16 {
        // Room for the longest address, aligned.
        let mut name = [0u64; 16];
        // SAFETY: *Held*, and the kernel writes a `struct sockaddr_storage` at most.
        let length =
            unsafe { bindings::kernel_getsockname(self.raw.as_ptr(), name.as_mut_ptr().cast()) };
        let [a, b, c, d, ..] = name[0].to_ne_bytes();
        match u32::from(u16::from_ne_bytes([a, b])) {
            bindings::AF_INET | bindings::AF_INET6 if length > 0 => u16::from_be_bytes([c, d]),
            _ => 0,
        }
    }

    /// Sends as much as the socket takes now. `None`: it takes nothing. Whoever waits for it is woken when it does
    /// again; when memory was short and nothing is on its way nobody is, so that it has to be tried again in time.
    /// `more`: the rest follows at once.
    pub(super) fn send(&self, gather: &Gather<'_>, more: bool) -> Result<Option<usize>> {
        let _reserves = Reserves::enter();
        let flags = bindings::MSG_DONTWAIT | bindings::MSG_NOSIGNAL;
        let flags = if more { flags | bindings::MSG_MORE } else { flags };
        // The first refusal makes the socket promise that it wakes; space that came before that is seen by the
        // second try.
        for _ in 0..2 {
            let mut message = gather.message(bindings::ITER_SOURCE);
            message.msg_flags = flags;
            // SAFETY: *Held*. The pieces are valid while `gather` is.
            let result = unsafe { bindings::sock_sendmsg(self.raw.as_ptr(), &mut message) };
            match u32::try_from(result) {
                Ok(0) => return Err(EPIPE),
                Ok(bytes) => return Ok(Some(bytes as usize)),
                Err(_) => match result.unsigned_abs() {
                    bindings::EAGAIN | bindings::ENOMEM | bindings::ENOBUFS => {}
                    _ => return Err(Error::from_errno(result)),
                },
            }
        }
        Ok(None)
    }

    /// Sends bytes, as [`Self::send`].
    pub(super) fn send_bytes(&self, bytes: &[u8]) -> Result<Option<usize>> {
        let _reserves = Reserves::enter();
        let mut message = message();
        message.msg_flags = bindings::MSG_DONTWAIT | bindings::MSG_NOSIGNAL;
        let mut vec =
            bindings::kvec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        for _ in 0..2 {
            // SAFETY: *Held*; the bytes are valid for the call, which reads them only.
            let result = unsafe {
                bindings::kernel_sendmsg(self.raw.as_ptr(), &mut message, &mut vec, 1, bytes.len())
            };
            match u32::try_from(result) {
                Ok(bytes) => return Ok(Some(bytes as usize)),
                Err(_) if result.unsigned_abs() == bindings::EAGAIN => {}
                Err(_) => return Err(Error::from_errno(result)),
            }
        }
        Ok(None)
    }

    /// What a call to receive has returned.
    fn received(&self, result: c_int, message: &bindings::msghdr) -> Result<Option<Received>> {
        match u32::try_from(result) {
            Ok(0) => Err(EPIPE),
            Ok(bytes) => {
                let more = message.msg_inq != 0 || self.is_ending();
                Ok(Some(Received { bytes: bytes as usize, more }))
            }
            Err(_) if result.unsigned_abs() == bindings::EAGAIN => Ok(None),
            Err(_) => Err(Error::from_errno(result)),
        }
    }

    /// Whether the connection has ended or failed, which may have woken for the last time. It is looked at after
    /// the call to receive, and is said before whoever waits is woken, so that nobody misses an end.
    fn is_ending(&self) -> bool {
        // SAFETY: *Held*; the offset is that of the member in this kernel, which others change at any time.
        unsafe {
            let start = self.sk().cast::<u8>();
            AtomicU8::from_ptr(start.add(extra::ATOM_SK_SHUTDOWN as usize)).load(Ordering::SeqCst)
                != 0
        }
    }

    /// Receives what is there into pages. `None`: nothing is there, and whoever waits for it is woken.
    /// Errors: `EPIPE` at the end of the stream.
    pub(super) fn receive(&self, gather: &Gather<'_>) -> Result<Option<Received>> {
        let _reserves = Reserves::enter();
        let mut message = asks_for_rest(gather.message(bindings::ITER_DEST));
        // SAFETY: *Held*. The pieces are valid while `gather` is.
        let result = unsafe {
            bindings::sock_recvmsg(
                self.raw.as_ptr(),
                &mut message,
                (bindings::MSG_DONTWAIT | bindings::MSG_NOSIGNAL) as c_int,
            )
        };
        self.received(result, &message)
    }

    /// The same into bytes.
    pub(super) fn receive_bytes(&self, bytes: &mut [u8]) -> Result<Option<Received>> {
        let _reserves = Reserves::enter();
        let mut message = asks_for_rest(message());
        let mut vec = bindings::kvec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: *Held*; the bytes are valid for the call.
        let result = unsafe {
            bindings::kernel_recvmsg(
                self.raw.as_ptr(),
                &mut message,
                &mut vec,
                1,
                bytes.len(),
                (bindings::MSG_DONTWAIT | bindings::MSG_NOSIGNAL) as c_int,
            )
        };
        self.received(result, &message)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        match self.fate.load(Ordering::Relaxed) {
            // SAFETY: The reference is ours, and nobody uses it any more.
            CLOSE => unsafe { bindings::sock_release(self.raw.as_ptr()) },
            RELEASE => {
                // SAFETY: Has no precondition; the socket is used no more.
                let result = unsafe { calls::atom_object_release(self.key(), object::SOCKET) };
                if result != 0 {
                    pr_err!("Atom did not know a socket: error {}\n", result);
                }
            }
            _ => {}
        }
    }
}

/// Has the network say how much is left. One that does not leaves the number as it is.
fn asks_for_rest(mut message: bindings::msghdr) -> bindings::msghdr {
    message.set_msg_get_inq(true);
    message.msg_inq = 1;
    message
}

/// A message without a name and without control data.
fn message() -> bindings::msghdr {
    // SAFETY: All fields are numbers and pointers, for which zero is a value.
    unsafe { zeroed() }
}

/// Pieces of memory in the order in which they are sent or received.
///
/// INVARIANT: The first `count` vectors were written, and are pieces of pages that stay for as long as `'a`, of `bytes`
/// in all.
pub(super) struct Gather<'a> {
    vectors: [MaybeUninit<bindings::bio_vec>; MAX_PIECES],
    count: usize,
    bytes: usize,
    _pages: PhantomData<&'a ()>,
}

impl<'a> Gather<'a> {
    /// Empty. The vectors are written as they are needed: clearing them all for each message costs more than most
    /// messages do.
    #[inline]
    pub(super) fn new() -> Self {
        let vectors = [const { MaybeUninit::uninit() }; MAX_PIECES];
        Self { vectors, count: 0, bytes: 0, _pages: PhantomData }
    }

    /// Bytes of all pieces.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether one more piece has room.
    pub(super) fn has_room(&self) -> bool {
        self.count < MAX_PIECES
    }

    fn push(&mut self, page: *mut bindings::page, offset: u32, bytes: u32) -> bool {
        let Some(vector) = self.vectors.get_mut(self.count) else {
            return false;
        };
        vector.write(bindings::bio_vec { bv_page: page, bv_len: bytes, bv_offset: offset });
        self.count = self.count.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes as usize);
        true
    }

    /// Adds data of a request, as much as has room, at most `limit` bytes. Returns how many.
    pub(super) fn data(&mut self, mut data: PartData<'a>, limit: u32) -> u32 {
        let mut added = 0u32;
        while added < limit && self.has_room() {
            let Some(piece) = data.next(limit.saturating_sub(added)) else {
                break;
            };
            // INVARIANT: *Owned*: the data borrows its flight for as long as `'a`.
            if !self.push(piece.page(), piece.offset(), piece.bytes()) {
                break;
            }
            added = added.saturating_add(piece.bytes());
        }
        added
    }

    /// Adds the rest of a header from byte `from` on. Returns whether it had room.
    pub(super) fn header(&mut self, headers: &'a Headers, slot: usize, from: u32) -> bool {
        let at = Headers::offset(slot).saturating_add(from);
        let bytes = (REQUEST_BYTES as u32).saturating_sub(from);
        // INVARIANT: The page is that of `headers`, which is borrowed for as long as `'a`.
        self.push(headers.page.raw.as_ptr(), at, bytes)
    }

    /// Adds the first bytes of a page of ours. Returns whether it had room.
    pub(super) fn page(&mut self, page: &'a Page, bytes: u32) -> bool {
        // INVARIANT: It is borrowed for as long as `'a`.
        self.push(page.raw.as_ptr(), 0, bytes.min(PAGE_BYTES))
    }

    fn message(&self, direction: u32) -> bindings::msghdr {
        let mut message = message();
        // SAFETY: By the invariant; the iterator is used no longer than `self`.
        unsafe {
            bindings::iov_iter_bvec(
                &mut message.msg_iter,
                direction,
                self.vectors.as_ptr().cast(),
                self.count,
                self.bytes,
            );
        }
        message
    }

    /// Fills the pieces with bytes from a buffer.
    pub(super) fn fill(&self, bytes: &[u8]) {
        let mut message = self.message(bindings::ITER_DEST);
        // SAFETY: The bytes are valid for the call, and no more than there are are copied.
        unsafe {
            bindings::_copy_to_iter(
                bytes.as_ptr().cast::<c_void>(),
                bytes.len().min(self.bytes),
                &mut message.msg_iter,
            );
        }
    }

    /// Fills the pieces with zeroes.
    pub(super) fn zero(&self) {
        let mut message = self.message(bindings::ITER_DEST);
        // SAFETY: By the invariant.
        unsafe { bindings::iov_iter_zero(self.bytes, &mut message.msg_iter) };
    }
}

/// A page of ours, for what is sent and received beside the data of requests.
///
/// INVARIANT: Its only reference is ours.
pub(super) struct Page {
    raw: NonNull<bindings::page>,
}

// SAFETY: A page may be used from all threads. The network writes into it while it is in a message; nobody else has
// it then.
unsafe impl Send for Page {}
// SAFETY: As above.
unsafe impl Sync for Page {}

impl Page {
    /// Gets one, full of zeroes. Sleeps.
    pub(super) fn new() -> Result<Self> {
        // SAFETY: Has no precondition.
        let page = unsafe { bindings::alloc_pages(bindings::GFP_KERNEL | bindings::__GFP_ZERO, 0) };
        // INVARIANT: It was allocated just now.
        NonNull::new(page).map(|raw| Self { raw }).ok_or(ENOMEM)
    }

    /// Writes bytes from `offset` on, as far as they lie within it.
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let offset = offset.min(PAGE_BYTES as usize);
        let length = bytes.len().min((PAGE_BYTES as usize).saturating_sub(offset));
        // SAFETY: The page is ours, nobody reads it meanwhile, and the bytes lie within it.
        unsafe {
            let start = bindings::kmap_local_page(self.raw.as_ptr()).cast::<u8>();
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), start.add(offset), length);
            bindings::kunmap_local(start.cast());
        }
    }

    /// Reads its first bytes.
    pub(super) fn read(&mut self, bytes: &mut [u8]) {
        let length = bytes.len().min(PAGE_BYTES as usize);
        // SAFETY: The page is ours, nobody writes to it meanwhile, and the bytes lie within it. It was zeroed.
        unsafe {
            let start = bindings::kmap_local_page(self.raw.as_ptr()).cast::<u8>();
            core::ptr::copy_nonoverlapping(start, bytes.as_mut_ptr(), length);
            bindings::kunmap_local(start.cast());
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: By the invariant; no message uses it any more.
        unsafe { bindings::__free_pages(self.raw.as_ptr(), 0) };
    }
}

/// The headers of the requests of a connection, one for each slot, because they have to stay until the socket has
/// taken them.
pub(super) struct Headers {
    page: Page,
}

const _: () = assert!(super::record::SLOTS * REQUEST_BYTES <= PAGE_BYTES as usize);

impl Headers {
    /// Gets a page for them. Sleeps.
    pub(super) fn new() -> Result<Self> {
        Ok(Self { page: Page::new()? })
    }

    fn offset(slot: usize) -> u32 {
        // The page has room for all slots, as asserted above.
        (slot.saturating_mul(REQUEST_BYTES)) as u32 % PAGE_BYTES
    }

    /// Writes the header of a slot.
    pub(super) fn write(&mut self, slot: usize, bytes: &[u8; REQUEST_BYTES]) {
        self.page.write(Self::offset(slot) as usize, bytes);
    }
}

/// The running task may use the reserves, and its allocations wait for no I/O, while this exists.
struct Reserves {
    before: u32,
    _here: PhantomData<*mut ()>,
}

const RESERVES: u32 = bindings::PF_MEMALLOC | bindings::PF_MEMALLOC_NOIO;

impl Reserves {
    fn enter() -> Self {
        // SAFETY: A task's flags are changed by itself only.
        let before = unsafe {
            let task = bindings::get_current();
            let before = (*task).flags;
            (*task).flags = before | RESERVES;
            before
        };
        Self { before: before & RESERVES, _here: PhantomData }
    }
}

impl Drop for Reserves {
    fn drop(&mut self) {
        // SAFETY: As in `enter`; it cannot have gone to another task.
        unsafe {
            let task = bindings::get_current();
            (*task).flags = (*task).flags & !RESERVES | self.before;
        }
    }
}

/// Calls the poller of a connection.
pub(super) struct Bell {
    rung: AtomicBool,
    poller: &'static Poller,
}

impl Bell {
    /// One that was not rung yet.
    pub(super) const fn new(poller: &'static Poller) -> Self {
        Self { rung: AtomicBool::new(false), poller }
    }

    /// Has the poller look at the connection. Any context.
    pub(super) fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        self.poller.wake();
    }

    /// Whether it was rung since the last time that this was asked. Only the poller asks.
    pub(super) fn answer(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::SeqCst)
    }
}

/// An entry in the wait queue of a socket.
#[repr(C)]
struct Entry {
    entry: UnsafeCell<bindings::wait_queue_entry>,
    bell: Arc<Bell>,
    _pin: PhantomPinned,
}

/// Rings a bell when something happens on a socket. No function of ours is called any more after it was
/// silenced or dropped.
///
/// INVARIANT: While `listens`, the entry is in the wait queue of the socket, and in none otherwise.
pub(super) struct Watch {
    socket: Arc<Socket>,
    entry: KBox<Entry>,
    listens: bool,
}

// SAFETY: The entry is changed under the lock of its queue, or by whoever has the watch.
unsafe impl Send for Watch {}

impl Watch {
    /// For a socket, to which it does not listen yet. Sleeps.
    pub(super) fn new(socket: Arc<Socket>, bell: Arc<Bell>) -> Result<Self> {
        let entry = Entry {
            entry: UnsafeCell::new(bindings::wait_queue_entry::default()),
            bell,
            _pin: PhantomPinned,
        };
        let entry = KBox::new(entry, GFP_KERNEL)?;
        // INVARIANT: It does not listen yet.
        Ok(Self { socket, entry, listens: false })
    }

    /// The socket.
    pub(super) fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// Listens, and rings at once, because something may have happened before.
    pub(super) fn listen(&mut self) {
        if !self.listens {
            // SAFETY: By the invariant the entry is in no queue. It does not move, because it is in a box, and
            // `drop` takes it out again before it and the socket go.
            unsafe {
                let entry = self.entry.entry.get();
                *entry = bindings::wait_queue_entry::default();
                (*entry).func = Some(socket_woke);
                bindings::add_wait_queue(self.queue(), entry);
            }
            self.listens = true;
        }
        self.entry.bell.ring();
    }

    /// Listens, if it does not. Returns whether it has begun to.
    pub(super) fn hear(&mut self) -> bool {
        let begins = !self.listens;
        if begins {
            self.listen();
        }
        begins
    }

    /// Ends listening. When it returns the function of ours is not running and is not called again.
    pub(super) fn silence(&mut self) {
        if core::mem::replace(&mut self.listens, false) {
            // SAFETY: By the invariant it is in that queue. Its lock is held while an entry's function runs, and
            // removing takes it.
            unsafe { bindings::remove_wait_queue(self.queue(), self.entry.entry.get()) };
        }
    }

    fn queue(&self) -> *mut bindings::wait_queue_head {
        // SAFETY: *Held*. The queue is part of the socket.
        unsafe { &raw mut (*self.socket.raw.as_ptr()).wq.wait }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.silence();
    }
}

const _: () = assert!(core::mem::offset_of!(Entry, entry) == 0);

/// Called by the network, with the queue locked and perhaps in an interrupt.
///
/// # Safety
///
/// `entry` must be that of an [`Entry`] in a queue.
unsafe extern "C" fn socket_woke(
    entry: *mut bindings::wait_queue_entry,
    _mode: u32,
    _flags: c_int,
    _key: *mut c_void,
) -> c_int {
    // SAFETY: By the contract of this function; the entry is the first member. It is shared only.
    unsafe { &*entry.cast::<Entry>() }.bell.ring();
    1
}
