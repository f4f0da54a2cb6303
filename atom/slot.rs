// SPDX-License-Identifier: GPL-2.0

//! What a device has of the live payload. Pure.
//!
//! A slot changes only while the device's gate is closed, or before its disk is added: nobody reads it then.
//! The gate's grace period is what keeps a dispatch from meeting two payloads in one slot. On the I/O path a slot is
//! only read, and its words share one cache line.

#![allow(unreachable_pub, reason = "the same file is part of a library on the host")]

use core::ffi::c_void;
use core::ptr::{null_mut, NonNull};

use crate::abi::sync::{AtomicPtr, AtomicU64, Ordering};

/// The entry points of the payload that serves, the device's cookie and the epoch.
#[repr(C)]
#[derive(Debug)]
pub struct Slot {
    /// *queue_rq*; null: nobody.
    entry: AtomicPtr<c_void>,
    /// What the payload knows the device by.
    cookie: AtomicU64,
    /// The generation that serves.
    epoch: AtomicU64,
    /// *timeout*; null: the payload has none, or nobody.
    timeout: AtomicPtr<c_void>,
    /// *commit*; null: the payload has none, or nobody.
    commit: AtomicPtr<c_void>,
}

/// What every slot of a payload is filled with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seat {
    /// *queue_rq*, not null.
    pub entry: *mut c_void,
    /// *timeout*; may be null.
    pub timeout: *mut c_void,
    /// *commit*; may be null.
    pub commit: *mut c_void,
    /// The generation in which the payload serves.
    pub epoch: u64,
}

/// What a slot holds at one moment. The three belong together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seated {
    /// The entry point that was asked for, not null.
    pub entry: *mut c_void,
    /// What the payload knows the device by.
    pub cookie: u64,
    /// The generation that serves.
    pub epoch: u64,
}

impl Slot {
    /// Nobody is in it.
    #[cfg(not(loom))]
    pub const fn empty() -> Self {
        Self {
            entry: AtomicPtr::new(null_mut()),
            cookie: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            timeout: AtomicPtr::new(null_mut()),
            commit: AtomicPtr::new(null_mut()),
        }
    }

    /// Nobody is in it.
    #[cfg(loom)]
    pub fn empty() -> Self {
        Self {
            entry: AtomicPtr::new(null_mut()),
            cookie: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            timeout: AtomicPtr::new(null_mut()),
            commit: AtomicPtr::new(null_mut()),
        }
    }

    /// Puts a payload in, which knows the device by `cookie`. The gate is closed, or the disk not added yet.
    pub fn fill(&self, seat: Seat, cookie: u64) {
        self.cookie.store(cookie, Ordering::Relaxed);
        self.epoch.store(seat.epoch, Ordering::Relaxed);
        self.timeout.store(seat.timeout, Ordering::Release);
        self.commit.store(seat.commit, Ordering::Release);
        // Last, so that whoever sees it sees the rest.
        self.entry.store(seat.entry, Ordering::Release);
    }

    /// Takes whoever is in it out. The gate is closed.
    pub fn clear(&self) {
        self.entry.store(null_mut(), Ordering::Release);
        self.timeout.store(null_mut(), Ordering::Release);
        self.commit.store(null_mut(), Ordering::Release);
    }

    /// Who serves, by *queue_rq*; `None` when nobody does. RCU read side, while the gate is open.
    #[inline]
    pub fn read(&self) -> Option<Seated> {
        self.seated(&self.entry)
    }

    /// Who serves, by *timeout*; `None` when nobody does, or the payload has none. Context: as for [`Slot::read`].
    #[inline]
    pub fn timeout(&self) -> Option<Seated> {
        self.seated(&self.timeout)
    }

    /// Who serves, by *commit*; `None` when nobody does, or the payload has none. Context: as for [`Slot::read`].
    #[inline]
    pub fn commit(&self) -> Option<Seated> {
        self.seated(&self.commit)
    }

    #[inline]
    fn seated(&self, entry: &AtomicPtr<c_void>) -> Option<Seated> {
        found(entry).map(|entry| self.whole(entry))
    }

    /// The entry point of *queue_rq* alone, for who needs the rest later in the same dispatch; `None` when nobody serves. Context: as
    /// for [`Slot::read`].
    #[inline]
    pub fn entry(&self) -> Option<NonNull<c_void>> {
        found(&self.entry)
    }

    /// What belongs to an entry point that was found in this dispatch. Context: as for [`Slot::read`].
    #[inline]
    pub fn whole(&self, entry: NonNull<c_void>) -> Seated {
        let cookie = self.cookie.load(Ordering::Relaxed);
        Seated { entry: entry.as_ptr(), cookie, epoch: self.epoch.load(Ordering::Relaxed) }
    }
}

#[inline]
fn found(entry: &AtomicPtr<c_void>) -> Option<NonNull<c_void>> {
    // Before the rest: pairs with the stores in `fill`.
    NonNull::new(entry.load(Ordering::Acquire))
}
