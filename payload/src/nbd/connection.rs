// SPDX-License-Identifier: GPL-2.0

//! One connection of an NBD target.
//!
//! It has two sides, each behind its own lock, because they are used by different tasks: the *sending* side
//! (`sending.rs`) belongs to a task that submits a request, the *receiving* side (`receiving.rs`) to the poller of the
//! connection. What both know of a request in flight is in its slot (`slots.rs`). Here a connection is made and
//! ended, which the poller does, and taken back, kept and taken over, which a switch of payloads asks for.

use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use kernel::prelude::*;
use kernel::sync::{new_mutex, new_spinlock, Arc, Mutex, SpinLock};

use super::ended::Ended;
use super::handshake::{Goal, Handshake};
use super::receiving::Receiving;
use super::record::{self, slot, Orphan, SLOTS};
use super::reply::{Coverage, Fault, Parser};
use super::rules::{attempt_ends_ns, ns, overdue_ns, overlap, Stillness};
use super::sending::{Sending, BATCH};
use super::slots::{Place, Slot, Slots};
use super::socket::{Bell, Headers, Page, Progress, Socket, Watch};
use super::target::Target;
use super::wire::Request;
use super::{is_replaced, line};
use crate::abi::request::op;
use crate::abi::text::Text;
use crate::flight::{now_ns, Flight, FlightList};
use crate::points;

/// Bytes of the buffer for replies without data, and for the handshake.
pub(super) const BUFFER_BYTES: usize = 4096;
/// How often a connection looks for answers that are overdue, and tries a socket again that takes nothing.
const TICK_MS: u64 = 500;

/// What a connection is doing.
pub(super) enum Phase {
    Idle,
    Connecting,
    Handshake(KBox<Handshake>),
    Live,
    /// For good.
    Closed,
}

/// Why a connection is lost.
pub(super) enum Lost {
    /// The network says so.
    Network(Error),
    /// The server has broken the protocol, or refuses.
    Protocol(Text),
    /// Anything else.
    Other(Text),
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        Self::Network(error)
    }
}

impl Lost {
    pub(super) fn why(&self) -> Text {
        match self {
            Self::Network(error) if *error == EPIPE => {
                Text::new("the server has closed the connection")
            }
            Self::Network(error) => line(format_args!("{}", Reason(*error))),
            Self::Protocol(why) | Self::Other(why) => *why,
        }
    }
}

/// An error of the network, in words.
struct Reason(Error);

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self.0.to_errno().unsigned_abs() {
            2 => "there is no such socket",
            4 | 512 => "it was interrupted",
            12 => "memory is short",
            13 => "it is not permitted",
            99 => "there is no such address",
            101 => "the network is unreachable",
            103 => "the connection was aborted",
            104 => "the connection was reset",
            110 => "the connection timed out",
            111 => "the connection was refused",
            113 => "the host is unreachable",
            errno => return write!(f, "error {errno}"),
        })
    }
}

pub(super) fn protocol(args: core::fmt::Arguments<'_>) -> Lost {
    Lost::Protocol(line(args))
}

impl From<Fault> for Lost {
    fn from(fault: Fault) -> Self {
        protocol(format_args!("{fault}"))
    }
}

/// A connection, or the place for one.
#[pin_data]
pub(super) struct Connection {
    /// Which one of its target.
    pub(super) index: usize,
    /// It only finds out what the export is like.
    probes: bool,
    pub(super) bell: Arc<Bell>,
    /// Somebody has left word that there is something to send.
    pub(super) more: AtomicBool,
    /// Something is in the batch of the sending side.
    pub(super) unsent: AtomicBool,
    /// When the poller has something to do, if it is not rung for before; `u64::MAX`: not.
    due_ns: AtomicU64,
    /// The socket takes data again.
    pub(super) writable: AtomicBool,
    /// The error number of a send that has failed; 0: none. Written with the sending side locked.
    pub(super) failed: AtomicI32,
    pub(super) live: AtomicBool,
    /// Reads in flight.
    pub(super) reads: AtomicU32,
    pub(super) port: AtomicU32,
    pub(super) sent: AtomicU64,
    /// Bytes that the socket has taken.
    pub(super) moved: AtomicU64,
    pub(super) answered: AtomicU64,
    #[pin]
    pub(super) sending: Mutex<Sending>,
    #[pin]
    pub(super) receiving: Mutex<Receiving>,
    #[pin]
    pub(super) slots: SpinLock<Slots>,
}

impl Connection {
    /// One that is not connected. Sleeps.
    pub(super) fn new(index: usize, probes: bool, bell: Arc<Bell>) -> Result<Arc<Self>> {
        let slots = Slots::new()?;
        let sending = Sending {
            socket: None,
            headers: Headers::new()?,
            batch: KVec::with_capacity(BATCH, GFP_KERNEL)?,
            done: 0,
            blocked: false,
            generation: 0,
        };
        let mut buffer = KVec::with_capacity(BUFFER_BYTES, GFP_KERNEL)?;
        buffer.resize(BUFFER_BYTES, 0, GFP_KERNEL)?;
        let receiving = Receiving {
            phase: Phase::Idle,
            watch: None,
            parser: Parser::new(false),
            buffer,
            behind: Page::new()?,
            current: None,
            began_ns: 0,
            check_ns: 0,
            stillness: Stillness::NEW,
        };
        Arc::pin_init(
            pin_init!(Self {
                index,
                probes,
                bell,
                more: AtomicBool::new(false),
                unsent: AtomicBool::new(false),
                due_ns: AtomicU64::new(0),
                writable: AtomicBool::new(false),
                failed: AtomicI32::new(0),
                live: AtomicBool::new(false),
                reads: AtomicU32::new(0),
                port: AtomicU32::new(0),
                sent: AtomicU64::new(0),
                moved: AtomicU64::new(0),
                answered: AtomicU64::new(0),
                sending <- new_mutex!(sending),
                receiving <- new_mutex!(receiving),
                slots <- new_spinlock!(slots),
            }),
            GFP_KERNEL,
        )
    }

    /// Whether requests can be sent on it.
    pub(super) fn is_live(&self) -> bool {
        self.live.load(Ordering::SeqCst)
    }

    /// Has the poller look at it. Any context.
    pub(super) fn ring(&self) {
        self.bell.ring();
    }

    // The receiving side. The poller calls it.

    /// Does what is to be done now. Returns when there is something to do again, if nothing happens before.
    pub(super) fn service(&self, target: &Target, now: u64) -> Option<u64> {
        let rung = self.bell.answer();
        let due_ns = self.due_ns.load(Ordering::Relaxed);
        if !rung && now < due_ns {
            return Some(due_ns).filter(|due| *due != u64::MAX);
        }
        let mut receiving = self.receiving.lock();
        let mut ended = Ended::NONE;
        let checked_ns = receiving.check_ns;
        let outcome = self.step(target, &mut receiving, now, rung, &mut ended);
        let due = match outcome {
            Ok(due) => due,
            Err(lost) => {
                self.lose(target, &mut receiving, &lost, now);
                Some(now)
            }
        };
        let live = matches!(receiving.phase, Phase::Live);
        let ticks = receiving.check_ns != checked_ns;
        drop(receiving);
        // Only the poller is here.
        self.due_ns.store(due.unwrap_or(u64::MAX), Ordering::Relaxed);
        ended.finish();
        if live && (rung || ticks) {
            self.writable.store(true, Ordering::SeqCst);
            let sends = [&self.unsent, &self.more].iter().any(|word| word.load(Ordering::SeqCst));
            if sends || target.has_waiting() {
                self.pump(target);
            }
        }
        due
    }

    fn step(
        &self,
        target: &Target,
        receiving: &mut Receiving,
        now: u64,
        rung: bool,
        ended: &mut Ended,
    ) -> Result<Option<u64>, Lost> {
        if matches!(receiving.phase, Phase::Idle) {
            match target.attempt_due(self.index, self.probes) {
                Some(due) if due <= now => self.begin(target, receiving, now)?,
                due => return Ok(due),
            }
        }
        if matches!(receiving.phase, Phase::Connecting) {
            let progress = match &receiving.watch {
                Some(watch) => watch.socket().connect_on(target.place())?,
                None => return Err(Lost::Network(EINVAL)),
            };
            if progress == Progress::Done {
                self.greet(target, receiving)?;
            }
        }
        match &receiving.phase {
            Phase::Connecting | Phase::Handshake(_) => {
                let ends = attempt_ends_ns(receiving.began_ns);
                if !self.shake(target, receiving, now)? {
                    if now >= ends {
                        return Err(Lost::Other(Text::new("the server does not answer")));
                    }
                    return Ok(Some(ends));
                }
            }
            Phase::Live => {}
            Phase::Idle | Phase::Closed => return Ok(None),
        }
        if !matches!(receiving.phase, Phase::Live) {
            return Ok(None);
        }
        // A socket of an earlier payload was not listened to yet.
        let heard = match &mut receiving.watch {
            Some(watch) => watch.hear(),
            None => return Err(Lost::Network(EINVAL)),
        };
        if rung || heard {
            points::NBD_RECEIVE.meet()?;
            self.receive(target, receiving, ended)?;
        }
        match self.failed.load(Ordering::SeqCst) {
            0 => {}
            errno => return Err(Lost::Network(Error::from_errno(errno))),
        }
        if now >= receiving.check_ns {
            self.check_answers(target, receiving, now)?;
            receiving.check_ns = now.saturating_add(ns(TICK_MS));
        }
        Ok(Some(receiving.check_ns))
    }

    /// Begins an attempt to connect.
    fn begin(&self, target: &Target, receiving: &mut Receiving, now: u64) -> Result<(), Lost> {
        if is_replaced() {
            return Ok(());
        }
        receiving.began_ns = now;
        points::NBD_CONNECT.meet()?;
        let (socket, progress) = target.connect(self.index)?;
        let socket = Arc::new(socket, GFP_KERNEL).map_err(Error::from)?;
        let mut watch = Watch::new(socket, self.bell.clone())?;
        watch.listen();
        receiving.watch = Some(watch);
        receiving.phase = Phase::Connecting;
        if progress == Progress::Done {
            self.greet(target, receiving)?;
        }
        Ok(())
    }

    fn greet(&self, target: &Target, receiving: &mut Receiving) -> Result<(), Lost> {
        let goal = if self.probes { Goal::Facts } else { Goal::Transmission };
        let handshake = target.handshake(goal).ok_or(EINVAL)?;
        receiving.phase = Phase::Handshake(KBox::new(handshake, GFP_KERNEL).map_err(Error::from)?);
        Ok(())
    }

    /// Goes on with the handshake. True when it is over.
    fn shake(&self, target: &Target, receiving: &mut Receiving, now: u64) -> Result<bool, Lost> {
        let Receiving { phase, watch, buffer, .. } = receiving;
        let (Phase::Handshake(handshake), Some(watch)) = (phase, &*watch) else {
            return Ok(false);
        };
        let socket = watch.socket();
        let agreed = loop {
            while !handshake.output().is_empty() {
                match socket.send_bytes(handshake.output())? {
                    Some(bytes) => handshake.sent(bytes),
                    None => return Ok(false),
                }
            }
            if let Some(agreed) = handshake.agreed() {
                break agreed;
            }
            let wanted = handshake.wanted().min(buffer.len());
            let room = buffer.get_mut(..wanted).unwrap_or(&mut []);
            let Some(received) = socket.receive_bytes(room)? else {
                return Ok(false);
            };
            handshake.receive(room.get(..received.bytes).unwrap_or(&[])).map_err(|refusal| {
                match handshake.words() {
                    "" => protocol(format_args!("{refusal}")),
                    words => protocol(format_args!("{refusal}: {words}")),
                }
            })?;
        };
        if self.probes {
            target.probed(Ok(agreed.bytes));
            receiving.watch = None;
            receiving.phase = Phase::Idle;
            return Ok(true);
        }
        target.judge(&agreed).map_err(Lost::Other)?;
        points::NBD_PRESERVE.meet()?;
        socket.preserve()?;
        // Who adopts shuts down what is preserved; this is for what is preserved later.
        if is_replaced() {
            return Err(Lost::Other(Text::new("another payload serves")));
        }
        self.port.store(u32::from(socket.local_port()), Ordering::Relaxed);
        {
            let mut sending = self.sending.lock();
            sending.socket = Some(socket.clone());
            sending.blocked = false;
        }
        receiving.parser = Parser::new(agreed.structured);
        target.connected(self.index, &agreed, now).map_err(Lost::Other)?;
        receiving.phase = Phase::Live;
        receiving.began_ns = now;
        receiving.check_ns = now.saturating_add(ns(TICK_MS));
        self.live.store(true, Ordering::SeqCst);
        self.ring();
        Ok(true)
    }

    /// Looks whether an answer is overdue.
    fn check_answers(
        &self,
        target: &Target,
        receiving: &mut Receiving,
        now: u64,
    ) -> Result<(), Lost> {
        let oldest = self.oldest(receiving);
        let since = receiving.stillness.look(oldest, now);
        let overdue = since.and_then(|since| overdue_ns(since, target.terms()));
        if overdue.is_some_and(|overdue| now >= overdue) {
            let waited = now.saturating_sub(since.unwrap_or(now)) / ns(1000).max(1);
            return Err(Lost::Other(line(format_args!("there was no answer for {waited} s"))));
        }
        Ok(())
    }

    /// The cookie of the oldest request without an answer, and a number that changes as its bytes move.
    fn oldest(&self, receiving: &Receiving) -> Option<(u64, u64)> {
        let slots = self.slots.lock();
        // Cookies grow.
        let oldest = slots.iter().filter(|slot| slot.waits()).min_by_key(|slot| slot.cookie)?;
        let moved = match receiving.parser.data() {
            _ if oldest.unsent => self.moved.load(Ordering::Relaxed),
            Some((cookie, offset, _)) if cookie == oldest.cookie => offset,
            _ => 0,
        };
        Some((oldest.cookie, moved))
    }

    /// When the oldest request without an answer was sent.
    pub(super) fn oldest_ns(&self) -> Option<u64> {
        let slots = self.slots.lock();
        slots.iter().filter(|slot| slot.waits()).map(|slot| slot.sent_ns).min()
    }

    // Ends of connections.

    /// An attempt has failed or the connection has ended. What was sent and not answered goes back to the queue.
    /// The socket goes when both sides have let go of it, which they have done when this returns.
    fn lose(&self, target: &Target, receiving: &mut Receiving, lost: &Lost, now: u64) {
        let was_live = matches!(receiving.phase, Phase::Live);
        let mut back = FlightList::new();
        let (count, orphans) = self.let_go(receiving, &mut back);
        if let Some(watch) = receiving.watch.take() {
            watch.socket().abort();
        }
        receiving.phase = Phase::Idle;
        if self.probes {
            target.probed(Err(lost.why()));
            return;
        }
        let lived_ns = now.saturating_sub(receiving.began_ns);
        target.back_to_queue(&mut back, count);
        target.orphans_gone(orphans);
        target.lost(self.index, lost, was_live.then_some(lived_ns), now);
    }

    /// Takes every request and the socket from the sending side. Returns how many requests there were, and
    /// how many orphans.
    fn let_go(&self, receiving: &mut Receiving, back: &mut FlightList) -> (u64, u32) {
        self.live.store(false, Ordering::SeqCst);
        // Waits for a task that is sending, which does not wait for anything.
        let mut sending = self.sending.lock();
        let mut count = 0u64;
        let mut keep = |flight: Flight| {
            count = count.saturating_add(1);
            back.push_back(flight);
        };
        if let Some(reading) = receiving.current.take() {
            keep(reading.flight);
        }
        while let Ok(out) = sending.batch.remove(0) {
            if let Some(flight) = out.flight {
                keep(flight);
            }
        }
        sending.done = 0;
        sending.blocked = false;
        self.unsent.store(false, Ordering::SeqCst);
        self.failed.store(0, Ordering::SeqCst);
        if let Some(socket) = sending.socket.take() {
            socket.abort();
        }
        let mut orphans = 0u32;
        for at in 0..SLOTS {
            match self.slots.lock().take(at) {
                Place::Out(flight) => keep(flight),
                Place::Orphan => orphans = orphans.saturating_add(1),
                _ => {}
            }
        }
        self.reads.store(0, Ordering::SeqCst);
        (count, orphans)
    }

    /// Ends an attempt that is under way, without its counting as failed.
    pub(super) fn drop_attempt(&self) {
        let mut receiving = self.receiving.lock();
        if matches!(receiving.phase, Phase::Connecting | Phase::Handshake(_)) {
            receiving.watch = None;
            receiving.phase = Phase::Idle;
        }
    }

    /// Stops or begins listening to the socket.
    pub(super) fn silence(&self, silent: bool) {
        let mut receiving = self.receiving.lock();
        if let Some(watch) = &mut receiving.watch {
            match silent {
                true => watch.silence(),
                false => watch.listen(),
            }
        }
        drop(receiving);
        if !silent {
            self.ring();
        }
    }

    /// Ends it for good, and tells the server. Returns the requests that it had.
    pub(super) fn close(&self, back: &mut FlightList) {
        let mut receiving = self.receiving.lock();
        if matches!(receiving.phase, Phase::Live) {
            let mut sending = self.sending.lock();
            self.live.store(false, Ordering::SeqCst);
            // Behind a command that was sent in part nothing can be said; then the connection is aborted below.
            if sending.batch.is_empty() {
                if let Some(socket) = sending.socket.take() {
                    // A server that does not hear it finds the connection closed.
                    let _ = socket.send_bytes(&Request::DISCONNECT.to_bytes());
                    socket.give_up();
                }
            }
        }
        self.let_go(&mut receiving, back);
        receiving.watch = None;
        receiving.phase = Phase::Closed;
    }

    /// Takes back what was not begun to be sent. The rest goes on.
    pub(super) fn hand_back(&self, back: &mut FlightList) {
        let mut sending = self.sending.lock();
        self.forget_unbegun(&mut sending, |flight| back.push_back(flight));
        self.unsent.store(!sending.batch.is_empty(), Ordering::SeqCst);
    }

    /// Forgets what was not begun to be sent, with its slots.
    fn forget_unbegun(&self, sending: &mut Sending, mut each: impl FnMut(Flight)) {
        let mut at = usize::from(sending.done != 0);
        while let Some(out) = sending.batch.get(at) {
            let mut slots = self.slots.lock();
            let (is_read, is_received) = match slots.at(out.slot) {
                Some(Slot { op: op::READ, place, .. }) => {
                    (!matches!(place, Place::Done), matches!(place, Place::Lent))
                }
                _ => (false, false),
            };
            if is_received {
                // A server answers what it was not asked for yet; the receiving side has it.
                at = at.saturating_add(1);
                continue;
            }
            if is_read {
                self.reads.fetch_sub(1, Ordering::SeqCst);
            }
            let place = slots.take(out.slot);
            drop(slots);
            let Ok(out) = sending.batch.remove(at) else {
                return;
            };
            match (place, out.flight) {
                (Place::Out(flight), _) | (_, Some(flight)) => each(flight),
                _ => {}
            }
        }
    }

    /// Lets go of every request: those on their way become orphans. Of one that was sent in part the rest can
    /// not be sent, so that the connection ends.
    pub(super) fn revoke(&self, target: &Target) {
        let mut receiving = self.receiving.lock();
        let mut sending = self.sending.lock();
        let partly = sending.done != 0;
        receiving.current = None;
        self.forget_unbegun(&mut sending, drop);
        for out in sending.batch.iter_mut() {
            out.flight = None;
        }
        self.unsent.store(partly, Ordering::SeqCst);
        let mut orphans = 0u32;
        for slot in self.slots.lock().iter_mut() {
            match &slot.place {
                Place::Free | Place::Done | Place::Orphan => {}
                Place::Out(_) | Place::Lent | Place::Answered(_) => {
                    slot.place = Place::Orphan;
                    slot.unsent = false;
                    orphans = orphans.saturating_add(1);
                }
            }
        }
        target.orphans_come(orphans);
        drop(sending);
        if partly {
            let lost = Lost::Other(Text::new("a request that was sent in part was taken back"));
            self.lose(target, &mut receiving, &lost, now_ns());
        }
    }

    /// Whether an orphan that may still write overlaps a range.
    pub(super) fn is_behind_orphan(&self, sector: u64, bytes: u32) -> bool {
        let slots = self.slots.lock();
        slots
            .iter()
            .filter_map(Slot::orphan)
            .any(|orphan| orphan.writes() && overlap(orphan.sector, orphan.bytes, sector, bytes))
    }

    /// What goes into the image, when it is alive.
    pub(super) fn record(&self) -> Result<Option<record::Connection>> {
        points::NBD_RECORD.meet()?;
        let receiving = self.receiving.lock();
        let sending = self.sending.lock();
        if !matches!(receiving.phase, Phase::Live) {
            return Ok(None);
        }
        // Everything was drained or let go of. Only a server that answers what it has not got yet leaves something, and
        // with it nobody else could go on: Atom closes the socket once nobody claims it.
        if !sending.batch.is_empty() || receiving.current.is_some() {
            return Ok(None);
        }
        Ok(Some(record::Connection {
            index: self.index,
            key: sending.socket.as_ref().map_or(0, |socket| socket.key() as u8),
            generation: sending.generation,
            parser: receiving.parser,
            sent: self.sent.load(Ordering::Relaxed),
            answered: self.answered.load(Ordering::Relaxed),
        }))
    }

    /// Calls `visit` for each orphan.
    pub(super) fn each_orphan(&self, mut visit: impl FnMut(&Orphan)) {
        self.slots.lock().iter().filter_map(Slot::orphan).for_each(|orphan| visit(&orphan));
    }

    /// Goes on with the connection of an earlier payload. Nothing is received before its target is awake.
    pub(super) fn restore(
        &self,
        socket: Socket,
        found: &record::Connection,
        orphans: impl Iterator<Item = Orphan>,
    ) -> Result<u32> {
        points::NBD_RESTORE.meet()?;
        self.port.store(u32::from(socket.local_port()), Ordering::Relaxed);
        self.sent.store(found.sent, Ordering::Relaxed);
        self.answered.store(found.answered, Ordering::Relaxed);
        let socket = Arc::new(socket, GFP_KERNEL)?;
        let watch = Watch::new(socket.clone(), self.bell.clone())?;
        let mut receiving = self.receiving.lock();
        let mut sending = self.sending.lock();
        let mut slots = self.slots.lock();
        let mut count = 0u32;
        for orphan in orphans {
            let at = slot(orphan.cookie).ok_or(EINVAL)?;
            let slot = Slot {
                place: Place::Orphan,
                cookie: orphan.cookie,
                sector: orphan.sector,
                sent_ns: orphan.sent_ns.min(now_ns()),
                bytes: orphan.bytes,
                covered: Coverage::NONE,
                error: 0,
                op: orphan.op,
                unsent: false,
            };
            slots.put(at, slot);
            if orphan.op == op::READ {
                self.reads.fetch_add(1, Ordering::SeqCst);
            }
            count = count.saturating_add(1);
        }
        // Data of a request that is not there can only be that of a position that was made up.
        if let Some((cookie, _, _)) = found.parser.data() {
            slots.find(cookie).map_err(|_| EINVAL)?;
        }
        sending.generation = found.generation;
        sending.socket = Some(socket);
        receiving.watch = Some(watch);
        receiving.parser = found.parser;
        receiving.phase = Phase::Live;
        receiving.began_ns = now_ns();
        receiving.check_ns = receiving.began_ns.saturating_add(ns(TICK_MS));
        self.live.store(true, Ordering::SeqCst);
        Ok(count)
    }

    /// Moves every point in time by a pause that does not count.
    pub(super) fn shift(&self, paused_ns: u64) {
        let mut receiving = self.receiving.lock();
        receiving.began_ns = receiving.began_ns.saturating_add(paused_ns);
        receiving.stillness.shift(paused_ns);
        for slot in self.slots.lock().iter_mut() {
            slot.sent_ns = slot.sent_ns.saturating_add(paused_ns);
        }
    }
}
