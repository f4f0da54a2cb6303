// SPDX-License-Identifier: GPL-2.0

//! The requests of a connection that are in flight.
//!
//! A request in flight has a slot. A reply may come before the task that sent the request has returned from
//! sending it; whoever of the two is last then ends the request.

use kernel::prelude::*;

use super::connection::{protocol, Lost};
use super::record::{slot, Orphan};
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
    pub(super) const FREE: Self = Self {
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

/// The slot of a cookie that is in flight.
pub(super) fn find(slots: &mut KVec<Slot>, cookie: u64) -> Result<(usize, &mut Slot), Lost> {
    let unknown = || protocol(format_args!("a reply has the unknown cookie {cookie:#x}"));
    let at = slot(cookie).ok_or_else(unknown)?;
    let slot = slots.get_mut(at).ok_or_else(unknown)?;
    match slot.place {
        Place::Free | Place::Done | Place::Answered(_) => Err(unknown()),
        _ if slot.cookie != cookie => Err(unknown()),
        _ => Ok((at, slot)),
    }
}
