// SPDX-License-Identifier: GPL-2.0

//! The sending side of a connection.
//!
//! It belongs to whoever holds its lock at the moment: a task that submits a request sends it itself when the lock
//! is free, and leaves word otherwise.

use core::sync::atomic::{fence, Ordering};

use kernel::prelude::*;
use kernel::sync::Arc;

use super::connection::Connection;
use super::ended::Ended;
use super::record::cookie;
use super::reply::Coverage;
use super::slots::{Place, Slot};
use super::socket::{Gather, Headers, Socket};
use super::target::Target;
use super::wire::{Request, REQUEST_BYTES};
use crate::abi::request::{op, status};
use crate::flight::{now_ns, Flight};
use crate::points;

/// Requests that are sent together.
pub(super) const BATCH: usize = 16;
/// Messages that one task sends in a row before it leaves the rest to the poller.
const SEND_ROUNDS: usize = 32;
/// How often one task goes on with what others have left to it.
const PUMP_ROUNDS: usize = 16;

/// A request whose sending is not complete.
pub(super) struct Outgoing {
    pub(super) slot: usize,
    /// Of a write, whose data is sent from it.
    pub(super) flight: Option<Flight>,
    /// Bytes of header and data.
    pub(super) bytes: u32,
}

/// The sending side.
pub(super) struct Sending {
    pub(super) socket: Option<Arc<Socket>>,
    pub(super) headers: Headers,
    /// What is being sent, in order.
    pub(super) batch: KVec<Outgoing>,
    /// Bytes of the first of them that were sent.
    pub(super) done: u32,
    /// The socket took nothing, and has not said since that it does.
    pub(super) blocked: bool,
    pub(super) generation: u64,
}

impl Connection {
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
            points::NBD_SEND.meet()?;
            match socket.send(&gather, !whole)? {
                None => *blocked = true,
                Some(bytes) => self.advance(sending, bytes, ended),
            }
        }
        Ok(false)
    }

    /// Takes requests from the queue into free slots and the batch.
    fn fill(&self, target: &Target, sending: &mut Sending, ended: &mut Ended) {
        if !target.has_waiting() {
            return;
        }
        let mut free = self.slots.lock().free();
        while self.is_live() && sending.batch.len() < BATCH && free != 0 {
            let at = free.trailing_zeros() as usize;
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
            free &= free.wrapping_sub(1);
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
            self.slots.lock().put(at, slot);
            // Before it is sent, so that whoever finds the socket writable meanwhile finds this too.
            self.unsent.store(true, Ordering::SeqCst);
            let bytes = data.saturating_add(REQUEST_BYTES as u32);
            // There is room: it was looked for.
            let _ = sending.batch.push_within_capacity(Outgoing { slot: at, flight, bytes });
        }
    }

    /// The socket has taken so many bytes of the batch.
    fn advance(&self, sending: &mut Sending, mut bytes: usize, ended: &mut Ended) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
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
            let Some(slot) = slots.at(out.slot) else {
                continue;
            };
            slot.unsent = false;
            match (&slot.place, out.flight) {
                (Place::Answered(outcome), Some(flight)) => {
                    let outcome = *outcome;
                    slots.take(out.slot);
                    drop(slots);
                    ended.add(flight, outcome);
                }
                (_, Some(flight)) => slot.place = Place::Out(flight),
                (Place::Done, None) => {
                    slots.take(out.slot);
                }
                (_, None) => {}
            }
        }
        self.unsent.store(false, Ordering::SeqCst);
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
