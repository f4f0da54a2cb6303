// SPDX-License-Identifier: GPL-2.0

//! Requests of a volume that wait for the others of their batch, to be handed to the targets together.
//!
//! Each hardware queue has a list of its own, to which every task adds that dispatches there. Each of them takes
//! all that is there at the end of its own batch, so that nothing stays: what one of them finds is less only when
//! another one has it.

use kernel::prelude::*;

use crate::flight::{Flight, FlightList, FlightStack};
use crate::sys;

/// Most lists of a volume; hardware queues beyond that share them.
const MAX_LISTS: u32 = 16;

/// A list in a cache line of its own.
#[repr(align(64))]
struct Line(FlightStack);

/// The lists of a volume.
pub(crate) struct Held {
    lines: KVec<Line>,
}

impl Held {
    /// Nothing waits. Allocates; may sleep.
    pub(crate) fn new() -> Result<Self> {
        let count = sys::processors().clamp(1, MAX_LISTS);
        let mut lines = KVec::with_capacity(count as usize, GFP_KERNEL)?;
        for _ in 0..count {
            lines.push(Line(FlightStack::new()), GFP_KERNEL)?;
        }
        Ok(Self { lines })
    }

    fn list(&self, hctx: u32) -> Option<&FlightStack> {
        let line = (hctx as usize).checked_rem(self.lines.len())?;
        self.lines.get(line).map(|line| &line.0)
    }

    /// Adds one. Gives it back when there is no list.
    #[inline]
    pub(crate) fn add(&self, flight: Flight) -> Result<(), Flight> {
        match self.list(flight.hctx().into()) {
            Some(list) => {
                list.push(flight);
                Ok(())
            }
            None => Err(flight),
        }
    }

    /// Takes all that wait on a hardware queue, the oldest first.
    #[inline]
    pub(crate) fn take(&self, hctx: u32) -> FlightList {
        match self.list(hctx) {
            Some(list) if !list.is_empty() => list.take(),
            _ => FlightList::new(),
        }
    }
}
