// SPDX-License-Identifier: GPL-2.0

//! Volumes whose data lies in pages of memory.
//!
//! The pages belong to a store of Atom, under the identity of the volume, so that they are never copied
//! and need no time in a switch. A page that is absent reads as zeroes. A volume keeps what it was
//! written until it is destroyed or the machine stops, so a flush has nothing to do.
//!
//! Requests that overlap and run at the same time have no order; each page is inserted once, whoever
//! comes first, and a page that is taken out stays readable for those who have already found it.

use core::sync::atomic::{AtomicU64, Ordering};

use kernel::sync::rcu;

use crate::abi::request::{flags, op, status};
#[cfg(payload_client)]
use crate::flight::Flight;
use crate::pages::{Io, Piece, Store};
use crate::points;
use crate::shape::PAGE_BYTES;

/// The data of a volume.
pub(crate) struct Ram {
    store: Store,
    /// Pages in the store. Changes only together with the store, whose lock is taken for that anyway.
    pages: AtomicU64,
}

/// A range of bytes of the volume, which begins and ends anywhere.
struct Range {
    start: u64,
    end: u64,
}

impl Ram {
    /// A volume on a store that has so many pages.
    pub(crate) fn new(store: Store, pages: u64) -> Self {
        Self { store, pages: AtomicU64::new(pages) }
    }

    /// Pages that it has in memory.
    pub(crate) fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Learns how many pages the store has by now.
    #[cfg(payload_ahead)]
    pub(crate) fn set_pages(&self, pages: u64) {
        self.pages.store(pages, Ordering::Relaxed);
    }

    /// Carries out a request and returns its status, `RESOURCE` when memory is short now: what has been
    /// written until then is written again with the next try. Does not sleep.
    #[inline]
    pub(crate) fn serve(&self, io: &Io) -> u32 {
        let mut data = io.data();
        self.carry_out(io.op, io.flags, range(io.sector, io.bytes), |limit| data.next(limit))
    }

    /// The same for a part of a request, whose data `next` has piece by piece.
    #[cfg(payload_client)]
    pub(crate) fn serve_part(&self, flight: &Flight) -> u32 {
        // Only where it is asked for: zeroes and discards have no segments in which a place could be looked for.
        let mut data = None;
        let next = |limit| data.get_or_insert_with(|| flight.data()).next(limit);
        self.carry_out(flight.op(), flight.flags(), range(flight.sector(), flight.bytes()), next)
    }

    #[inline]
    fn carry_out<'a>(
        &self,
        code: u8,
        bits: u8,
        range: Option<Range>,
        next: impl FnMut(u32) -> Option<Piece<'a>>,
    ) -> u32 {
        if code == op::FLUSH {
            // It is about no sector, and the block layer says any.
            return status::OK;
        }
        let Some(range) = range else {
            return status::IO;
        };
        match code {
            op::READ => self.transfer(range, next, false),
            op::WRITE => self.transfer(range, next, true),
            op::DISCARD => self.clear(range, true),
            op::WRITE_ZEROES => self.clear(range, bits & flags::NOUNMAP == 0),
            _ => status::NOT_SUPPORTED,
        }
    }

    /// Counts pages that were removed. A payload that was cut off may have gone on adding pages while they
    /// were counted, so there may be more than are known of.
    fn forget(&self, removed: u64) {
        let fewer = |pages: u64| Some(pages.saturating_sub(removed));
        // It never fails, because `fewer` always has an answer.
        let _ = self.pages.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
    }

    #[inline]
    fn transfer<'a>(
        &self,
        Range { start, end }: Range,
        mut next: impl FnMut(u32) -> Option<Piece<'a>>,
        write: bool,
    ) -> u32 {
        let guard = rcu::read_lock();
        let mut at = start;
        while at < end {
            let (page, offset) = split(at);
            let room = u64::from(PAGE_BYTES.saturating_sub(offset)).min(end.saturating_sub(at));
            let Some(piece) = next(u32::try_from(room).unwrap_or(0)) else {
                // Less data than the request says.
                return status::IO;
            };
            if points::QUEUE_PAGE.meet().is_err() {
                return status::RESOURCE;
            }
            if write {
                match self.store.write(&guard, page, offset, &piece) {
                    Ok(true) => {
                        self.pages.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(false) => {}
                    Err(_) => return status::RESOURCE,
                }
            } else {
                self.store.read(&guard, page, offset, &piece);
            }
            at = at.saturating_add(piece.bytes().into());
        }
        status::OK
    }

    /// Makes the range read as zeroes. Whole pages are given back when `unmap` allows it.
    fn clear(&self, Range { start, end }: Range, unmap: bool) -> u32 {
        if start >= end {
            return status::OK;
        }
        let guard = rcu::read_lock();
        let (mut page, _) = split(start);
        let (last, _) = split(end.saturating_sub(1));
        // Pages that are absent read as zeroes already; the store skips them.
        while let Some(found) = self.store.next(&guard, page, last) {
            let page_start = found.saturating_mul(PAGE_BYTES.into());
            let page_end = page_start.saturating_add(PAGE_BYTES.into());
            let from = start.max(page_start);
            let to = end.min(page_end);
            if unmap && from == page_start && to == page_end {
                let removed = self.store.remove(&guard, found);
                self.forget(removed.into());
            } else {
                let (_, offset) = split(from);
                let bytes = u32::try_from(to.saturating_sub(from)).unwrap_or(0);
                self.store.zero(&guard, found, offset, bytes);
            }
            let Some(after) = found.checked_add(1).filter(|after| *after <= last) else {
                break;
            };
            page = after;
        }
        status::OK
    }
}

/// The index of the page that holds a byte, and the place in it.
fn split(at: u64) -> (u64, u32) {
    let page = u64::from(PAGE_BYTES);
    (at / page, (at % page) as u32)
}

/// The bytes that a request is about. The block layer has checked them against the capacity.
fn range(sector: u64, bytes: u32) -> Option<Range> {
    let start = sector.checked_mul(512)?;
    let end = start.checked_add(bytes.into())?;
    Some(Range { start, end })
}
