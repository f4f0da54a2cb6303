// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The per-request record and who owns a request.
//!
//! The record lies behind the kernel's `struct request` in memory that Atom's tag set allocated, so
//! that it exists for as long as the device does and costs no allocation.

use core::ffi::c_void;

use super::sync::{AtomicU64, Ordering};

/// 64-bit words of scratch in a [`Request`] that belong to the payload while it owns the request.
pub const SCRATCH_WORDS: usize = 16;
/// The same in bytes.
pub const SCRATCH_BYTES: usize = SCRATCH_WORDS * 8;

/// What a request asks for. The numbers are those of the kernel's `enum req_op`
/// (`include/linux/blk_types.h`).
pub mod op {
    /// Read sectors.
    pub const READ: u8 = 0;
    /// Write sectors.
    pub const WRITE: u8 = 1;
    /// Make completed writes durable.
    pub const FLUSH: u8 = 2;
    /// The content of the sectors is not needed any more.
    pub const DISCARD: u8 = 3;
    /// Write zeroes.
    pub const WRITE_ZEROES: u8 = 9;

    /// The name used in messages.
    pub fn name(op: u8) -> &'static str {
        match op {
            READ => "read",
            WRITE => "write",
            FLUSH => "flush",
            DISCARD => "discard",
            WRITE_ZEROES => "write-zeroes",
            _ => "other",
        }
    }
}

/// Flag bits of a request.
pub mod flags {
    /// The write must be durable when it ends.
    pub const FUA: u8 = 1 << 0;
    /// Write-zeroes must not deallocate.
    pub const NOUNMAP: u8 = 1 << 1;
    /// An earlier payload may have carried out some or all of it.
    pub const REPLAY: u8 = 1 << 2;
    /// Since 1.2. Another request of this hardware queue is dispatched at once, or *commit* follows. Only for a
    /// payload that has *commit*.
    pub const MORE: u8 = 1 << 3;
}

/// How a request ended, or why it could not be taken. The numbers are those of the kernel's
/// `blk_status_t` (`include/linux/blk_types.h`).
pub mod status {
    /// Done; from `queue_rq`: taken.
    pub const OK: u32 = 0;
    /// The target has no such operation.
    pub const NOT_SUPPORTED: u32 = 1;
    /// The target did not answer in time.
    pub const TIMEOUT: u32 = 2;
    /// The target is full.
    pub const NO_SPACE: u32 = 3;
    /// The target cannot be reached.
    pub const TRANSPORT: u32 = 4;
    /// The medium is damaged at this place.
    pub const MEDIUM: u32 = 7;
    /// A resource is short now: Atom asks again later. Only from `queue_rq`.
    pub const RESOURCE: u32 = 9;
    /// The target failed.
    pub const IO: u32 = 10;
    /// The request was not started, or may be carried out again from its beginning: it goes to whoever serves when the gate opens. No
    /// number of the kernel's. Only within *hand_back*. Since 1.5.
    pub const NOT_STARTED: u32 = 1 << 16;

    /// The kernel's status: `code` when it is one of these, else [`IO`].
    pub const fn to_kernel(code: u32) -> u8 {
        match code {
            OK | NOT_SUPPORTED | TIMEOUT | NO_SPACE | TRANSPORT | MEDIUM | RESOURCE => code as u8,
            _ => IO as u8,
        }
    }

    /// The same for a request that ends: what would be asked for again later ends with [`IO`].
    pub const fn at_end(code: u32) -> u8 {
        match code {
            RESOURCE => IO as u8,
            _ => to_kernel(code),
        }
    }
}

/// What *timeout* answers. Since 1.1.
pub mod timeout {
    /// The request is still being worked on: ask again after the same time.
    pub const WAIT: u32 = 0;
    /// The payload has ended it, or is about to.
    pub const HANDLED: u32 = 1;
}

/// What becomes of a request that was taken back from a payload and is to be reissued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reissue {
    /// It goes to the next payload, with [`flags::REPLAY`].
    Replay,
    /// It ends as done, without being carried out (again).
    Done,
}

/// The rule for an operation. All of them were handed to a payload that did not end them, so some, all or
/// nothing of each may have been carried out, and nobody was told.
///
/// - *Read*, *write*, *write-zeroes*: replayed. To do the same again is no harm: before its end a write may
///   reach the medium at any time, and the old payload has promised that nothing of it follows late.
/// - *FUA*: the flag stays; durability that was not acknowledged has to be made again.
/// - *Flush*: replayed. It covers every write that ended before, whichever payload ended it.
/// - *Discard*: ends as done. It is advice, and carried out late it could destroy what was written since.
pub const fn reissue(op: u8) -> Reissue {
    match op {
        op::DISCARD => Reissue::Done,
        _ => Reissue::Replay,
    }
}

/// The stage of a drain in which a request is waited for: an index into the report's stages.
pub const fn stage_of(op: u8) -> usize {
    match op {
        op::FLUSH => super::control::stage::FLUSHES,
        _ => super::control::stage::DATA,
    }
}

/// Who owns a request: an epoch and a state in one word, so that both change together.
///
/// States of a request, by number:
///
/// 0. *free*: the block layer owns it, or nobody; no payload may touch it.
/// 1. *owned*: the payload of the epoch owns it.
/// 2. *ended*: that payload has ended it, or has not started it; the block layer is being told.
/// 3. *revoked*: Atom has taken it back from that payload; the next claim is a replay.
///
/// ```text
/// 0 --claim(epoch)--> 1 --end(epoch)--> 2 --claim--> 1 ...
///                                       2 --again--> 0, or 3 for a replay
///                     1 --give_back(epoch)--> 0, or 3 for a replay
///                     1 --revoke--> 3 --claim--> 1, a replay
///                                   3 --free--> 0
/// ```
///
/// `end` with any other epoch, or in any other state, changes nothing. The word lies in the request's
/// own memory and is written by one CPU at a time, so it is no shared cache line.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Ownership(AtomicU64);

/// The states of [`Ownership`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// State 0.
    Free,
    /// State 1.
    Payload,
    /// State 2.
    Ended,
    /// State 3.
    Revoked,
}

/// The request is not owned by that epoch: the call is refused and nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stale;

const STATE_BITS: u32 = 2;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;
const FREE: u64 = 0;
const OWNED: u64 = 1;
const ENDED: u64 = 2;
const REVOKED: u64 = 3;

const fn word(epoch: u64, state: u64) -> u64 {
    (epoch << STATE_BITS) | state
}

impl Ownership {
    /// Free, of no epoch.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU64::new(word(0, FREE)))
    }

    /// Free, of no epoch.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicU64::new(word(0, FREE)))
    }

    /// 0, 2 or 3 to 1: the payload of `epoch` owns the request from here. True for a replay.
    ///
    /// Called by the one CPU that dispatches the request, so a plain store is enough.
    #[inline]
    pub fn claim(&self, epoch: u64) -> bool {
        let replay = self.0.load(Ordering::Relaxed) & STATE_MASK == REVOKED;
        self.0.store(word(epoch, OWNED), Ordering::Release);
        replay
    }

    /// 1 to 3, whichever epoch owns it. False when nobody does (any more).
    pub fn revoke(&self) -> bool {
        let value = self.0.load(Ordering::SeqCst);
        value & STATE_MASK == OWNED && self.leave(value >> STATE_BITS, REVOKED).is_ok()
    }

    /// 1 to 2: the payload of `epoch` has ended the request.
    #[inline]
    pub fn end(&self, epoch: u64) -> Result<(), Stale> {
        self.leave(epoch, ENDED)
    }

    /// 2 to 0: the request is to be claimed again, as it was not started. A replay goes to 3, so that it is one again. Called by whoever
    /// has moved it to 2.
    pub fn again(&self, replay: bool) {
        let epoch = self.0.load(Ordering::Relaxed) >> STATE_BITS;
        self.0.store(word(epoch, if replay { REVOKED } else { FREE }), Ordering::Release);
    }

    /// 1 to 0: the payload of `epoch` did not take the request. A replay goes to 3, so that it is one again.
    #[inline]
    pub fn give_back(&self, epoch: u64, replay: bool) -> Result<(), Stale> {
        self.leave(epoch, if replay { REVOKED } else { FREE })
    }

    /// Anything to 0: the request ends without a payload. Called by the one CPU that dispatches it.
    pub fn free(&self) {
        self.0.store(word(0, FREE), Ordering::Release);
    }

    #[inline]
    fn leave(&self, epoch: u64, state: u64) -> Result<(), Stale> {
        // A full barrier on success: whoever waits for the drain reads the word after it has said
        // that it waits, and the ending side looks for a waiter after it has written the word.
        self.0
            .compare_exchange(
                word(epoch, OWNED),
                word(epoch, state),
                Ordering::SeqCst,
                Ordering::Relaxed,
            )
            .map(|_| ())
            .map_err(|_| Stale)
    }

    /// The epoch and state at one moment.
    #[inline]
    pub fn read(&self) -> (u64, Owner) {
        let value = self.0.load(Ordering::SeqCst);
        let owner = match value & STATE_MASK {
            OWNED => Owner::Payload,
            ENDED => Owner::Ended,
            REVOKED => Owner::Revoked,
            _ => Owner::Free,
        };
        (value >> STATE_BITS, owner)
    }
}

/// One request, as the payload sees it. Shape: `repr(C)`, in the tag set's memory.
///
/// The payload reads everything and writes only [`Request::scratch`], and only while it owns the
/// request: from `queue_rq` until it calls `atom_request_end`.
#[repr(C)]
#[derive(Debug)]
pub struct Request {
    /// Who owns the request.
    pub ownership: Ownership,
    /// The kernel's `struct request *`, from which the data pages are reached.
    pub rq: *mut c_void,
    /// First sector, in units of 512 bytes.
    pub sector: u64,
    /// Length in bytes. Zero for a flush.
    pub bytes: u32,
    /// One of [`op`].
    pub op: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// Index of the hardware queue that dispatched the request.
    pub hctx: u16,
    /// The tag, unique within the hardware queue.
    pub tag: u32,
    /// The device's identity: N of `/dev/atomN`.
    pub device: u32,
    /// The payload's own, without meaning to Atom; content is undefined when a request arrives.
    pub scratch: [u64; SCRATCH_WORDS],
}
