// SPDX-License-Identifier: GPL-2.0

//! The requests of a target that wait to be sent.
//!
//! A request that comes is put on a stack that needs no lock, because it may come at the end of another in an
//! interrupt. Whoever sends takes the stack into the lines of the scheduler, and the next request from there.

use core::sync::atomic::Ordering;

use kernel::prelude::*;

use super::super::connection::Connection;
#[cfg(not(payload_schema = "5"))]
use super::super::scheduler::Fifo as Order;
#[cfg(payload_schema = "5")]
use super::super::scheduler::ReadsFirst as Order;
use super::super::scheduler::{Line, Schedule};
use super::Target;
use crate::abi::request::status;
use crate::flight::{Context, Flight, FlightList};

/// The requests that wait, in the lines of the scheduler.
pub(super) struct Queue {
    first: FlightList,
    second: FlightList,
    /// Those that an orphan could still write over.
    behind: FlightList,
    order: Order,
}

impl Queue {
    pub(super) const fn new() -> Self {
        Self {
            first: FlightList::new(),
            second: FlightList::new(),
            behind: FlightList::new(),
            order: Order::NEW,
        }
    }

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

impl Target {
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
    pub(super) fn wake_up(&self) {
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
    pub(super) fn serving(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().take(self.wanted).map(|connection| &**connection)
    }

    pub(super) fn ring_first(&self) {
        if let Some(first) = self.connections.first() {
            first.ring();
        }
    }

    /// Whether a request waits to be sent.
    pub(in crate::nbd) fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) != 0
    }

    /// The request that goes next.
    pub(in crate::nbd) fn next(&self) -> Option<Flight> {
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
    pub(in crate::nbd) fn orphans_come(&self, count: u32) {
        self.orphans.fetch_add(count, Ordering::SeqCst);
    }

    /// The replies to so many orphans have come, or their connection has ended.
    pub(in crate::nbd) fn orphans_gone(&self, count: u32) {
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
    pub(in crate::nbd) fn back_to_queue(&self, back: &mut FlightList, count: u64) {
        self.waiting.fetch_add(u32::try_from(count).unwrap_or(u32::MAX), Ordering::SeqCst);
        self.resent.fetch_add(count, Ordering::Relaxed);
        let mut queue = self.queue.lock();
        while let Some(flight) = back.pop_front() {
            queue.add_again(flight);
        }
    }

    /// Takes all that waits.
    pub(super) fn empty_queue(&self) -> FlightList {
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

    /// Hands back every request that was not begun to be sent. The gates are closed, so that no task is sending, but
    /// the poller may. Sleeps.
    pub(crate) fn hand_back(&self) {
        let mut back = self.empty_queue();
        for connection in self.serving() {
            connection.hand_back(&mut back);
        }
        while let Some(flight) = back.pop_front() {
            flight.finish(status::NOT_STARTED);
        }
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
}
