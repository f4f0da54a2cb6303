// SPDX-License-Identifier: GPL-2.0

//! A volume over targets: the way of a request through them.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::device::{feature, DeviceSpec};
use crate::abi::request::{op, status};
use crate::abi::text::Text;
use crate::answers::Given;
use crate::bios;
use crate::flight::{Context, Flight, FlightList};
use crate::held::Held;
use crate::layout::{Map, Part};
use crate::limits::Limits;
use crate::shape::Shape;
use crate::spec::Made;
use crate::statistics::Statistics;
use crate::target::{is_known, Target};

/// A volume over targets. Changed in nothing while it serves: a volume that grows is another one over the same
/// targets.
pub(crate) struct Composed {
    map: Map,
    targets: KVec<Arc<Target>>,
    statistics: Arc<Statistics>,
    held: Arc<Held>,
    limits: Limits,
    sleeps: bool,
    /// What it is made of, as `spec.rs` writes it, with the sectors that each target gives.
    made: KVec<u8>,
}

impl Composed {
    /// Puts a volume together. There must be as many targets as in the map. May sleep.
    pub(crate) fn new(
        map: Map,
        targets: KVec<Arc<Target>>,
        (statistics, held): (Arc<Statistics>, Arc<Held>),
        limits: Limits,
        made: KVec<u8>,
    ) -> Result<KBox<Self>> {
        if map.targets() != targets.len() {
            return Err(EINVAL);
        }
        let sleeps = targets.iter().any(|target| target.sleeps());
        let composed = Self { map, targets, statistics, held, limits, sleeps, made };
        Ok(KBox::new(composed, GFP_KERNEL)?)
    }

    /// Carries out a request of this volume that was just handed over, or keeps it until the last one of its batch
    /// comes. `RESOURCE` when it was not taken, because memory is short now. May sleep where [`Composed::sleeps`].
    pub(crate) fn dispatch(&self, flight: Flight) -> u32 {
        let (more, hctx) = (flight.more(), flight.hctx());
        let refused = self.check(&flight);
        if refused != status::OK {
            Self::end(flight, refused);
            if !more {
                self.commit(hctx.into());
            }
            return status::OK;
        }
        let flight = match more && self.sleeps && bios::may_submit(&flight) {
            true => match self.held.add(flight) {
                Ok(()) => return status::OK,
                Err(flight) => flight,
            },
            false => flight,
        };
        let before = self.held.take(hctx.into());
        if before.is_empty() {
            return Self::begin(flight, Context::MaySleep);
        }
        self.together(before, Some(flight), hctx.into())
    }

    /// Carries out what waits for the last one of a batch. In the dispatch of the batch.
    pub(crate) fn commit(&self, hctx: u32) {
        let before = self.held.take(hctx);
        if !before.is_empty() {
            self.together(before, None, hctx);
        }
    }

    /// Hands all requests of a batch to their targets. The status of the last one as of [`Self::dispatch`].
    fn together(&self, mut before: FlightList, last: Option<Flight>, hctx: u32) -> u32 {
        // More of other queues can be left in the plug now than when the first one came.
        let apart = last.as_ref().is_none_or(bios::may_submit);
        let context = if apart { Context::Together } else { Context::Atomic };
        bios::together(|| {
            while let Some(flight) = before.pop_front() {
                if let Err(flight) = Self::run(flight, context, 0) {
                    bios::later(flight);
                }
            }
            let outcome = last.map_or(status::OK, |last| Self::begin(last, context));
            if apart {
                self.targets.iter().for_each(|target| target.was_all(hctx));
            }
            outcome
        })
    }

    /// Begins a request. `RESOURCE` when it was not taken.
    fn begin(flight: Flight, context: Context) -> u32 {
        match Self::run(flight, context, 0) {
            Ok(()) => status::OK,
            Err(flight) => {
                if let Some(target) = flight.composed().targets.get(flight.target()) {
                    target.part_given_back(&flight);
                }
                flight.give_back();
                status::RESOURCE
            }
        }
    }

    /// Whether a request can be carried out at all.
    #[inline]
    fn check(&self, flight: &Flight) -> u32 {
        if !is_known(flight.op()) {
            return status::NOT_SUPPORTED;
        }
        if flight.op() == op::FLUSH {
            // It is about no sector, and the block layer says any.
            return status::OK;
        }
        if self.limits.features & feature::READ_ONLY != 0 && flight.op() != op::READ {
            // The block layer only warns, here and below.
            return status::IO;
        }
        let sectors = u64::from(flight.volume_bytes() / 512);
        let end = flight.volume_sector().checked_add(sectors);
        // The block layer has checked it against the device, which is as large.
        match end.is_some_and(|end| end <= self.map.capacity()) {
            true => status::OK,
            false => status::IO,
        }
    }

    /// Goes on with a request behind a part that has ended. On the RCU read side, any context.
    pub(crate) fn go_on(flight: Flight) {
        match flight.outcome() {
            status::OK => {
                let at = flight.next_at();
                if let Err(flight) = Self::run(flight, Context::Atomic, at) {
                    bios::later(flight);
                }
            }
            failed => Self::end(flight, failed),
        }
    }

    /// Has a target carry out a part that was left to the task that may wait. Gives the flight back when memory
    /// is still short.
    pub(crate) fn carry_on(flight: Flight) -> Result<(), Flight> {
        flight.within(|composed, flight| match composed.targets.get(flight.target()) {
            Some(target) => target.carry_on(flight),
            None => {
                flight.finish(status::IO);
                Ok(())
            }
        })
    }

    /// Has the targets carry out one part after the other, from where `at` says, for as long as each ends at
    /// once.
    fn run(mut flight: Flight, context: Context, mut at: u64) -> Result<(), Flight> {
        loop {
            let Some(part) = flight.composed().next_part(&flight, at) else {
                Self::end(flight, status::OK);
                return Ok(());
            };
            let (issued, issuer) = flight.issue(&part);
            let handed =
                issued.within(|composed, issued| match composed.targets.get(part.target) {
                    Some(target) => target.submit(issued, context),
                    None => {
                        issued.finish(status::IO);
                        Ok(())
                    }
                });
            if let Err(flight) = handed {
                flight.is_left();
                return Err(flight);
            }
            match issuer.issued() {
                None => return Ok(()),
                Some(ended) => flight = ended,
            }
            if flight.outcome() != status::OK {
                let failed = flight.outcome();
                Self::end(flight, failed);
                return Ok(());
            }
            at = flight.next_at();
        }
    }

    #[inline]
    fn next_part(&self, flight: &Flight, mut at: u64) -> Option<Part> {
        let sectors = u64::from(flight.volume_bytes() / 512);
        loop {
            let part = self.map.part(flight.op(), flight.volume_sector(), sectors, at)?;
            let cached = self.targets.get(part.target).is_some_and(|target| target.is_cached());
            if flight.op() != op::FLUSH || cached {
                return Some(part);
            }
            at = part.next;
        }
    }

    /// Ends a request. Any context.
    #[inline]
    fn end(flight: Flight, outcome: u32) {
        if outcome == status::NOT_STARTED {
            return flight.end(outcome);
        }
        let failed = outcome != status::OK;
        // Before the request ends, so that whoever waits for the end finds it counted.
        let statistics = &flight.composed().statistics;
        statistics.count(flight.hctx(), flight.op(), flight.volume_bytes(), failed);
        flight.end(outcome);
    }

    /// Counts a part that has ended. Any context.
    #[inline]
    pub(crate) fn part_ended(&self, flight: &Flight, outcome: u32) {
        if let Some(target) = self.targets.get(flight.target()) {
            target.part_ended(flight, outcome);
        }
    }

    /// Whether its device has to be one whose requests are dispatched where it is allowed to sleep.
    pub(crate) fn sleeps(&self) -> bool {
        self.sleeps
    }

    /// The device that it asks Atom for.
    pub(crate) fn spec(&self, shape: &Shape) -> DeviceSpec {
        let spec = self.limits.spec(self.map.capacity(), shape.hw_queues, shape.queue_depth);
        let sleeps = if self.sleeps() { feature::SLEEPS } else { 0 };
        DeviceSpec { features: spec.features | sleeps, ..spec }
    }

    /// The targets, in the order of the layout.
    pub(crate) fn targets(&self) -> &[Arc<Target>] {
        &self.targets
    }

    /// What it has counted.
    pub(crate) fn statistics(&self) -> &Arc<Statistics> {
        &self.statistics
    }

    /// What waits for the last one of a batch.
    pub(crate) fn held(&self) -> &Arc<Held> {
        &self.held
    }

    /// The limits of its device.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Which sectors lie where.
    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// What it is made of.
    pub(crate) fn made(&self) -> Result<Made<'_>> {
        // It was written by `Made::encode`.
        Made::decode(&self.made).map_err(|_| EINVAL)
    }

    /// What each target gives.
    pub(crate) fn given(&self) -> Result<impl ExactSizeIterator<Item = Given> + '_> {
        let made = self.made()?;
        let mut used = made.targets();
        Ok(self.targets.iter().map(move |target| Given {
            used: used.next().map_or(0, |target| target.sectors),
            sectors: target.facts().sectors,
        }))
    }

    /// Pages that its targets have in memory.
    pub(crate) fn pages(&self) -> u64 {
        self.targets.iter().fold(0, |sum, target| sum.saturating_add(target.pages()))
    }

    /// Why a request has not ended.
    pub(crate) fn explain(&self, code: u8, sector: u64) -> Text {
        match code {
            op::FLUSH => self
                .targets
                .iter()
                .map(|target| target.explain(code, 0))
                .find(|reason| !reason.is_empty())
                .unwrap_or(Text::EMPTY),
            _ => self
                .map
                .place(sector)
                .and_then(|(target, sector, _)| Some((self.targets.get(target)?, sector)))
                .map_or(Text::EMPTY, |(target, sector)| target.explain(code, sector)),
        }
    }
}
