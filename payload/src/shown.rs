// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The answer to the question about one volume: both ends. Pure.
//!
//! ```text
//! target      state u32, connections u32, connections wanted u32, requests that wait u32,
//!             in this state for u64 ns, reconnects u64, requests sent again u64, protocol errors u64,
//!             failures u64, pages u64, facts 48, last error 64, what is open u32, then each connection,
//!             latency by operation in the form of schema 5, remembered failures u32, then each 24
//! connection  local port u32, state u32, sent u64, answered u64
//! ```

use super::abi::image::Fields;
use super::abi::text::{Text, TEXT_BYTES};
use super::answers::{begin_done, decode_outcome, Outcome};
use super::counts::{Counts2, OPS};
use super::history::{Failure, FAILURE_BYTES, KEPT};
use super::latency::{OpLatency, OP5_BYTES};
use super::limits::Facts;
use super::protocol::{check_end, Output, ProtocolError};
use super::shape::Description;
use super::spec::{Made, MAX_CONNECTIONS};

/// How a target is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetState {
    /// It serves.
    Ready,
    /// A connection is being made.
    Connecting,
    /// The connection is lost; attempts go on.
    Retrying,
    /// It counts as failed.
    Failed,
}

impl TargetState {
    /// The name, in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Connecting => "connecting",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
        }
    }

    const fn code(self) -> u32 {
        match self {
            Self::Ready => 0,
            Self::Connecting => 1,
            Self::Retrying => 2,
            Self::Failed => 3,
        }
    }

    const fn from_code(code: u32) -> Result<Self, ProtocolError> {
        match code {
            0 => Ok(Self::Ready),
            1 => Ok(Self::Connecting),
            2 => Ok(Self::Retrying),
            3 => Ok(Self::Failed),
            _ => Err(ProtocolError::Invalid("state of a target")),
        }
    }
}

/// One connection of a target on a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection {
    /// The local port; 0 for a socket in the file system.
    pub local_port: u16,
    /// How it is.
    pub state: TargetState,
    /// Requests that were sent on it.
    pub sent: u64,
    /// Requests that were answered on it.
    pub answered: u64,
}

const CONNECTION_BYTES: usize = 24;

/// What is known of a target beside its latency, connections and failures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// How it is.
    pub state: TargetState,
    /// Connections that serve.
    pub connections: u32,
    /// Connections that it is to have; 0 where there are none to have.
    pub wanted: u32,
    /// Requests that wait for it and were not sent.
    pub waiting: u32,
    /// For how long it has been in this state, in nanoseconds.
    pub since_ns: u64,
    /// Connections that were made after one was lost.
    pub reconnects: u64,
    /// Requests that were sent again.
    pub resent: u64,
    /// Answers that broke the protocol.
    pub protocol_errors: u64,
    /// Parts of requests that it has failed.
    pub failures: u64,
    /// Pages that it has in memory.
    pub pages: u64,
    /// What it can do.
    pub facts: Facts,
    /// The last thing that went wrong; empty when nothing did.
    pub last_error: Text,
}

/// Writes the answer, target by target.
pub struct ShownWriter<'a> {
    out: Output<'a>,
}

impl<'a> ShownWriter<'a> {
    /// Begins an answer. `schema` is the newest that the payload has.
    pub fn new(
        buffer: &'a mut [u8],
        schema: u32,
        volume: &Description,
        counts: &Counts2,
        made: &Made<'_>,
    ) -> Result<Self, ProtocolError> {
        let mut out = Output::new(buffer);
        begin_done(&mut out)?;
        out.put(&[&schema.to_le_bytes()])?;
        volume.encode(|parts| out.put(parts))?;
        counts.encode(|bytes| out.put(&[bytes]))?;
        made.put(&mut out)?;
        Ok(Self { out })
    }

    /// Adds the next target.
    pub fn target(
        &mut self,
        status: &Status,
        connections: impl ExactSizeIterator<Item = Connection>,
        latency: impl Fn(usize) -> OpLatency,
        failures: impl Iterator<Item = Failure>,
    ) -> Result<(), ProtocolError> {
        let out = &mut self.out;
        out.put(&[
            &status.state.code().to_le_bytes(),
            &status.connections.to_le_bytes(),
            &status.wanted.to_le_bytes(),
            &status.waiting.to_le_bytes(),
            &status.since_ns.to_le_bytes(),
            &status.reconnects.to_le_bytes(),
            &status.resent.to_le_bytes(),
            &status.protocol_errors.to_le_bytes(),
            &status.failures.to_le_bytes(),
            &status.pages.to_le_bytes(),
            &status.facts.to_bytes(),
            &status.last_error.to_bytes(),
            &(connections.len() as u32).to_le_bytes(),
        ])?;
        for connection in connections {
            out.put(&[
                &u32::from(connection.local_port).to_le_bytes(),
                &connection.state.code().to_le_bytes(),
                &connection.sent.to_le_bytes(),
                &connection.answered.to_le_bytes(),
            ])?;
        }
        for at in 0..OPS.len() {
            latency(at).encode(5, |bytes| out.put(&[bytes]))?;
        }
        let mut kept = [Failure::default(); KEPT];
        let mut count = 0usize;
        for (place, failure) in kept.iter_mut().zip(failures) {
            *place = failure;
            count = count.saturating_add(1);
        }
        out.put(&[&(count as u32).to_le_bytes()])?;
        kept.iter().take(count).try_for_each(|failure| out.put(&[&failure.to_bytes()]))
    }

    /// The length of the answer.
    pub fn finish(self) -> usize {
        self.out.len()
    }
}

/// The answer to [`Command::Show`](super::protocol::Command::Show).
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The newest schema of the payload that answered: with 4, no latency has a class.
    pub schema: u32,
    /// What the volume is.
    pub volume: Description,
    /// Its statistics.
    pub counts: Counts2,
    /// What it is made of.
    pub made: Made<'a>,
    targets: Fields<'a>,
}

/// One target of a volume that is [`Shown`].
#[derive(Clone, Copy, Debug)]
pub struct TargetShown<'a> {
    /// What is known of it.
    pub status: Status,
    connections: &'a [u8],
    latency: &'a [u8],
    failures: &'a [u8],
}

impl<'a> Shown<'a> {
    /// Decodes hostile bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Outcome<'a, Self>, ProtocolError> {
        let mut fields = Fields::new(bytes);
        if let Outcome::Refused(refused) = decode_outcome(&mut fields)? {
            return Ok(Outcome::Refused(refused));
        }
        let schema = fields.u32()?;
        let volume = Description::decode(&mut fields)?.ok_or(ProtocolError::Invalid("volume"))?;
        let counts = Counts2::decode(&mut fields)?;
        let made = Made::take(&mut fields)?;
        let shown = Self { schema, volume, counts, made, targets: fields };
        for _ in 0..made.len() {
            TargetShown::decode(&mut fields)?;
        }
        check_end(&fields)?;
        Ok(Outcome::Done(shown))
    }

    /// The targets, in the order of the layout.
    pub fn targets(&self) -> impl Iterator<Item = TargetShown<'a>> {
        let mut fields = self.targets;
        // `decode` has read each of them without an error.
        (0..self.made.len()).map_while(move |_| TargetShown::decode(&mut fields).ok())
    }
}

impl<'a> TargetShown<'a> {
    fn decode(fields: &mut Fields<'a>) -> Result<Self, ProtocolError> {
        let status = Status {
            state: TargetState::from_code(fields.u32()?)?,
            connections: fields.u32()?,
            wanted: fields.u32()?,
            waiting: fields.u32()?,
            since_ns: fields.u64()?,
            reconnects: fields.u64()?,
            resent: fields.u64()?,
            protocol_errors: fields.u64()?,
            failures: fields.u64()?,
            pages: fields.u64()?,
            facts: Facts::decode(fields)?,
            last_error: Text::from_bytes(fields.array::<TEXT_BYTES>()?),
        };
        let connections = fields.u32()?;
        if connections > MAX_CONNECTIONS {
            return Err(ProtocolError::Invalid("number of connections"));
        }
        let connections = fields.slice(connections as usize * CONNECTION_BYTES)?;
        connections
            .chunks_exact(CONNECTION_BYTES)
            .try_for_each(|bytes| decode_connection(bytes).map(|_| ()))?;
        let latency = fields.slice(OPS.len() * OP5_BYTES)?;
        let failures = fields.u32()? as usize;
        if failures > KEPT {
            return Err(ProtocolError::Invalid("number of failures"));
        }
        let failures = fields.slice(failures * FAILURE_BYTES)?;
        Ok(Self { status, connections, latency, failures })
    }

    /// Its connections.
    pub fn connections(&self) -> impl Iterator<Item = Connection> + 'a {
        let each = self.connections.chunks_exact(CONNECTION_BYTES);
        each.filter_map(|bytes| decode_connection(bytes).ok())
    }

    /// How long it took, by operation in the order of [`OPS`].
    pub fn latency(&self) -> impl Iterator<Item = (u8, OpLatency)> + 'a {
        let each = OPS.into_iter().zip(self.latency.chunks_exact(OP5_BYTES));
        each.filter_map(|(code, bytes)| {
            Some((code, OpLatency::decode(5, &mut Fields::new(bytes)).ok()?))
        })
    }

    /// The last parts of requests that it has failed, the oldest first.
    pub fn failures(&self) -> impl Iterator<Item = Failure> + 'a {
        let each = self.failures.chunks_exact(FAILURE_BYTES);
        each.filter_map(|bytes| Failure::decode(&mut Fields::new(bytes)).ok().flatten())
    }
}

fn decode_connection(bytes: &[u8]) -> Result<Connection, ProtocolError> {
    let mut fields = Fields::new(bytes);
    Ok(Connection {
        local_port: u16::try_from(fields.u32()?).map_err(|_| ProtocolError::Invalid("port"))?,
        state: TargetState::from_code(fields.u32()?)?,
        sent: fields.u64()?,
        answered: fields.u64()?,
    })
}
