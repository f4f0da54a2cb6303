// SPDX-License-Identifier: GPL-2.0

//! One target of a volume: what all kinds have in common.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::device::feature;
use crate::abi::request::{op, status};
use crate::abi::text::Text;
use crate::bdev;
use crate::bios;
use crate::flight::{boottime_ns, Context, Flight};
use crate::history::{Failure as Failed, History};
use crate::limits::Facts;
use crate::meter::Meter;
use crate::nbd;
use crate::pages::Store;
use crate::points;
use crate::ram::Ram;
use crate::shape::VolumeId;
use crate::shown::{Connection, Status, TargetState};
use crate::spec::{self, Source, MAX_CONNECTIONS};
use crate::state::TargetPast;
use crate::sys;
use crate::why::{Failure, Why};

/// What serves a part.
enum Kind {
    Null,
    Ram { ram: Ram, key: u64 },
    Bdev(bdev::Target),
    Nbd(Arc<nbd::Target>),
}

/// A target of a volume, with what it has measured. Shared between all CPUs.
pub(crate) struct Target {
    kind: Kind,
    /// Sectors of a target without a size of its own.
    sectors: AtomicU64,
    /// It has a cache that a flush has to empty.
    cached: bool,
    /// Nothing was written to it yet.
    untouched: AtomicBool,
    meter: Meter,
    history: History,
}

/// Where a target comes from.
#[derive(Clone, Copy)]
pub(crate) enum Origin<'a> {
    /// It is new.
    Fresh,
    /// An earlier payload has left it.
    Left {
        /// What it left of it.
        past: &'a TargetPast<'a>,
        /// The image is older than the moment in which that payload was cut off.
        checkpoint: bool,
    },
}

/// The key of what Atom keeps for a target, and with `0xff` of its page store. The keys of the connections of
/// an NBD target are those from its own on.
pub(crate) fn key(volume: VolumeId, target: usize) -> u64 {
    1 << 63 | volume.to_u64() << 12 | (target as u64 & 0xf) << 8
}

fn store_key(key: u64) -> u64 {
    key | 0xff
}

impl Target {
    /// Makes or takes over a target. On an error nothing is left of one that is new. Sleeps.
    pub(crate) fn new(
        spec: &spec::Target<'_>,
        key: u64,
        origin: Origin<'_>,
    ) -> Result<Self, Failure> {
        points::TARGET_MAKE.meet()?;
        let meter = Meter::new()?;
        let history = History::default();
        if let Origin::Left { past, .. } = origin {
            past.latency(|at, latency| meter.load(at, latency));
            past.failures(&history);
        }
        let sectors = spec.sectors;
        let memory = |what: &str| match sectors {
            0 => Err(Failure {
                error: EINVAL,
                why: Why::new(format_args!("a {what} target needs a size")),
            }),
            _ => Ok(()),
        };
        let kind = match (&spec.source, origin) {
            (Source::Null, _) => {
                memory("null")?;
                Kind::Null
            }
            (Source::Ram, Origin::Fresh) => {
                memory("ram")?;
                let key = store_key(key);
                Kind::Ram { ram: Ram::new(Store::create(key)?, 0), key }
            }
            (Source::Ram, Origin::Left { past, checkpoint }) => {
                let key = store_key(key);
                let store = Store::claim(key)?;
                let pages = if checkpoint { store.count() } else { past.pages };
                Kind::Ram { ram: Ram::new(store, pages), key }
            }
            (Source::Bdev(path), Origin::Fresh) => Kind::Bdev(bdev::Target::create(path, key)?),
            (Source::Bdev(_), Origin::Left { .. }) => Kind::Bdev(bdev::Target::adopt(key)?),
            (Source::Nbd(nbd), Origin::Fresh) => {
                let target = nbd::Target::create(nbd, &spec.terms, key, sectors);
                Kind::Nbd(target.map_err(|failure| Failure {
                    error: failure.error,
                    why: Why::new(format_args!("{}", failure.why)),
                })?)
            }
            (Source::Nbd(nbd), Origin::Left { past, checkpoint }) => {
                Kind::Nbd(nbd::Target::adopt(nbd, &spec.terms, key, past.nbd, checkpoint)?)
            }
        };
        let mut target = Self {
            kind,
            sectors: AtomicU64::new(sectors),
            cached: false,
            untouched: AtomicBool::new(false),
            meter,
            history,
        };
        target.cached = target.facts().features & feature::WRITE_CACHE != 0;
        Ok(target)
    }

    /// Lets go of it for good: what Atom keeps for it is released. No request may be carried out on it any
    /// more. Sleeps.
    pub(crate) fn close(&self) {
        let released = match &self.kind {
            Kind::Null => Ok(()),
            Kind::Ram { key, .. } => sys::release_pages(*key),
            Kind::Bdev(bdev) => bdev.close(),
            Kind::Nbd(nbd) => {
                nbd.clone().close();
                Ok(())
            }
        };
        if let Err(error) = released {
            pr_warn!("a target was not released: error {}\n", error.to_errno());
        }
    }

    /// Whether its requests are dispatched where it is allowed to sleep.
    pub(crate) fn sleeps(&self) -> bool {
        matches!(self.kind, Kind::Bdev(_) | Kind::Nbd(_))
    }

    /// Whether a flush has to go to it.
    #[inline]
    pub(crate) fn is_cached(&self) -> bool {
        self.cached && !self.untouched.load(Ordering::Relaxed)
    }

    /// Nothing goes to it before the device has its sectors: until then no flush does either, so that it can be
    /// closed when the device does not get them.
    pub(crate) fn keep_untouched(&self) {
        self.untouched.store(true, Ordering::Relaxed);
    }

    /// What it can do.
    pub(crate) fn facts(&self) -> Facts {
        match &self.kind {
            Kind::Null | Kind::Ram { .. } => Facts::of_memory(self.sectors.load(Ordering::Relaxed)),
            Kind::Bdev(bdev) => bdev.facts(),
            Kind::Nbd(nbd) => nbd.facts(),
        }
    }

    /// Learns how many sectors its volume uses of it, where it has no size of its own.
    pub(crate) fn set_sectors(&self, sectors: u64) {
        self.sectors.store(sectors, Ordering::Relaxed);
    }

    /// Whether it is on a network.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.kind, Kind::Nbd(_))
    }

    /// The sectors that it has now, also when that is asked of its server. Sleeps.
    pub(crate) fn sectors_now(&self) -> Result<u64> {
        match &self.kind {
            // Memory has the size that it is given.
            Kind::Null | Kind::Ram { .. } => Ok(u64::MAX),
            Kind::Bdev(bdev) => Ok(bdev.sectors()),
            Kind::Nbd(nbd) => nbd.resize_check(),
        }
    }

    /// Has it carry out the part of a flight. Gives the flight back when memory is short now.
    #[inline]
    pub(crate) fn submit(&self, flight: Flight, context: Context) -> Result<(), Flight> {
        if self.untouched.load(Ordering::Relaxed) && !matches!(flight.op(), op::READ | op::FLUSH) {
            // A flush that covers the write begins after the write has ended, and so finds it.
            self.untouched.store(false, Ordering::Relaxed);
        }
        self.meter.begin(flight.hctx());
        self.hand_over(flight, context)
    }

    #[inline]
    fn hand_over(&self, flight: Flight, context: Context) -> Result<(), Flight> {
        match &self.kind {
            Kind::Null => {
                flight.finish(status::OK);
                Ok(())
            }
            // Its pages are locked in tasks only.
            Kind::Ram { .. } if context == Context::Atomic => {
                bios::later(flight);
                Ok(())
            }
            Kind::Ram { ram, .. } => serve(ram, flight),
            Kind::Bdev(bdev) => {
                bdev.submit(flight, context);
                Ok(())
            }
            Kind::Nbd(nbd) => {
                nbd.submit(flight, context);
                Ok(())
            }
        }
    }

    /// All parts of a batch were handed over.
    #[inline]
    pub(crate) fn was_all(&self, hctx: u32) {
        if let Kind::Nbd(nbd) = &self.kind {
            nbd.was_all(hctx);
        }
    }

    /// The same in the task that may wait, for what was left to it.
    pub(crate) fn carry_on(&self, flight: Flight) -> Result<(), Flight> {
        match &self.kind {
            Kind::Bdev(bdev) => {
                bdev.submit_waiting(flight);
                Ok(())
            }
            _ => self.hand_over(flight, Context::MaySleep),
        }
    }

    /// Counts a part that has ended. Any context.
    #[inline]
    pub(crate) fn part_ended(&self, flight: &Flight, outcome: u32) {
        if outcome == status::NOT_STARTED {
            return self.part_given_back(flight);
        }
        self.meter.count(flight.hctx(), flight.op(), flight.age_ns());
        if outcome != status::OK {
            self.history.add(&Failed {
                when_ns: boottime_ns(),
                sector: flight.sector(),
                op: flight.op(),
                status: outcome,
            });
        }
    }

    /// Counts a part that was not taken after all, and will be issued again.
    pub(crate) fn part_given_back(&self, flight: &Flight) {
        self.meter.give_back(flight.hctx());
    }

    /// What it has measured for the operation at a place of [`crate::counts::OPS`].
    pub(crate) fn latency(&self, at: usize) -> crate::latency::OpLatency {
        self.meter.sum(at)
    }

    /// What it has failed.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// Pages that it has in memory.
    pub(crate) fn pages(&self) -> u64 {
        match &self.kind {
            Kind::Ram { ram, .. } => ram.pages(),
            _ => 0,
        }
    }

    /// How many parts were issued that cannot be taken back, and how many of them have ended.
    pub(crate) fn progress(&self) -> (u64, u64) {
        match &self.kind {
            Kind::Nbd(_) => (0, 0),
            _ => self.meter.progress(),
        }
    }

    /// Hands back every request that was not started. Of the others of this machine a part is under way from when it is issued.
    pub(crate) fn hand_back(&self) {
        if let Kind::Nbd(nbd) = &self.kind {
            nbd.hand_back();
        }
    }

    /// Lets go of every request, because the deadline of a drain has passed.
    pub(crate) fn revoke(&self) -> Result {
        match &self.kind {
            Kind::Nbd(nbd) => nbd.revoke(),
            _ => Ok(()),
        }
    }

    /// Has it try to connect at once.
    pub(crate) fn retry_now(&self) {
        if let Kind::Nbd(nbd) = &self.kind {
            nbd.retry_now();
        }
    }

    /// Writes what it leaves to the next payload beside what was measured. Only while *nbd* is parked.
    pub(crate) fn record(&self, out: &mut [u8]) -> Result<usize> {
        match &self.kind {
            Kind::Nbd(nbd) => nbd.record(out),
            _ => Ok(0),
        }
    }

    /// Writes what a checkpoint has of it beside what was measured.
    pub(crate) fn checkpoint(&self, out: &mut [u8]) -> Result<usize> {
        match &self.kind {
            Kind::Nbd(nbd) => nbd.checkpoint(out),
            _ => Ok(0),
        }
    }

    /// Why a request has not ended.
    pub(crate) fn explain(&self, code: u8, sector: u64) -> Text {
        match &self.kind {
            Kind::Nbd(nbd) => nbd.explain(code, sector),
            Kind::Bdev(_) => Text::new("the block device below has not answered"),
            _ => Text::EMPTY,
        }
    }

    /// What is known of it, with up to [`MAX_CONNECTIONS`] connections. Returns how many there are.
    pub(crate) fn status(
        &self,
        connections: &mut [Connection; MAX_CONNECTIONS as usize],
    ) -> (Status, usize) {
        let status = Status {
            state: TargetState::Ready,
            connections: 0,
            wanted: 0,
            waiting: 0,
            since_ns: 0,
            reconnects: 0,
            resent: 0,
            protocol_errors: 0,
            failures: self.history.total(),
            pages: self.pages(),
            facts: self.facts(),
            last_error: Text::EMPTY,
        };
        match &self.kind {
            Kind::Nbd(nbd) => nbd.show(status, connections),
            _ => (status, 0),
        }
    }
}

#[inline]
fn serve(ram: &Ram, flight: Flight) -> Result<(), Flight> {
    match ram.serve_part(&flight) {
        status::RESOURCE => Err(flight),
        outcome => {
            flight.finish(outcome);
            Ok(())
        }
    }
}

/// The operations that a target can be asked for.
#[inline]
pub(crate) fn is_known(code: u8) -> bool {
    matches!(code, op::READ | op::WRITE | op::FLUSH | op::DISCARD | op::WRITE_ZEROES)
}
