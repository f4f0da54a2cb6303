// SPDX-License-Identifier: GPL-2.0

//! One connection of an NBD target.
//!
//! It has two sides, each behind its own lock, because they are used by different tasks:
//!
//! - the *sending* side belongs to whoever holds its lock at the moment: a task that submits a request sends it
//!   itself when the lock is free, and leaves word otherwise;
//! - the *receiving* side belongs to the poller of the connection, which also makes and ends connections.
//!
//! A request in flight has a slot. A reply may come before the task that sent the request has returned from
//! sending it; whoever of the two is last then ends the request.

use core::sync::atomic::{fence, AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use kernel::prelude::*;
use kernel::sync::{new_mutex, new_spinlock, Arc, Mutex, SpinLock};

use super::handshake::{Goal, Handshake};
use super::record::{self, cookie, slot, Orphan, SLOTS};
use super::reply::{Coverage, Event, Fault, Parser};
use super::rules::{attempt_ends_ns, ns, overdue_ns, overlap};
use super::socket::{Bell, Gather, Headers, Progress, Socket, Watch};
use super::target::Target;
use super::wire::{verdict, Request, Verdict, REQUEST_BYTES};
use super::{is_replaced, line};
use crate::abi::request::{op, status};
use crate::abi::text::Text;
use crate::flight::{now_ns, Flight, FlightList};

/// Requests that are sent together.
const BATCH: usize = 16;
/// Messages that one task sends in a row before it leaves the rest to the poller.
const SEND_ROUNDS: usize = 32;
/// How often one task goes on with what others have left to it.
const PUMP_ROUNDS: usize = 16;
/// Calls to receive in one pass of the poller over a connection.
const RECEIVE_ROUNDS: usize = 128;
/// Bytes of the buffer for replies without data, and for the handshake.
const BUFFER_BYTES: usize = 4096;
/// How often a connection looks for answers that are overdue, and tries a socket again that takes nothing.
const TICK_MS: u64 = 500;

/// Where the request of a slot is.
enum Place {
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
struct Slot {
    place: Place,
    cookie: u64,
    sector: u64,
    sent_ns: u64,
    bytes: u32,
    /// The data that has come.
    covered: Coverage,
    /// The first error that a chunk has told.
    error: u32,
    op: u8,
    /// The sending side has not returned.
    unsent: bool,
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

    fn orphan(&self) -> Option<Orphan> {
        matches!(self.place, Place::Orphan).then_some(Orphan {
            cookie: self.cookie,
            sector: self.sector,
            bytes: self.bytes,
            op: self.op,
            sent_ns: self.sent_ns,
        })
    }
}

/// A request whose sending is not complete.
struct Outgoing {
    slot: usize,
    /// Of a write, whose data is sent from it.
    flight: Option<Flight>,
    /// Bytes of header and data.
    bytes: u32,
}

/// The sending side.
struct Sending {
    socket: Option<Arc<Socket>>,
    headers: Headers,
    /// What is being sent, in order.
    batch: KVec<Outgoing>,
    /// Bytes of the first of them that were sent.
    done: u32,
    /// The socket took nothing, and has not said since that it does.
    blocked: bool,
    generation: u64,
    /// Where the search for a free slot begins.
    turn: usize,
}

/// What a connection is doing.
enum Phase {
    Idle,
    Connecting,
    Handshake(KBox<Handshake>),
    Live,
    /// For good.
    Closed,
}

/// The receiving side.
struct Receiving {
    phase: Phase,
    watch: Option<Watch>,
    parser: Parser,
    buffer: KVec<u8>,
    /// The read whose data is being received.
    current: Option<(usize, Flight)>,
    /// When this attempt, or this connection, began.
    began_ns: u64,
    /// When to look for overdue answers.
    check_ns: u64,
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

fn protocol(args: core::fmt::Arguments<'_>) -> Lost {
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
    bell: Arc<Bell>,
    /// Somebody has left word that there is something to send.
    more: AtomicBool,
    /// The socket takes data again.
    writable: AtomicBool,
    /// The error number of a send that has failed; 0: none. Written with the sending side locked.
    failed: AtomicI32,
    live: AtomicBool,
    /// Reads in flight.
    reads: AtomicU32,
    pub(super) port: AtomicU32,
    pub(super) sent: AtomicU64,
    pub(super) answered: AtomicU64,
    #[pin]
    sending: Mutex<Sending>,
    #[pin]
    receiving: Mutex<Receiving>,
    #[pin]
    slots: SpinLock<KVec<Slot>>,
}

impl Connection {
    /// One that is not connected. Sleeps.
    pub(super) fn new(index: usize, probes: bool, bell: Arc<Bell>) -> Result<Arc<Self>> {
        let mut slots = KVec::with_capacity(SLOTS, GFP_KERNEL)?;
        for _ in 0..SLOTS {
            slots.push(Slot::FREE, GFP_KERNEL)?;
        }
        let sending = Sending {
            socket: None,
            headers: Headers::new()?,
            batch: KVec::with_capacity(BATCH, GFP_KERNEL)?,
            done: 0,
            blocked: false,
            generation: 0,
            turn: 0,
        };
        let mut buffer = KVec::with_capacity(BUFFER_BYTES, GFP_KERNEL)?;
        buffer.resize(BUFFER_BYTES, 0, GFP_KERNEL)?;
        let receiving = Receiving {
            phase: Phase::Idle,
            watch: None,
            parser: Parser::new(false),
            buffer,
            current: None,
            began_ns: 0,
            check_ns: 0,
        };
        Arc::pin_init(
            pin_init!(Self {
                index,
                probes,
                bell,
                more: AtomicBool::new(false),
                writable: AtomicBool::new(false),
                failed: AtomicI32::new(0),
                live: AtomicBool::new(false),
                reads: AtomicU32::new(0),
                port: AtomicU32::new(0),
                sent: AtomicU64::new(0),
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

    // The sending side.

    /// Sends what waits, or leaves word for whoever is sending. Never waits for the server. Sleeps.
    ///
    /// Word is left before the lock is tried and looked for after it was released, so that nothing stays: either
    /// the lock is had here, or its holder sees the word.
    pub(super) fn pump(&self, target: &Target) {
        self.more.store(true, Ordering::SeqCst);
        for _ in 0..PUMP_ROUNDS {
            fence(Ordering::SeqCst);
            if !self.more.load(Ordering::SeqCst) {
                return;
            }
            let Some(mut sending) = self.sending.try_lock() else {
                return;
            };
            self.more.store(false, Ordering::SeqCst);
            let mut ended = Ended::NONE;
            let sent = self.send(target, &mut sending, &mut ended);
            if let Err(error) = sent {
                self.failed.store(error.to_errno(), Ordering::SeqCst);
            }
            drop(sending);
            ended.finish();
            if !matches!(sent, Ok(true)) {
                break;
            }
        }
        // The rest, or the end of the connection, is the poller's.
        self.ring();
    }

    /// Sends until nothing waits or the socket is full. False when there is more to do at once.
    fn send(&self, target: &Target, sending: &mut Sending, ended: &mut Ended) -> Result<bool> {
        for _ in 0..SEND_ROUNDS {
            self.fill(target, sending, ended);
            let Sending { socket, headers, batch, done, blocked, .. } = sending;
            let Some(socket) = socket else {
                return Ok(true);
            };
            if batch.is_empty() || *blocked && !self.writable.swap(false, Ordering::SeqCst) {
                return Ok(true);
            }
            *blocked = false;
            let mut gather = Gather::new();
            let whole = gather_batch(&mut gather, headers, batch, *done);
            if gather.bytes() == 0 {
                return Err(EIO);
            }
            match socket.send(&gather, !whole)? {
                None => *blocked = true,
                Some(bytes) => self.advance(sending, bytes, ended),
            }
        }
        Ok(false)
    }

    /// Takes requests from the queue into free slots and the batch.
    fn fill(&self, target: &Target, sending: &mut Sending, ended: &mut Ended) {
        while self.is_live() && sending.batch.len() < BATCH {
            let Some(at) = self.free_slot(sending.turn) else {
                return;
            };
            let Some(flight) = target.next() else {
                return;
            };
            let (code, sector, bytes) = (flight.op(), flight.sector(), flight.bytes());
            let fua = flight.fua() && target.knows_fua();
            let cookie = cookie(sending.generation, at);
            let request = Request::new(code, sector, bytes, fua, flight.nounmap(), cookie);
            let Some(request) = request else {
                ended.add(flight, status::NOT_SUPPORTED);
                continue;
            };
            if code == op::FLUSH && !target.knows_flush() {
                ended.add(flight, status::OK);
                continue;
            }
            sending.turn = at.wrapping_add(1);
            sending.generation = sending.generation.saturating_add(1);
            sending.headers.write(at, &request.to_bytes());
            let data = if code == op::WRITE { bytes } else { 0 };
            let (place, flight) = match code {
                op::WRITE => (Place::Lent, Some(flight)),
                _ => (Place::Out(flight), None),
            };
            let slot = Slot {
                place,
                cookie,
                sector,
                sent_ns: now_ns(),
                bytes,
                covered: Coverage::NONE,
                error: 0,
                op: code,
                unsent: true,
            };
            if code == op::READ {
                self.reads.fetch_add(1, Ordering::SeqCst);
            }
            if let Some(place) = self.slots.lock().get_mut(at) {
                *place = slot;
            }
            let bytes = data.saturating_add(REQUEST_BYTES as u32);
            // There is room: it was looked for.
            let _ = sending.batch.push_within_capacity(Outgoing { slot: at, flight, bytes });
        }
    }

    /// A free slot, the first one from `turn` on. Only the sending side takes slots, so it stays free.
    fn free_slot(&self, turn: usize) -> Option<usize> {
        let slots = self.slots.lock();
        let free = |at: &usize| slots.get(*at).is_some_and(|s| matches!(s.place, Place::Free));
        (0..SLOTS).map(|step| turn.wrapping_add(step) % SLOTS).find(free)
    }

    /// The socket has taken so many bytes of the batch.
    fn advance(&self, sending: &mut Sending, mut bytes: usize, ended: &mut Ended) {
        while let Some(first) = sending.batch.first() {
            let left = first.bytes.saturating_sub(sending.done) as usize;
            if bytes < left {
                sending.done = sending.done.saturating_add(bytes as u32);
                return;
            }
            bytes = bytes.saturating_sub(left);
            sending.done = 0;
            let Ok(out) = sending.batch.remove(0) else {
                return;
            };
            self.sent.fetch_add(1, Ordering::Relaxed);
            let mut slots = self.slots.lock();
            let Some(slot) = slots.get_mut(out.slot) else {
                continue;
            };
            slot.unsent = false;
            match (&slot.place, out.flight) {
                (Place::Answered(outcome), Some(flight)) => {
                    let outcome = *outcome;
                    *slot = Slot::FREE;
                    drop(slots);
                    ended.add(flight, outcome);
                }
                (_, Some(flight)) => slot.place = Place::Out(flight),
                (Place::Done, None) => *slot = Slot::FREE,
                (_, None) => {}
            }
        }
    }

    // The receiving side. The poller calls it.

    /// Does what is to be done now. Returns when there is something to do again, if nothing happens before.
    pub(super) fn service(&self, target: &Target, now: u64) -> Option<u64> {
        let rung = self.bell.answer();
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
        ended.finish();
        if live && (rung || ticks) {
            self.writable.store(true, Ordering::SeqCst);
            self.pump(target);
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
            self.receive(target, receiving, ended)?;
        }
        match self.failed.load(Ordering::SeqCst) {
            0 => {}
            errno => return Err(Lost::Network(Error::from_errno(errno))),
        }
        if now >= receiving.check_ns {
            self.check_answers(target, now)?;
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
            let Some(bytes) = socket.receive_bytes(room)? else {
                return Ok(false);
            };
            handshake.receive(room.get(..bytes).unwrap_or(&[])).map_err(
                |refusal| match handshake.words() {
                    "" => protocol(format_args!("{refusal}")),
                    words => protocol(format_args!("{refusal}: {words}")),
                },
            )?;
        };
        if self.probes {
            target.probed(Ok(agreed.bytes));
            receiving.watch = None;
            receiving.phase = Phase::Idle;
            return Ok(true);
        }
        target.judge(&agreed).map_err(Lost::Other)?;
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

    /// Receives what is there.
    fn receive(
        &self,
        target: &Target,
        receiving: &mut Receiving,
        ended: &mut Ended,
    ) -> Result<(), Lost> {
        for _ in 0..RECEIVE_ROUNDS {
            let socket = match &receiving.watch {
                Some(watch) => watch.socket().clone(),
                None => return Err(Lost::Network(EINVAL)),
            };
            if let Some((cookie, offset, left)) = receiving.parser.data() {
                let Some(bytes) = self.receive_data(&socket, receiving, cookie, offset, left)?
                else {
                    return Ok(());
                };
                self.took(target, receiving, cookie, bytes, ended)?;
                continue;
            }
            // While no read is in flight nothing but short replies can come; else not more is taken than the
            // head of a reply, so that the data behind it goes into its pages at once.
            let wanted = match (self.reads.load(Ordering::SeqCst), receiving.parser.structured()) {
                (0, _) => BUFFER_BYTES,
                (_, true) if receiving.parser.between_replies() => 28,
                (_, false) if receiving.parser.between_replies() => 16,
                _ => receiving.parser.wanted().min(BUFFER_BYTES),
            };
            let mut buffer = core::mem::take(&mut receiving.buffer);
            let room = buffer.get_mut(..wanted).unwrap_or(&mut []);
            let outcome = match socket.receive_bytes(room) {
                Ok(Some(bytes)) => self
                    .parse(target, receiving, room.get(..bytes).unwrap_or(&[]), ended)
                    .map(|()| true),
                Ok(None) => Ok(false),
                Err(error) => Err(Lost::Network(error)),
            };
            receiving.buffer = buffer;
            if !outcome? {
                return Ok(());
            }
        }
        // There may be more; others are to have their turn.
        self.ring();
        Ok(())
    }

    /// Goes over bytes that were received, which may be data as well.
    fn parse(
        &self,
        target: &Target,
        receiving: &mut Receiving,
        mut bytes: &[u8],
        ended: &mut Ended,
    ) -> Result<(), Lost> {
        while !bytes.is_empty() {
            if let Some((cookie, offset, left)) = receiving.parser.data() {
                let length = bytes.len().min(left as usize);
                let (head, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
                self.lend(receiving, cookie)?;
                if let Some((at, flight)) = &receiving.current {
                    let from = self.place_of(*at, offset);
                    let mut done = 0usize;
                    while let Some(rest) = head.get(done..).filter(|rest| !rest.is_empty()) {
                        let mut gather = Gather::new();
                        let from = from.saturating_add(done as u32);
                        if gather.data(flight.data_from(from), rest.len() as u32) == 0 {
                            return Err(Lost::Network(EIO));
                        }
                        gather.fill(rest);
                        done = done.saturating_add(gather.bytes());
                    }
                }
                bytes = rest;
                self.took(target, receiving, cookie, head.len() as u32, ended)?;
                continue;
            }
            let (taken, event) = receiving.parser.push(bytes)?;
            bytes = bytes.get(taken..).unwrap_or(&[]);
            if let Some(event) = event {
                self.event(target, receiving, event, ended)?;
            }
        }
        Ok(())
    }

    /// Where a byte of the export lies in the data of the read of a slot.
    fn place_of(&self, at: usize, offset: u64) -> u32 {
        let slots = self.slots.lock();
        let start = slots.get(at).map_or(0, |slot| slot.sector.saturating_mul(512));
        // It was checked that the chunk lies within the read, whose length is 32 bits.
        offset.saturating_sub(start) as u32
    }

    /// Has the read of a cookie at hand, whose data comes next. An orphan has none.
    fn lend(&self, receiving: &mut Receiving, cookie: u64) -> Result<(), Lost> {
        if receiving.current.is_some() {
            return Ok(());
        }
        let mut slots = self.slots.lock();
        let (at, slot) = find(&mut slots, cookie)?;
        match core::mem::replace(&mut slot.place, Place::Lent) {
            Place::Out(flight) => receiving.current = Some((at, flight)),
            other => slot.place = other,
        }
        Ok(())
    }

    /// Receives data of a read into its pages, or that of an orphan into nothing.
    fn receive_data(
        &self,
        socket: &Socket,
        receiving: &mut Receiving,
        cookie: u64,
        offset: u64,
        left: u32,
    ) -> Result<Option<u32>, Lost> {
        self.lend(receiving, cookie)?;
        let bytes = match &receiving.current {
            Some((at, flight)) => {
                let mut gather = Gather::new();
                let from = self.place_of(*at, offset);
                if gather.data(flight.data_from(from), left) == 0 {
                    return Err(Lost::Network(EIO));
                }
                socket.receive(&gather)?
            }
            None => {
                let length = receiving.buffer.len().min(left as usize);
                socket.receive_bytes(receiving.buffer.get_mut(..length).unwrap_or(&mut []))?
            }
        };
        Ok(bytes.map(|bytes| bytes as u32))
    }

    /// Some of the data was taken.
    fn took(
        &self,
        target: &Target,
        receiving: &mut Receiving,
        cookie: u64,
        bytes: u32,
        ended: &mut Ended,
    ) -> Result<(), Lost> {
        let over = receiving.parser.took(bytes);
        if receiving.parser.data().is_some() {
            return Ok(());
        }
        // A chunk has ended: the read goes back to its slot, because another reply may come first.
        if let Some((at, flight)) = receiving.current.take() {
            if let Some(slot) = self.slots.lock().get_mut(at) {
                slot.place = Place::Out(flight);
            }
        }
        match over {
            Some(_) => self.over(target, cookie, ended),
            None => Ok(()),
        }
    }

    /// A reply, or a part of one.
    fn event(
        &self,
        target: &Target,
        receiving: &mut Receiving,
        event: Event,
        ended: &mut Ended,
    ) -> Result<(), Lost> {
        match event {
            Event::Simple { cookie, error } => {
                let structured = receiving.parser.structured();
                let mut slots = self.slots.lock();
                let (_, slot) = find(&mut slots, cookie)?;
                if error != 0 || slot.op != op::READ {
                    slot.error = error;
                    drop(slots);
                    return self.over(target, cookie, ended);
                }
                if structured {
                    return Err(protocol(format_args!("a read was answered by a simple reply")));
                }
                let (start, bytes) = (slot.sector.saturating_mul(512), slot.bytes);
                slot.covered.add(0, bytes)?;
                receiving.parser.expect(cookie, start, bytes);
                Ok(())
            }
            Event::Data { cookie, offset, bytes, .. } => self.chunk(cookie, offset, bytes, false),
            Event::Hole { cookie, offset, bytes, done } => {
                self.chunk(cookie, offset, bytes, true)?;
                if done {
                    return self.over(target, cookie, ended);
                }
                Ok(())
            }
            Event::Failed { cookie, error, done } => {
                let mut slots = self.slots.lock();
                let (_, slot) = find(&mut slots, cookie)?;
                if slot.error == 0 {
                    slot.error = error;
                }
                drop(slots);
                if done {
                    return self.over(target, cookie, ended);
                }
                Ok(())
            }
            Event::End { cookie } => self.over(target, cookie, ended),
        }
    }

    /// Checks a chunk of a read before any of its data is taken, and fills a hole with zeroes.
    fn chunk(&self, cookie: u64, offset: u64, bytes: u32, hole: bool) -> Result<(), Lost> {
        let mut slots = self.slots.lock();
        let (_, slot) = find(&mut slots, cookie)?;
        let start = slot.sector.saturating_mul(512);
        let end = start.saturating_add(u64::from(slot.bytes));
        let chunk_end = offset.checked_add(u64::from(bytes));
        let within = offset >= start && chunk_end.is_some_and(|chunk_end| chunk_end <= end);
        if slot.op != op::READ {
            return Err(protocol(format_args!("data came for a {}", op::name(slot.op))));
        }
        if !within {
            return Err(protocol(format_args!("a chunk lies outside of its read")));
        }
        // Both were just found to lie within the read, whose length is 32 bits.
        let from = offset.saturating_sub(start) as u32;
        if matches!(slot.place, Place::Orphan) {
            return Ok(());
        }
        slot.covered.add(from, bytes)?;
        if !hole {
            return Ok(());
        }
        match core::mem::replace(&mut slot.place, Place::Lent) {
            Place::Out(flight) => {
                drop(slots);
                zero(&flight, from, bytes);
                if let Ok((_, slot)) = find(&mut self.slots.lock(), cookie) {
                    slot.place = Place::Out(flight);
                }
            }
            other => slot.place = other,
        }
        Ok(())
    }

    /// The reply to a request is complete.
    fn over(&self, target: &Target, cookie: u64, ended: &mut Ended) -> Result<(), Lost> {
        let mut slots = self.slots.lock();
        let (_, slot) = find(&mut slots, cookie)?;
        let short = slot.op == op::READ && slot.error == 0 && !slot.covered.is_whole(slot.bytes);
        if short && !matches!(slot.place, Place::Orphan) {
            return Err(protocol(format_args!("a read was answered in part")));
        }
        if slot.op == op::READ {
            self.reads.fetch_sub(1, Ordering::SeqCst);
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        let outcome = match verdict(slot.op, slot.error) {
            Verdict::Ends(outcome) => outcome,
            Verdict::SendAgain => {
                // The slot stays as it is, and the request is sent again with all others.
                if slot.op == op::READ {
                    self.reads.fetch_add(1, Ordering::SeqCst);
                }
                return Err(Lost::Other(Text::new("the server is shutting down")));
            }
        };
        let unsent = slot.unsent;
        match core::mem::replace(&mut slot.place, Place::Free) {
            Place::Out(flight) => {
                slot.place = if unsent { Place::Done } else { Place::Free };
                drop(slots);
                ended.add(flight, outcome);
            }
            Place::Lent => slot.place = Place::Answered(outcome),
            Place::Orphan => {
                drop(slots);
                target.orphans_gone(1);
            }
            other => {
                slot.place = other;
                return Err(protocol(format_args!("a request was answered twice")));
            }
        }
        Ok(())
    }

    /// Looks whether an answer is overdue.
    fn check_answers(&self, target: &Target, now: u64) -> Result<(), Lost> {
        let oldest = self.oldest_ns();
        let overdue = oldest.and_then(|sent| overdue_ns(sent, target.terms()));
        if overdue.is_some_and(|overdue| now >= overdue) {
            let waited = now.saturating_sub(oldest.unwrap_or(now)) / ns(1000).max(1);
            return Err(Lost::Other(line(format_args!("there was no answer for {waited} s"))));
        }
        Ok(())
    }

    /// When the oldest request without an answer was sent.
    pub(super) fn oldest_ns(&self) -> Option<u64> {
        let slots = self.slots.lock();
        let waits = |slot: &&Slot| !matches!(slot.place, Place::Free | Place::Done);
        slots.iter().filter(waits).map(|slot| slot.sent_ns).min()
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
        if let Some((_, flight)) = receiving.current.take() {
            keep(flight);
        }
        while let Ok(out) = sending.batch.remove(0) {
            if let Some(flight) = out.flight {
                keep(flight);
            }
        }
        sending.done = 0;
        sending.blocked = false;
        self.failed.store(0, Ordering::SeqCst);
        if let Some(socket) = sending.socket.take() {
            socket.abort();
        }
        let mut orphans = 0u32;
        for slot in self.slots.lock().iter_mut() {
            match core::mem::replace(slot, Slot::FREE).place {
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

    /// Lets go of every request: those on their way become orphans. Of one that was sent in part the rest can
    /// not be sent, so that the connection ends.
    pub(super) fn revoke(&self, target: &Target) {
        let mut receiving = self.receiving.lock();
        let mut sending = self.sending.lock();
        let partly = sending.done != 0;
        // What was not begun is forgotten with its slot.
        let from = usize::from(partly);
        while let Ok(out) = sending.batch.remove(from) {
            if let Some(slot) = self.slots.lock().get_mut(out.slot) {
                if slot.op == op::READ && !matches!(slot.place, Place::Done) {
                    self.reads.fetch_sub(1, Ordering::SeqCst);
                }
                *slot = Slot::FREE;
            }
        }
        for out in sending.batch.iter_mut() {
            out.flight = None;
        }
        receiving.current = None;
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
        let receiving = self.receiving.lock();
        let sending = self.sending.lock();
        if !matches!(receiving.phase, Phase::Live) {
            return Ok(None);
        }
        // Everything was drained or let go of.
        if !sending.batch.is_empty() || receiving.current.is_some() {
            return Err(EBUSY);
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
            let place = slot(orphan.cookie).and_then(|at| slots.get_mut(at)).ok_or(EINVAL)?;
            *place = Slot {
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
            if orphan.op == op::READ {
                self.reads.fetch_add(1, Ordering::SeqCst);
            }
            count = count.saturating_add(1);
        }
        // Data of a request that is not there can only be that of a position that was made up.
        if let Some((cookie, _, _)) = found.parser.data() {
            find(&mut slots, cookie).map_err(|_| EINVAL)?;
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
        for slot in self.slots.lock().iter_mut() {
            slot.sent_ns = slot.sent_ns.saturating_add(paused_ns);
        }
    }
}

/// The slot of a cookie that is in flight.
fn find(slots: &mut KVec<Slot>, cookie: u64) -> Result<(usize, &mut Slot), Lost> {
    let unknown = || protocol(format_args!("a reply has the unknown cookie {cookie:#x}"));
    let at = slot(cookie).ok_or_else(unknown)?;
    let slot = slots.get_mut(at).ok_or_else(unknown)?;
    match slot.place {
        Place::Free | Place::Done | Place::Answered(_) => Err(unknown()),
        _ if slot.cookie != cookie => Err(unknown()),
        _ => Ok((at, slot)),
    }
}

/// Fills so many bytes of the data of a read with zeroes, from byte `at` on.
fn zero(flight: &Flight, mut at: u32, bytes: u32) {
    let end = at.saturating_add(bytes);
    while at < end {
        let mut gather = Gather::new();
        let added = gather.data(flight.data_from(at), end.saturating_sub(at));
        if added == 0 {
            return;
        }
        gather.zero();
        at = at.saturating_add(added);
    }
}

/// Puts the batch into one message, from byte `done` of the first request on. False when it had no room for all.
fn gather_batch<'a>(
    gather: &mut Gather<'a>,
    headers: &'a Headers,
    batch: &'a [Outgoing],
    mut done: u32,
) -> bool {
    for out in batch {
        if !gather.has_room() {
            return false;
        }
        let head = REQUEST_BYTES as u32;
        if done < head {
            gather.header(headers, out.slot, done);
        }
        if let Some(flight) = &out.flight {
            let from = done.saturating_sub(head);
            let left = out.bytes.saturating_sub(head).saturating_sub(from);
            if gather.data(flight.data_from(from), left) < left {
                return false;
            }
        }
        done = 0;
    }
    true
}

/// Requests that have ended, until no lock is held any more: what goes on with them may want one.
struct Ended {
    good: FlightList,
    bad: FlightList,
}

impl Ended {
    const NONE: Self = Self { good: FlightList::new(), bad: FlightList::new() };

    fn add(&mut self, flight: Flight, outcome: u32) {
        match outcome {
            status::OK => self.good.push_back(flight),
            _ => {
                flight.word().store(u64::from(outcome), Ordering::Relaxed);
                self.bad.push_back(flight);
            }
        }
    }

    fn finish(mut self) {
        while let Some(flight) = self.good.pop_front() {
            flight.finish(status::OK);
        }
        while let Some(flight) = self.bad.pop_front() {
            let outcome = flight.word().load(Ordering::Relaxed);
            flight.finish(u32::try_from(outcome).unwrap_or(status::IO));
        }
    }
}
