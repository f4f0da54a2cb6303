// SPDX-License-Identifier: GPL-2.0

//! The receiving side of a connection in the transmission phase. The poller calls it.

use core::sync::atomic::Ordering;

use kernel::prelude::*;

use super::connection::{protocol, Connection, Lost, Phase, BUFFER_BYTES};
use super::ended::Ended;
use super::reply::{Event, Parser};
use super::slots::{find, Place};
use super::socket::{Gather, Socket, Watch};
use super::target::Target;
use super::wire::{verdict, Verdict};
use crate::abi::request::op;
use crate::abi::text::Text;
use crate::flight::Flight;

/// Calls to receive in one pass of the poller over a connection.
const RECEIVE_ROUNDS: usize = 128;

/// The receiving side.
pub(super) struct Receiving {
    pub(super) phase: Phase,
    pub(super) watch: Option<Watch>,
    pub(super) parser: Parser,
    pub(super) buffer: KVec<u8>,
    /// The read whose data is being received.
    pub(super) current: Option<(usize, Flight)>,
    /// When this attempt, or this connection, began.
    pub(super) began_ns: u64,
    /// When to look for overdue answers.
    pub(super) check_ns: u64,
}

impl Connection {
    /// Receives what is there.
    pub(super) fn receive(
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
