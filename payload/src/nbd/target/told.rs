// SPDX-License-Identifier: GPL-2.0

//! What people are told of a target.

use core::sync::atomic::Ordering;

use super::super::connection::Connection;
use super::super::line;
use super::super::rules::ns;
use super::server::State;
use super::Target;
use crate::abi::request::op;
use crate::abi::text::Text;
use crate::flight::now_ns;
use crate::shown::{self, Status, TargetState};
use crate::spec::MAX_CONNECTIONS;

impl Target {
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
