// SPDX-License-Identifier: GPL-2.0

//! Requests that have ended and are finished later.

use core::sync::atomic::Ordering;

use crate::abi::request::status;
use crate::flight::{Flight, FlightList};

/// Requests that have ended, until no lock is held any more: what goes on with them may want one.
pub(super) struct Ended {
    good: FlightList,
    bad: FlightList,
}

impl Ended {
    pub(super) const NONE: Self = Self { good: FlightList::new(), bad: FlightList::new() };

    pub(super) fn add(&mut self, flight: Flight, outcome: u32) {
        match outcome {
            status::OK => self.good.push_back(flight),
            _ => {
                flight.word().store(u64::from(outcome), Ordering::Relaxed);
                self.bad.push_back(flight);
            }
        }
    }

    pub(super) fn finish(mut self) {
        while let Some(flight) = self.good.pop_front() {
            flight.finish(status::OK);
        }
        while let Some(flight) = self.bad.pop_front() {
            let outcome = flight.word().load(Ordering::Relaxed);
            flight.finish(u32::try_from(outcome).unwrap_or(status::IO));
        }
    }
}
