// SPDX-License-Identifier: GPL-2.0

//! What a target leaves to the next payload, and how it begins with what an earlier one has left.

use core::sync::atomic::Ordering;

use kernel::prelude::*;
use kernel::sync::Arc;

use super::super::handshake::Agreed;
use super::super::record::{Record, State as Past, Writer};
use super::super::rules::{ns, Attempts, BackOff};
use super::super::socket::Socket;
use super::super::{poller, protocol_errno};
use super::server::{State, NOTHING};
use super::Target;
use crate::flight::now_ns;
use crate::spec::{Nbd, Terms};

impl Target {
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
}

impl State {
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
