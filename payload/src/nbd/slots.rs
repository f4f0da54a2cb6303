// SPDX-License-Identifier: GPL-2.0

//! The requests of a connection that are in flight.
//!
//! A request in flight has a slot. A reply may come before the task that sent the request has returned from
//! sending it; whoever of the two is last then ends the request.

use kernel::prelude::*;

use super::connection::{protocol, Lost};
use super::record::{slot, Orphan, SLOTS};
use super::reply::Coverage;
use crate::flight::Flight;

/// Where the request of a slot is.
pub(super) enum Place {
    /// There is none.
    Free,
    /// Here.
    Out(Flight),
    /// With the sending side, which has not sent all of it, or with the receiving side, which reads its data.
    Lent,
    /// With the sending side; the reply has come, and this is how the request ends.
    Answered(u32),
    /// It has ended, but the sending side has not returned yet.
    Done,
    /// It was let go of. Its reply is still to come.
    Orphan,
}

/// A request in flight.
pub(super) struct Slot {
    pub(super) place: Place,
    pub(super) cookie: u64,
    pub(super) sector: u64,
    pub(super) sent_ns: u64,
    pub(super) bytes: u32,
    /// The data that has come.
    pub(super) covered: Coverage,
    /// The first error that a chunk has told.
    pub(super) error: u32,
    pub(super) op: u8,
    /// The sending side has not returned.
    pub(super) unsent: bool,
}

impl Slot {
    const FREE: Self = Self {
        place: Place::Free,
        cookie: 0,
        sector: 0,
        sent_ns: 0,
        bytes: 0,
        covered: Coverage::NONE,
        error: 0,
        op: 0,
        unsent: false,
    };

    /// Whether there is a request in it that is not answered.
    pub(super) fn waits(&self) -> bool {
        !matches!(self.place, Place::Free | Place::Done)
    }

    pub(super) fn orphan(&self) -> Option<Orphan> {
        matches!(self.place, Place::Orphan).then_some(Orphan {
            cookie: self.cookie,
            sector: self.sector,
            bytes: self.bytes,
            op: self.op,
            sent_ns: self.sent_ns,
        })
    }
}

/// All slots of a connection.
pub(super) struct Slots {
    all: KVec<Slot>,
    /// Those that are free, bit for bit.
    free: u64,
}

const _: () = assert!(SLOTS as u32 == u64::BITS);

impl Slots {
    /// All free. Sleeps.
    pub(super) fn new() -> Result<Self> {
        let mut all = KVec::with_capacity(SLOTS, GFP_KERNEL)?;
        for _ in 0..SLOTS {
            all.push(Slot::FREE, GFP_KERNEL)?;
        }
        Ok(Self { all, free: u64::MAX })
    }

    /// Those that are free, bit for bit. Only the sending side takes slots, so that they stay free while it is locked.
    pub(super) fn free(&self) -> u64 {
        self.free
    }

    /// The one at a place.
    pub(super) fn at(&mut self, at: usize) -> Option<&mut Slot> {
        self.all.get_mut(at)
    }

    /// Puts a request into a slot.
    pub(super) fn put(&mut self, at: usize, slot: Slot) {
        if let Some(place) = self.all.get_mut(at) {
            *place = slot;
            self.free &= !bit(at);
        }
    }

    /// Frees a slot, and returns where its request was.
    pub(super) fn take(&mut self, at: usize) -> Place {
        match self.all.get_mut(at) {
            Some(slot) => {
                self.free |= bit(at);
                core::mem::replace(&mut slot.place, Place::Free)
            }
            None => Place::Free,
        }
    }

    /// The slot of a cookie that is in flight.
    pub(super) fn find(&mut self, cookie: u64) -> Result<(usize, &mut Slot), Lost> {
        let unknown = || protocol(format_args!("a reply has the unknown cookie {cookie:#x}"));
        let at = slot(cookie).ok_or_else(unknown)?;
        let slot = self.all.get_mut(at).ok_or_else(unknown)?;
        match slot.place {
            Place::Free | Place::Done | Place::Answered(_) => Err(unknown()),
            _ if slot.cookie != cookie => Err(unknown()),
            _ => Ok((at, slot)),
        }
    }

    /// All of them, to look at.
    pub(super) fn iter(&self) -> core::slice::Iter<'_, Slot> {
        self.all.iter()
    }

    /// All of them. None is freed or taken that way.
    pub(super) fn iter_mut(&mut self) -> core::slice::IterMut<'_, Slot> {
        self.all.iter_mut()
    }
}

fn bit(at: usize) -> u64 {
    1u64.checked_shl(at as u32).unwrap_or(0)
}
