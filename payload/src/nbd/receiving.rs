// SPDX-License-Identifier: GPL-2.0

//! The receiving side of a connection in the transmission phase. The poller calls it.

use core::sync::atomic::Ordering;

use kernel::prelude::*;
use kernel::sync::SpinLockGuard;

use super::connection::{protocol, Connection, Lost, Phase, BUFFER_BYTES};
use super::ended::Ended;
use super::reply::{Event, Parser};
use super::rules::Stillness;
use super::slots::{Place, Slot, Slots};
use super::socket::{Gather, Page, Received, Socket, Watch};
use super::target::Target;
use super::wire::{verdict, Verdict};
use crate::abi::request::op;
use crate::abi::text::Text;
use crate::flight::Flight;

/// Calls to receive in one pass of the poller over a connection.
const RECEIVE_ROUNDS: usize = 128;

/// Longest beginning of a reply that is received together with the data before it.
const HEAD_BYTES: usize = 32;

/// A read whose data is being received.
pub(super) struct Reading {
    slot: usize,
    /// First byte of the read, on the export.
    start: u64,
    pub(super) flight: Flight,
}

impl Reading {
    /// Takes a read from its slot. `None` when it is not there: it was let go of.
    fn begin(at: usize, slot: &mut Slot) -> Option<Self> {
        let start = slot.sector.saturating_mul(512);
        match core::mem::replace(&mut slot.place, Place::Lent) {
            Place::Out(flight) => Some(Self { slot: at, start, flight }),
            other => {
                slot.place = other;
                None
            }
        }
    }

    /// Where a byte of the export lies in its data.
    fn place(&self, offset: u64) -> u32 {
        // It was checked that the chunk lies within the read, whose length is 32 bits.
        offset.saturating_sub(self.start) as u32
    }
}

/// The receiving side.
pub(super) struct Receiving {
    pub(super) phase: Phase,
    pub(super) watch: Option<Watch>,
    pub(super) parser: Parser,
    pub(super) buffer: KVec<u8>,
    /// Where the beginning of the reply goes that comes behind the data of a read.
    pub(super) behind: Page,
    /// The read whose data is being received.
    pub(super) current: Option<Reading>,
    /// When this attempt, or this connection, began.
    pub(super) began_ns: u64,
    /// When to look for overdue answers.
    pub(super) check_ns: u64,
    pub(super) stillness: Stillness,
}

impl Connection {
    /// Receives what is there.
    pub(super) fn receive(
        &self,
        target: &Target,
        receiving: &mut Receiving,
        ended: &mut Ended,
    ) -> Result<(), Lost> {
        let socket = match &receiving.watch {
            Some(watch) => watch.socket().clone(),
            None => return Err(Lost::Network(EINVAL)),
        };
        for _ in 0..RECEIVE_ROUNDS {
            let received = match receiving.parser.data() {
                Some((cookie, offset, left)) => {
                    self.receive_data(target, &socket, receiving, (cookie, offset, left), ended)?
                }
                None => self.receive_replies(target, &socket, receiving, ended)?,
            };
            // What comes later rings.
            if !received.is_some_and(|received| received.more) {
                return Ok(());
            }
        }
        // There may be more; others are to have their turn.
        self.ring();
        Ok(())
    }

    /// Receives replies as far as they are known to be no data.
    fn receive_replies(
        &self,
        target: &Target,
        socket: &Socket,
        receiving: &mut Receiving,
        ended: &mut Ended,
    ) -> Result<Option<Received>, Lost> {
        // While no read is in flight nothing but short replies can come; else not more is taken than the head of a
        // reply, so that the data behind it goes into its pages at once.
        let wanted = match self.reads.load(Ordering::SeqCst) {
            0 => BUFFER_BYTES,
            _ if receiving.parser.between_replies() => receiving.parser.head_bytes(),
            _ => receiving.parser.wanted().min(BUFFER_BYTES),
        };
        let mut buffer = core::mem::take(&mut receiving.buffer);
        let room = buffer.get_mut(..wanted).unwrap_or(&mut []);
        let outcome = match socket.receive_bytes(room) {
            Ok(Some(received)) => {
                let bytes = room.get(..received.bytes).unwrap_or(&[]);
                self.parse(target, receiving, bytes, ended).map(|()| Some(received))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(Lost::Network(error)),
        };
        receiving.buffer = buffer;
        outcome
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
                if let Some(reading) = &receiving.current {
                    let (flight, from) = (&reading.flight, reading.place(offset));
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

    /// Has the read of a cookie at hand, whose data comes next. An orphan has none.
    fn lend(&self, receiving: &mut Receiving, cookie: u64) -> Result<(), Lost> {
        if receiving.current.is_none() {
            let mut slots = self.slots.lock();
            let (at, slot) = slots.find(cookie)?;
            receiving.current = Reading::begin(at, slot);
        }
        Ok(())
    }

    /// Receives data of a read into its pages, or that of an orphan into nothing. The beginning of the next reply comes
    /// with it, when it is there already.
    fn receive_data(
        &self,
        target: &Target,
        socket: &Socket,
        receiving: &mut Receiving,
        (cookie, offset, left): (u64, u64, u32),
        ended: &mut Ended,
    ) -> Result<Option<Received>, Lost> {
        self.lend(receiving, cookie)?;
        let Some(reading) = &receiving.current else {
            let length = receiving.buffer.len().min(left as usize);
            let room = receiving.buffer.get_mut(..length).unwrap_or(&mut []);
            let received = socket.receive_bytes(room)?;
            if let Some(received) = received {
                self.took(target, receiving, cookie, received.bytes as u32, ended)?;
            }
            return Ok(received);
        };
        let mut gather = Gather::new();
        let data = gather.data(reading.flight.data_from(reading.place(offset)), left);
        if data == 0 {
            return Err(Lost::Network(EIO));
        }
        if data == left {
            let head = receiving.parser.head_bytes().min(HEAD_BYTES);
            // Without room for it, it is received by itself.
            let _ = gather.page(&receiving.behind, head as u32);
        }
        let Some(received) = socket.receive(&gather)? else {
            return Ok(None);
        };
        // Both are at most what was asked for.
        let of_data = received.bytes.min(data as usize);
        self.took(target, receiving, cookie, of_data as u32, ended)?;
        let mut head = [0; HEAD_BYTES];
        let behind = head.get_mut(..received.bytes.saturating_sub(of_data)).unwrap_or(&mut []);
        if !behind.is_empty() {
            receiving.behind.read(behind);
            self.parse(target, receiving, behind, ended)?;
        }
        Ok(Some(received))
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
        let mut slots = self.slots.lock();
        if let Some(reading) = receiving.current.take() {
            if let Some(slot) = slots.at(reading.slot) {
                slot.place = Place::Out(reading.flight);
            }
        }
        match over {
            Some(_) => self.over(target, slots, cookie, ended),
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
                let (at, slot) = slots.find(cookie)?;
                if error != 0 || slot.op != op::READ {
                    slot.error = error;
                    return self.over(target, slots, cookie, ended);
                }
                if structured {
                    return Err(protocol(format_args!("a read was answered by a simple reply")));
                }
                let (start, bytes) = (slot.sector.saturating_mul(512), slot.bytes);
                slot.covered.add(0, bytes)?;
                receiving.current = Reading::begin(at, slot);
                receiving.parser.expect(cookie, start, bytes);
                Ok(())
            }
            Event::Data { cookie, offset, bytes, .. } => {
                receiving.current = self.chunk(cookie, offset, bytes)?;
                Ok(())
            }
            Event::Hole { cookie, offset, bytes, done } => {
                if let Some(reading) = self.chunk(cookie, offset, bytes)? {
                    zero(&reading.flight, reading.place(offset), bytes);
                    if let Some(slot) = self.slots.lock().at(reading.slot) {
                        slot.place = Place::Out(reading.flight);
                    }
                }
                if done {
                    return self.over(target, self.slots.lock(), cookie, ended);
                }
                Ok(())
            }
            Event::Failed { cookie, error, done } => {
                let mut slots = self.slots.lock();
                let (_, slot) = slots.find(cookie)?;
                if slot.error == 0 {
                    slot.error = error;
                }
                if done {
                    return self.over(target, slots, cookie, ended);
                }
                Ok(())
            }
            Event::End { cookie } => self.over(target, self.slots.lock(), cookie, ended),
        }
    }

    /// Checks a chunk of a read before any of its data is taken, and takes the read. An orphan has none.
    fn chunk(&self, cookie: u64, offset: u64, bytes: u32) -> Result<Option<Reading>, Lost> {
        let mut slots = self.slots.lock();
        let (at, slot) = slots.find(cookie)?;
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
            return Ok(None);
        }
        slot.covered.add(from, bytes)?;
        Ok(Reading::begin(at, slot))
    }

    /// The reply to a request is complete.
    fn over(
        &self,
        target: &Target,
        mut slots: SpinLockGuard<'_, Slots>,
        cookie: u64,
        ended: &mut Ended,
    ) -> Result<(), Lost> {
        let (at, slot) = slots.find(cookie)?;
        let short = slot.op == op::READ && slot.error == 0 && !slot.covered.is_whole(slot.bytes);
        if short && !matches!(slot.place, Place::Orphan) {
            return Err(protocol(format_args!("a read was answered in part")));
        }
        let outcome = match verdict(slot.op, slot.error) {
            Verdict::Ends(outcome) => outcome,
            // The slot stays as it is, and the request is sent again with all others.
            Verdict::SendAgain => {
                return Err(Lost::Other(Text::new("the server is shutting down")));
            }
        };
        if slot.op == op::READ {
            self.reads.fetch_sub(1, Ordering::SeqCst);
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        match slot.place {
            Place::Lent => slot.place = Place::Answered(outcome),
            Place::Out(_) if slot.unsent => {
                if let Place::Out(flight) = core::mem::replace(&mut slot.place, Place::Done) {
                    drop(slots);
                    ended.add(flight, outcome);
                }
            }
            Place::Out(_) => {
                if let Place::Out(flight) = slots.take(at) {
                    drop(slots);
                    ended.add(flight, outcome);
                }
            }
            Place::Orphan => {
                slots.take(at);
                drop(slots);
                target.orphans_gone(1);
            }
            _ => return Err(protocol(format_args!("a request was answered twice"))),
        }
        Ok(())
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
