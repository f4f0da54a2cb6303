// SPDX-License-Identifier: GPL-2.0

//! One NBD target: its queue, its connections, and what is known of its export.
//!
//! Here is how one is made and closed, and what others ask of it; in `target/` the queue, the server, what goes over to
//! the next payload, and what people are told.

mod queue;
mod server;
mod succession;
mod told;

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use kernel::prelude::*;
use kernel::sync::{
    new_condvar, new_mutex, new_spinlock, Arc, CondVar, CondVarTimeoutResult, Mutex, SpinLock,
};
use kernel::time::msecs_to_jiffies;

use self::queue::Queue;
use self::server::{State, NOTHING};
use super::connection::Connection;
use super::handshake::{Goal, Handshake};
use super::poller::{self, Poller};
use super::rules::{earlier, later, ns};
use super::socket::{Bell, Place, Progress, Socket};
use super::wire::transmission;
use super::{line, not_connected};
use crate::abi::device::feature;
use crate::abi::request::status;
use crate::abi::text::Text;
use crate::flight::{now_ns, FlightList, FlightStack};
use crate::limits::{Facts, MAX_RANGE_SECTORS};
use crate::spec::{Address, Nbd, OnFailure, Terms, MAX_CONNECTIONS};

/// How long *create* and *resize_check* wait for a server.
const WAIT_MS: u64 = 10_000;
/// Longest read or write that a target asks for, in bytes: what every server takes.
const MAX_PAYLOAD_BYTES: u32 = 32 << 20;
/// Longest name of a host or path that fits into a message.
const HOST_BYTES: usize = 28;

/// Why a target could not be made.
pub(crate) struct Failure {
    /// For programs.
    pub(crate) error: Error,
    /// For people.
    pub(crate) why: Text,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, why: line(format_args!("error {}", error.to_errno())) }
    }
}

/// An export of a server. Shared between all CPUs.
#[pin_data]
pub(crate) struct Target {
    place: Place,
    name: Text,
    export: KVec<u8>,
    terms: Terms,
    keepalive_s: u32,
    wanted: usize,
    key: u64,
    connections: KVec<Arc<Connection>>,
    pollers: KVec<&'static Poller>,
    arrived: FlightStack,
    /// Requests that wait, here or in the queue.
    waiting: AtomicU32,
    resent: AtomicU64,
    orphans: AtomicU32,
    /// Bit for bit the connections that are alive.
    live: AtomicU32,
    /// The flags of the export.
    flags: AtomicU32,
    /// Requests end with an error at once.
    fails: AtomicBool,
    /// It was adopted, and I/O is not served yet.
    asleep: AtomicBool,
    /// The pause before it was adopted has been taken out of its times.
    resumed: AtomicBool,
    /// Somebody asks for an attempt at once.
    retry: AtomicBool,
    closed: AtomicBool,
    #[pin]
    queue: SpinLock<Queue>,
    #[pin]
    state: Mutex<State>,
    #[pin]
    changed: CondVar,
}

impl Target {
    fn new(
        spec: &Nbd<'_>,
        terms: &Terms,
        key: u64,
        state: State,
        asleep: bool,
    ) -> Result<Arc<Self>> {
        let mut export = KVec::with_capacity(spec.export.len(), GFP_KERNEL)?;
        export.extend_from_slice(spec.export.as_bytes(), GFP_KERNEL)?;
        let wanted = spec.connections.clamp(1, MAX_CONNECTIONS) as usize;
        let (mut connections, mut pollers) = (KVec::new(), KVec::new());
        // The last one only looks at the export, when it is asked for.
        for index in 0..=wanted {
            let number = (key >> 8) as usize;
            let poller = poller::choose(number.wrapping_add(index));
            let bell = Arc::new(Bell::new(poller), GFP_KERNEL)?;
            connections.push(Connection::new(index, index == wanted, bell)?, GFP_KERNEL)?;
            pollers.push(poller, GFP_KERNEL)?;
        }
        let flags = u32::from(state.agreed.unwrap_or(NOTHING).flags);
        let fails = state.failed && terms.on_failure == OnFailure::Error;
        Arc::pin_init(
            try_pin_init!(Self {
                place: Place::new(&spec.address)?,
                name: name(&spec.address),
                export,
                terms: *terms,
                keepalive_s: spec.keepalive_s,
                wanted,
                key,
                connections,
                pollers,
                arrived: FlightStack::new(),
                waiting: AtomicU32::new(0),
                resent: AtomicU64::new(0),
                orphans: AtomicU32::new(0),
                live: AtomicU32::new(0),
                flags: AtomicU32::new(flags),
                fails: AtomicBool::new(fails),
                resumed: AtomicBool::new(!asleep),
                asleep: AtomicBool::new(asleep),
                retry: AtomicBool::new(false),
                closed: AtomicBool::new(false),
                queue <- new_spinlock!(Queue::new()),
                state <- new_mutex!(state),
                changed <- new_condvar!(),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Connects to a server, and waits at most ten seconds for it. On an error nothing is left. Sleeps.
    ///
    /// `key` is that of the first connection, for Atom. `sectors_wanted` is what the export has to have, 0: any.
    pub(crate) fn create(
        spec: &Nbd<'_>,
        terms: &Terms,
        key: u64,
        sectors_wanted: u64,
    ) -> core::result::Result<Arc<Self>, Failure> {
        poller::start()?;
        let target = Self::new(spec, terms, key, State::new(now_ns()), false)?;
        poller::add(target.clone())?;
        let outcome = target.first_attempt().and_then(|()| {
            let sectors = target.facts().sectors;
            match sectors {
                0 => Err(Failure { error: ENOSPC, why: Text::new("the export is empty") }),
                _ if sectors < sectors_wanted => Err(Failure {
                    error: ENOSPC,
                    why: line(format_args!("the export has {sectors} sectors only")),
                }),
                _ => Ok(()),
            }
        });
        match outcome {
            Ok(()) => Ok(target),
            Err(failure) => {
                target.close();
                Err(failure)
            }
        }
    }

    fn first_attempt(&self) -> core::result::Result<(), Failure> {
        let failed = |why| Err(Failure { error: not_connected(), why });
        match self.wait_for(|state| state.first)? {
            Some(Ok(())) => Ok(()),
            Some(Err(why)) => failed(why),
            None => failed(Text::new("the server does not answer")),
        }
    }

    /// Waits until there is something, at most [`WAIT_MS`]. Errors: `EINTR`.
    fn wait_for<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> Result<Option<T>> {
        let ends = now_ns().saturating_add(ns(WAIT_MS));
        let mut state = self.state.lock();
        loop {
            if let Some(found) = look(&mut state) {
                return Ok(Some(found));
            }
            let left_ms = ends.saturating_sub(now_ns()).div_ceil(1_000_000);
            if left_ms == 0 {
                return Ok(None);
            }
            let jiffies = msecs_to_jiffies(left_ms as u32).max(1);
            let woken = self.changed.wait_interruptible_timeout(&mut state, jiffies);
            if matches!(woken, CondVarTimeoutResult::Signal { .. }) {
                return Err(EINTR);
            }
        }
    }

    /// What the export can do.
    pub(crate) fn facts(&self) -> Facts {
        let agreed = self.state.lock().agreed.unwrap_or(NOTHING);
        let flag = |flag: u16| agreed.flags & flag != 0;
        let bit = |flag_of_export: u16, bit: u32| if flag(flag_of_export) { bit } else { 0 };
        let blocks = agreed.blocks;
        let block = blocks.minimum.max(512);
        let range = |flag_of_export: u16| {
            if flag(flag_of_export) {
                MAX_RANGE_SECTORS
            } else {
                0
            }
        };
        let writes = if flag(transmission::SEND_FLUSH) {
            bit(transmission::SEND_FUA, feature::FUA) | feature::WRITE_CACHE
        } else {
            0
        };
        Facts {
            sectors: agreed.bytes / 512 / u64::from(block / 512).max(1) * u64::from(block / 512),
            logical_block_bytes: block,
            physical_block_bytes: blocks.preferred.max(block),
            io_min_bytes: blocks.preferred.max(block),
            io_opt_bytes: 0,
            max_sectors: blocks.maximum.min(MAX_PAYLOAD_BYTES) / 512,
            discard_granularity_bytes: if flag(transmission::SEND_TRIM) { block } else { 0 },
            max_discard_sectors: range(transmission::SEND_TRIM),
            max_write_zeroes_sectors: range(transmission::SEND_WRITE_ZEROES),
            dma_alignment_mask: 0,
            features: writes
                | bit(transmission::ROTATIONAL, feature::ROTATIONAL)
                | bit(transmission::READ_ONLY, feature::READ_ONLY),
        }
    }

    // What connections ask.

    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn poller(&self, index: usize) -> &'static Poller {
        self.pollers.get(index).copied().unwrap_or_else(|| poller::choose(0))
    }

    /// Has a connection do what is to be done. Called by its poller.
    pub(super) fn service(&self, index: usize, now: u64) -> Option<u64> {
        if self.asleep.load(Ordering::SeqCst) || self.closed.load(Ordering::SeqCst) {
            return None;
        }
        let due = self.connections.get(index)?.service(self, now);
        match index {
            0 => earlier(due, self.tick(now)),
            _ => due,
        }
    }

    /// Stops or begins listening to the socket of a connection. Called by its poller.
    pub(super) fn silence(&self, index: usize, silent: bool) {
        // A target that was adopted begins when I/O is served.
        if let Some(connection) = self.connections.get(index) {
            connection.silence(silent);
        }
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn knows_fua(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & u32::from(transmission::SEND_FUA) != 0
    }

    /// False only for a server that is found to have no cache when it is not known any more what it was like.
    pub(super) fn knows_flush(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & u32::from(transmission::SEND_FLUSH) != 0
    }

    pub(super) fn connect(&self, index: usize) -> Result<(Socket, Progress)> {
        Socket::connect(&self.place, self.keepalive_s, self.key | index as u64)
    }

    pub(super) fn handshake(&self, goal: Goal) -> Option<Handshake> {
        Handshake::new(core::str::from_utf8(&self.export).ok()?, goal)
    }

    // Commands and the lifecycle.

    /// Has it try to connect at once. Does not sleep.
    pub(crate) fn retry_now(&self) {
        self.retry.store(true, Ordering::SeqCst);
        self.connections.iter().for_each(|connection| connection.ring());
    }

    /// The sectors of the export as a new connection sees them. Sleeps, at most ten seconds. Errors: `ETIMEDOUT`,
    /// `ENOTCONN`, `EBUSY`.
    pub(crate) fn resize_check(&self) -> Result<u64> {
        let mut state = self.state.lock();
        if state.probing {
            return Err(EBUSY);
        }
        state.probing = true;
        state.probed = None;
        drop(state);
        self.wake_up();
        if let Some(probe) = self.connections.get(self.wanted) {
            probe.ring();
        }
        let outcome = self.wait_for(|state| state.probed.take());
        if !matches!(outcome, Ok(Some(_))) {
            self.state.lock().probing = false;
            if let Some(probe) = self.connections.get(self.wanted) {
                probe.drop_attempt();
            }
        }
        match outcome? {
            Some(Ok(bytes)) => {
                let mut state = self.state.lock();
                if let Some(agreed) = &mut state.agreed {
                    agreed.bytes = agreed.bytes.max(bytes);
                }
                Ok(bytes / 512)
            }
            Some(Err(_)) => Err(not_connected()),
            None => Err(ETIMEDOUT),
        }
    }

    /// No attempt is made any more but for requests that wait, and those under way are dropped.
    pub(super) fn suspend(&self) {
        self.connections.iter().for_each(|connection| {
            connection.drop_attempt();
            connection.ring();
        });
    }

    /// Attempts go on; the pause does not count.
    pub(super) fn resume(&self, paused_ns: u64) {
        self.connections.iter().for_each(|connection| connection.shift(paused_ns));
        let mut state = self.state.lock();
        state.since_ns = later(state.since_ns, paused_ns);
        state.attempts.pause(paused_ns);
        drop(state);
        self.resumed.store(true, Ordering::SeqCst);
        self.wake_up();
        self.connections.iter().for_each(|connection| connection.ring());
    }

    /// Ends it: the server is told, and the sockets are released. No request may be carried out on it any more.
    /// Sleeps.
    pub(crate) fn close(self: Arc<Self>) {
        self.closed.store(true, Ordering::SeqCst);
        poller::remove(&self);
        let mut left = FlightList::new();
        for connection in &self.connections {
            connection.close(&mut left);
        }
        self.live.store(0, Ordering::SeqCst);
        left.append(&mut self.empty_queue());
        // There is none: its device is gone.
        while let Some(flight) = left.pop_front() {
            flight.finish(status::IO);
        }
    }
}

/// Host and port, or the path, as far as it fits.
fn name(address: &Address<'_>) -> Text {
    let cut = |text: &str| {
        let mut end = text.len().min(HOST_BYTES);
        while !text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        Text::new(text.get(..end).unwrap_or(""))
    };
    match address {
        Address::V4 { host, port, .. } | Address::V6 { host, port, .. } => {
            line(format_args!("{}:{port}", cut(host)))
        }
        Address::Unix { path } => cut(path),
    }
}
