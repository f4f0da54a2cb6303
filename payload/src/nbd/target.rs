// SPDX-License-Identifier: GPL-2.0

//! One NBD target: its queue, its connections, and what is known of its export.
//!
//! A request that comes is put on a stack that needs no lock, because it may come at the end of another in an
//! interrupt. Whoever sends takes the stack into the lines of the scheduler, and the next request from there.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use kernel::prelude::*;
use kernel::sync::{
    new_condvar, new_mutex, new_spinlock, Arc, CondVar, CondVarTimeoutResult, Mutex, SpinLock,
};
use kernel::time::msecs_to_jiffies;

use super::connection::{Connection, Lost};
use super::handshake::{Agreed, Blocks, Goal, Handshake};
use super::poller::{self, Poller};
use super::record::{Record, State as Past, Writer};
use super::rules::{earlier, fails_ns, later, ns, Attempts, BackOff, Limit};
#[cfg(not(payload_schema = "5"))]
use super::scheduler::Fifo as Order;
#[cfg(payload_schema = "5")]
use super::scheduler::ReadsFirst as Order;
use super::scheduler::{Line, Schedule};
use super::socket::{Bell, Place, Progress, Socket};
use super::wire::transmission;
use super::{line, not_connected, protocol_errno, suspended, tell};
use crate::abi::device::feature;
use crate::abi::request::{op, status};
use crate::abi::text::Text;
use crate::flight::{now_ns, Context, Flight, FlightList, FlightStack};
use crate::limits::{Facts, MAX_RANGE_SECTORS};
use crate::shape::PAGE_BYTES;
use crate::shown::{self, Status, TargetState};
use crate::spec::{Address, Nbd, OnFailure, Terms, MAX_CONNECTIONS};

/// How long *create* and *resize_check* wait for a server.
const WAIT_MS: u64 = 10_000;
/// A connection that lived for less counts as an attempt that failed, so that a server that accepts and drops is
/// not asked in a loop.
const STABLE_NS: u64 = ns(1000);
/// Longest read or write that a target asks for, in bytes: what every server takes.
const MAX_PAYLOAD_BYTES: u32 = 32 << 20;
/// Why a second connection is refused.
const SINGLE: &str = "the server does not allow several connections";
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

/// The requests that wait, in the lines of the scheduler.
struct Queue {
    first: FlightList,
    second: FlightList,
    /// Those that an orphan could still write over.
    behind: FlightList,
    order: Order,
}

impl Queue {
    fn add(&mut self, flight: Flight) {
        match Order::line(flight.op()) {
            Line::First => self.first.push_back(flight),
            Line::Second => self.second.push_back(flight),
        }
    }

    /// Adds one that has been here before.
    fn add_again(&mut self, flight: Flight) {
        match Order::line(flight.op()) {
            Line::First => self.first.push_front(flight),
            Line::Second => self.second.push_front(flight),
        }
    }
}

/// What is known of the server.
struct State {
    /// What was agreed on last.
    agreed: Option<Agreed>,
    /// Since when it has a connection, or has none.
    since_ns: u64,
    failed: bool,
    attempts: Attempts,
    reconnects: u64,
    protocol_errors: u64,
    last_error: Text,
    /// How the first attempt has ended, once it has.
    first: Option<core::result::Result<(), Text>>,
    /// Somebody wants to know the size; then what it is.
    probing: bool,
    probed: Option<core::result::Result<u64, Text>>,
    limit: Limit,
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
        let queue = Queue {
            first: FlightList::new(),
            second: FlightList::new(),
            behind: FlightList::new(),
            order: Order::NEW,
        };
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
                queue <- new_spinlock!(queue),
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

    /// Takes a target over that an earlier payload has left. Only within *adopt*; nothing is sent or received
    /// before the first request or *resume*, so that all can be undone.
    ///
    /// After a `checkpoint` nobody knows where the connections are in their streams, nor which there are, because it
    /// is older than they may be. All that there are are shut down and stay with Atom, because a thread of the dead
    /// payload may still use them. The export must be as the checkpoint says. The record of an earlier release is
    /// empty then.
    pub(crate) fn adopt(
        spec: &Nbd<'_>,
        terms: &Terms,
        key: u64,
        record: &[u8],
        checkpoint: bool,
    ) -> Result<Arc<Self>> {
        poller::start()?;
        if checkpoint {
            return Self::adopt_checkpoint(spec, terms, key, record);
        }
        let record = Record::decode(record).map_err(|_| protocol_errno())?;
        let target = Self::new(spec, terms, key, State::of_past(&record.state), true)?;
        target.resent.store(record.state.resent, Ordering::Relaxed);
        for (found, orphans) in record.connections() {
            // The number of connections is that of the same volume; another record is none of it.
            let connection = target.serving().nth(found.index).ok_or_else(protocol_errno)?;
            let socket = Socket::claim(key | u64::from(found.key))?;
            let count = connection.restore(socket, &found, orphans)?;
            target.orphans_come(count);
            target.live.fetch_or(1 << found.index, Ordering::SeqCst);
        }
        poller::add(target.clone())?;
        Ok(target)
    }

    fn adopt_checkpoint(
        spec: &Nbd<'_>,
        terms: &Terms,
        key: u64,
        record: &[u8],
    ) -> Result<Arc<Self>> {
        let mut state = match record {
            [] => State { first: Some(Ok(())), ..State::new(0) },
            bytes => State::of_past(&Record::decode(bytes).map_err(|_| protocol_errno())?.state),
        };
        // What has become of its connection since then is not known.
        (state.failed, state.attempts) = (false, Attempts::default());
        state.since_ns = now_ns();
        let target = Self::new(spec, terms, key, state, true)?;
        for connection in target.serving() {
            Socket::shut_down_left(key | connection.index as u64);
        }
        poller::add(target.clone())?;
        Ok(target)
    }

    /// Writes what goes into the image. Only while the pollers are parked. Errors: `ENOSPC`.
    pub(crate) fn record(&self, out: &mut [u8]) -> Result<usize> {
        // Nothing is allocated, because volumes are visited on the RCU read side.
        let mut live = 0usize;
        for connection in self.serving() {
            live = live.saturating_add(usize::from(connection.record()?.is_some()));
        }
        let full = |_| ENOSPC;
        let mut writer = Writer::new(out, &self.past(), live).map_err(full)?;
        for connection in self.serving() {
            let Some(record) = connection.record()? else {
                continue;
            };
            let mut count = 0usize;
            connection.each_orphan(|_| count = count.saturating_add(1));
            writer.connection(&record, count).map_err(full)?;
            let mut outcome = Ok(());
            connection.each_orphan(|orphan| {
                if outcome.is_ok() {
                    outcome = writer.orphan(orphan).map_err(full);
                }
            });
            outcome?;
        }
        Ok(writer.finish())
    }

    /// Writes what goes into a checkpoint: what the export is like, and no connection, because whoever adopts it
    /// connects anew. At any time. Errors: `ENOSPC`.
    pub(crate) fn checkpoint(&self, out: &mut [u8]) -> Result<usize> {
        Ok(Writer::new(out, &self.past(), 0).map_err(|_| ENOSPC)?.finish())
    }

    fn past(&self) -> Past {
        let state = self.state.lock();
        let agreed = state.agreed.unwrap_or(NOTHING);
        Past {
            bytes: agreed.bytes,
            flags: agreed.flags,
            blocks: agreed.blocks,
            since_ns: state.since_ns,
            failed: state.failed,
            back_off: state.attempts.alone,
            reconnects: state.reconnects,
            resent: self.resent.load(Ordering::Relaxed),
            protocol_errors: state.protocol_errors,
            last_error: state.last_error,
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

    // Requests.

    /// Has the server carry out the part of a flight. In a task it is sent at once if that is possible without
    /// waiting.
    pub(crate) fn submit(&self, flight: Flight, context: Context) {
        if self.fails.load(Ordering::SeqCst) {
            return flight.finish(status::TRANSPORT);
        }
        self.wake_up();
        let hctx = usize::from(flight.hctx());
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.arrived.push(flight);
        // Whoever declares it failed empties the queue after that, so that one of the two finds the request.
        if self.fails.load(Ordering::SeqCst) {
            self.ring_first();
            return;
        }
        let Some(connection) = self.choose(hctx) else {
            return;
        };
        match context {
            Context::MaySleep => connection.pump(self),
            Context::Together => {}
            Context::Atomic => connection.ring(),
        }
    }

    /// All requests of a batch are in the queue.
    pub(crate) fn was_all(&self, hctx: u32) {
        if self.waiting.load(Ordering::SeqCst) != 0 {
            if let Some(connection) = self.choose(hctx as usize) {
                connection.pump(self);
            }
        }
    }

    /// I/O is served from here on.
    fn wake_up(&self) {
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::SeqCst) {
            self.connections.iter().for_each(|connection| connection.ring());
        }
    }

    /// A connection that is alive, a different one for each hardware queue as far as there are some.
    fn choose(&self, hctx: usize) -> Option<&Connection> {
        let live = self.live.load(Ordering::SeqCst);
        let count = live.count_ones() as usize;
        let nth = hctx.checked_rem(count)?;
        self.serving().filter(|c| live & 1 << c.index != 0).nth(nth)
    }

    /// The connections that requests can be sent on.
    fn serving(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().take(self.wanted).map(|connection| &**connection)
    }

    fn ring_first(&self) {
        if let Some(first) = self.connections.first() {
            first.ring();
        }
    }

    /// Whether a request waits to be sent.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) != 0
    }

    /// The request that goes next.
    pub(super) fn next(&self) -> Option<Flight> {
        if !self.has_waiting() {
            return None;
        }
        let mut queue = self.queue.lock();
        self.collect(&mut queue);
        loop {
            let (first, second) = (!queue.first.is_empty(), !queue.second.is_empty());
            let flight = match queue.order.next(first, second)? {
                Line::First => queue.first.pop_front(),
                Line::Second => queue.second.pop_front(),
            }?;
            if self.orphans.load(Ordering::SeqCst) != 0 && self.is_behind_orphan(&flight) {
                queue.behind.push_back(flight);
                continue;
            }
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Some(flight);
        }
    }

    /// Takes what has arrived into the lines.
    fn collect(&self, queue: &mut Queue) {
        let mut arrived = self.arrived.take();
        while let Some(flight) = arrived.pop_front() {
            queue.add(flight);
        }
    }

    fn is_behind_orphan(&self, flight: &Flight) -> bool {
        let (sector, bytes) = (flight.sector(), flight.bytes());
        self.serving().any(|connection| connection.is_behind_orphan(sector, bytes))
    }

    /// So many requests have become orphans.
    pub(super) fn orphans_come(&self, count: u32) {
        self.orphans.fetch_add(count, Ordering::SeqCst);
    }

    /// The replies to so many orphans have come, or their connection has ended.
    pub(super) fn orphans_gone(&self, count: u32) {
        if count == 0 {
            return;
        }
        self.orphans.fetch_sub(count, Ordering::SeqCst);
        let mut queue = self.queue.lock();
        let mut behind = queue.behind.take();
        while let Some(flight) = behind.pop_front() {
            queue.add(flight);
        }
        drop(queue);
        self.ring_live();
    }

    fn ring_live(&self) {
        self.serving().filter(|connection| connection.is_live()).for_each(Connection::ring);
    }

    /// Requests that were sent on a connection that has ended are sent again, before the others.
    pub(super) fn back_to_queue(&self, back: &mut FlightList, count: u64) {
        self.waiting.fetch_add(u32::try_from(count).unwrap_or(u32::MAX), Ordering::SeqCst);
        self.resent.fetch_add(count, Ordering::Relaxed);
        let mut queue = self.queue.lock();
        while let Some(flight) = back.pop_front() {
            queue.add_again(flight);
        }
    }

    /// Takes all that waits.
    fn empty_queue(&self) -> FlightList {
        let mut queue = self.queue.lock();
        self.collect(&mut queue);
        let mut all = queue.first.take();
        all.append(&mut queue.second.take());
        all.append(&mut queue.behind.take());
        drop(queue);
        let mut count = 0u32;
        all.each(|_| {
            count = count.saturating_add(1);
            true
        });
        self.waiting.fetch_sub(count, Ordering::SeqCst);
        all
    }

    /// Lets go of every request, because the deadline of a drain has passed. The gates are closed, so that no task
    /// is sending. What was sent is waited for no more: nothing that overlaps it is sent before its reply has come
    /// or its connection has ended.
    pub(crate) fn revoke(&self) -> Result {
        for connection in self.serving() {
            connection.revoke(self);
        }
        let mut queue = self.empty_queue();
        while let Some(flight) = queue.pop_front() {
            drop(flight);
        }
        Ok(())
    }

    // What connections ask and tell.

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

    fn is_multi(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & u32::from(transmission::CAN_MULTI_CONN) != 0
    }

    /// When a connection is to be attempted; `None`: not before something has happened.
    pub(super) fn attempt_due(&self, index: usize, probes: bool) -> Option<u64> {
        // While requests wait, a drain waits for them, and so for a connection.
        if suspended() && self.waiting.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut state = self.state.lock();
        self.forgive(&mut state);
        if probes {
            return state.probing.then_some(0);
        }
        let alone = self.live.load(Ordering::SeqCst) == 0;
        let wanted = match alone {
            true => index == 0,
            false => self.is_multi(),
        };
        if !wanted {
            return None;
        }
        state.attempts.due_ns(index, alone, &self.terms)
    }

    /// Attempts that have failed count no more once somebody has asked for one.
    fn forgive(&self, state: &mut State) {
        if self.retry.swap(false, Ordering::SeqCst) {
            state.attempts = Attempts::default();
        }
    }

    pub(super) fn connect(&self, index: usize) -> Result<(Socket, Progress)> {
        Socket::connect(&self.place, self.keepalive_s, self.key | index as u64)
    }

    pub(super) fn handshake(&self, goal: Goal) -> Option<Handshake> {
        Handshake::new(core::str::from_utf8(&self.export).ok()?, goal)
    }

    /// Whether an export can serve in the place of the one that was there before.
    pub(super) fn judge(&self, agreed: &Agreed) -> core::result::Result<(), Text> {
        if agreed.blocks.maximum < PAGE_BYTES {
            // The block layer's requests cannot be made shorter.
            return Err(Text::new("the export takes less than a page at a time"));
        }
        let Some(before) = self.state.lock().agreed else {
            return Ok(());
        };
        let needed = transmission::SEND_FLUSH
            | transmission::SEND_FUA
            | transmission::SEND_TRIM
            | transmission::SEND_WRITE_ZEROES;
        let missing = before.flags & !agreed.flags & needed;
        let read_only = agreed.flags & !before.flags & transmission::READ_ONLY;
        let others = self.live.load(Ordering::SeqCst) != 0;
        let why = match () {
            () if agreed.bytes < before.bytes => "the export has shrunk",
            () if agreed.blocks.minimum > before.blocks.minimum => "the export has larger blocks",
            () if agreed.blocks.maximum.min(MAX_PAYLOAD_BYTES)
                < before.blocks.maximum.min(MAX_PAYLOAD_BYTES) =>
            {
                "the export takes shorter requests"
            }
            () if missing != 0 => "the export can do less than before",
            () if read_only != 0 => "the export has become read-only",
            () if others && agreed.flags & transmission::CAN_MULTI_CONN == 0 => SINGLE,
            () => return Ok(()),
        };
        let mut state = self.state.lock();
        if self.live.load(Ordering::SeqCst) == 0 {
            self.fail(&mut state, Text::new(why));
        }
        Err(Text::new(why))
    }

    /// A connection is in the transmission phase, unless another one was quicker and there may be one only.
    pub(super) fn connected(
        &self,
        index: usize,
        agreed: &Agreed,
        now: u64,
    ) -> core::result::Result<(), Text> {
        let before = self.live.fetch_or(1 << index, Ordering::SeqCst);
        if before != 0 && agreed.flags & transmission::CAN_MULTI_CONN == 0 {
            self.live.fetch_and(!(1 << index), Ordering::SeqCst);
            return Err(Text::new(SINGLE));
        }
        self.flags.store(u32::from(agreed.flags), Ordering::Relaxed);
        let mut state = self.state.lock();
        let again = matches!(state.first, Some(Ok(())));
        if before == 0 {
            let away = now.saturating_sub(state.since_ns) / ns(1000);
            state.since_ns = now;
            state.failed = false;
            state.attempts.connected();
            self.fails.store(false, Ordering::SeqCst);
            if again {
                state.reconnects = state.reconnects.saturating_add(1);
                self.tell(&mut state, format_args!("back after {away} s"));
            } else {
                self.tell(&mut state, format_args!("connected"));
            }
        }
        // What was agreed on first holds for the device; a larger export is found by `resize_check`.
        if state.agreed.is_none() {
            state.agreed = Some(*agreed);
        }
        state.first = Some(Ok(()));
        drop(state);
        self.changed.notify_all();
        // The others have something to do now.
        self.connections.iter().for_each(|connection| connection.ring());
        Ok(())
    }

    /// A connection has ended, after so many nanoseconds, or an attempt has failed.
    pub(super) fn lost(&self, index: usize, lost: &Lost, lived_ns: Option<u64>, now: u64) {
        let before = self.live.fetch_and(!(1 << index), Ordering::SeqCst);
        let last = before == 1 << index;
        let alone = before & !(1 << index) == 0;
        let why = lost.why();
        let mut state = self.state.lock();
        state.last_error = why;
        if matches!(lost, Lost::Protocol(_)) {
            state.protocol_errors = state.protocol_errors.saturating_add(1);
        }
        match lived_ns {
            Some(lived_ns) if lived_ns >= STABLE_NS => state.attempts.ended(index, alone, now),
            _ => state.attempts.fail(index, alone, now, &self.terms),
        }
        if last {
            state.since_ns = now;
        }
        let what = match (lost, lived_ns) {
            (Lost::Protocol(_), Some(_)) => "protocol error",
            (_, Some(_)) => "lost",
            (_, None) => "retrying",
        };
        self.tell(&mut state, format_args!("{what}: {why}"));
        if state.first.is_none() {
            state.first = Some(Err(why));
        }
        drop(state);
        self.changed.notify_all();
        // Other connections take the requests at once, and the first one is made anew.
        self.connections.iter().for_each(|connection| connection.ring());
    }

    /// What an export is like that was looked at.
    pub(super) fn probed(&self, outcome: core::result::Result<u64, Text>) {
        let mut state = self.state.lock();
        state.probing = false;
        state.probed = Some(outcome);
        drop(state);
        self.changed.notify_all();
    }

    /// Declares it failed when it is time for that, and then ends what waits if it must not wait.
    fn tick(&self, now: u64) -> Option<u64> {
        if self.live.load(Ordering::SeqCst) != 0 {
            return None;
        }
        let mut state = self.state.lock();
        self.forgive(&mut state);
        // Time in which no attempt may be made does not count, nor a pause that `resume` has yet to take out.
        let counts = self.resumed.load(Ordering::SeqCst) && !suspended();
        let at = fails_ns(state.since_ns, &self.terms).filter(|_| counts);
        if counts && !state.failed {
            if state.attempts.alone.is_exhausted(&self.terms) {
                self.fail(&mut state, Text::new("all attempts to connect have failed"));
            } else if at.is_some_and(|at| now >= at) {
                self.fail(&mut state, Text::new("there was no connection in time"));
            }
        }
        let failed = state.failed;
        drop(state);
        if self.fails.load(Ordering::SeqCst) {
            let mut queue = self.empty_queue();
            while let Some(flight) = queue.pop_front() {
                flight.finish(status::TRANSPORT);
            }
        }
        at.filter(|_| !failed)
    }

    fn fail(&self, state: &mut State, why: Text) {
        if core::mem::replace(&mut state.failed, true) {
            return;
        }
        let policy = self.terms.on_failure;
        self.fails.store(policy == OnFailure::Error, Ordering::SeqCst);
        self.tell(state, format_args!("failed ({}): {why}", policy.name()));
        self.ring_first();
    }

    fn tell(&self, state: &mut State, what: core::fmt::Arguments<'_>) {
        if let Some(kept_back) = state.limit.allow(now_ns()) {
            if kept_back != 0 {
                tell(&line(format_args!("{}: {kept_back} messages were left out", self.name)));
            }
            tell(&line(format_args!("{}: {what}", self.name)));
        }
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

    // What people are told.

    fn target_state(&self, state: &State) -> TargetState {
        match self.live.load(Ordering::SeqCst) {
            0 if state.failed => TargetState::Failed,
            0 if state.first.is_none() => TargetState::Connecting,
            0 => TargetState::Retrying,
            _ => TargetState::Ready,
        }
    }

    /// Adds what it knows to a status, and its connections. Returns how many there are. Sleeps.
    pub(crate) fn show(
        &self,
        status: Status,
        connections: &mut [shown::Connection; MAX_CONNECTIONS as usize],
    ) -> (Status, usize) {
        let state = self.state.lock();
        let now = now_ns();
        let mut count = 0usize;
        for (connection, shown) in self.serving().zip(connections.iter_mut()) {
            *shown = shown::Connection {
                local_port: connection.port.load(Ordering::Relaxed) as u16,
                state: match connection.is_live() {
                    true => TargetState::Ready,
                    false => TargetState::Connecting,
                },
                sent: connection.sent.load(Ordering::Relaxed),
                answered: connection.answered.load(Ordering::Relaxed),
            };
            count = count.saturating_add(1);
        }
        let live = self.live.load(Ordering::SeqCst);
        let status = Status {
            state: self.target_state(&state),
            connections: live.count_ones(),
            wanted: self.wanted as u32,
            waiting: self.waiting.load(Ordering::Relaxed),
            since_ns: now.saturating_sub(state.since_ns),
            reconnects: state.reconnects,
            resent: self.resent.load(Ordering::Relaxed),
            protocol_errors: state.protocol_errors,
            last_error: state.last_error,
            ..status
        };
        (status, count)
    }

    /// Why a request has not ended. Does not sleep.
    pub(crate) fn explain(&self, code: u8, sector: u64) -> Text {
        let now = now_ns();
        let name = &self.name;
        if self.live.load(Ordering::SeqCst) == 0 {
            let Some(state) = self.state.try_lock() else {
                return line(format_args!("connecting to {name}"));
            };
            let away = now.saturating_sub(state.since_ns) / ns(1000);
            return match state.failed {
                true => line(format_args!("{name} has failed and is held")),
                false => line(format_args!("reconnecting to {name} for {away} s")),
            };
        }
        if code != op::FLUSH && self.serving().any(|c| c.is_behind_orphan(sector, 512)) {
            return line(format_args!("waits for an older write on {name}"));
        }
        let oldest = self.serving().filter_map(Connection::oldest_ns).min();
        match oldest.map(|sent| now.saturating_sub(sent) / ns(1000)) {
            Some(waits) => line(format_args!("no answer from {name} for {waits} s")),
            None => line(format_args!("waits to be sent to {name}")),
        }
    }
}

impl State {
    fn new(now: u64) -> Self {
        Self {
            agreed: None,
            since_ns: now,
            failed: false,
            attempts: Attempts::default(),
            reconnects: 0,
            protocol_errors: 0,
            last_error: Text::EMPTY,
            first: None,
            probing: false,
            probed: None,
            limit: Limit::NEW,
        }
    }

    /// As an earlier payload has left it. A point in time in the future is none.
    fn of_past(past: &Past) -> Self {
        let now = now_ns();
        let Past { bytes, flags, blocks, .. } = *past;
        let agreed = Agreed { bytes, flags, blocks, structured: false };
        Self {
            // It may have been asleep since it was made from a checkpoint.
            agreed: Some(agreed).filter(|agreed| agreed.bytes != 0),
            since_ns: past.since_ns.min(now),
            failed: past.failed,
            attempts: Attempts::of(BackOff {
                failed: past.back_off.failed,
                next_ns: past.back_off.next_ns.min(now.saturating_add(ns(60_000))),
            }),
            reconnects: past.reconnects,
            protocol_errors: past.protocol_errors,
            last_error: past.last_error,
            first: Some(Ok(())),
            ..Self::new(now)
        }
    }
}

/// What is taken for granted of an export before its server has answered: that it has a cache, so that it is flushed.
const NOTHING: Agreed = Agreed {
    bytes: 0,
    flags: transmission::HAS_FLAGS | transmission::SEND_FLUSH,
    blocks: Blocks::DEFAULT,
    structured: false,
};

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
