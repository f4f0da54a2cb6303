// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What of an NBD target goes into the image. Pure.
//!
//! ```text
//! target      format u32, bits u32, bytes u64, flags u32, blocks 3 * u32, since u64, failed u32,
//!             next u64, reconnects u64, re-sent u64, protocol errors u64, last error 64,
//!             connections u32, then each connection
//! connection  index u32, key u32, generation u64, position 56, sent u64, answered u64, orphans u32, then each
//! orphan      cookie u64, sector u64, bytes u32, op u32, sent u64
//! ```
//!
//! Little-endian, without padding. Only connections that are alive are in it. The reader treats the bytes as
//! hostile.

use super::handshake::Blocks;
use super::reply::{Parser, POSITION_BYTES};
use super::rules::BackOff;
use crate::abi::image::Fields;
use crate::abi::request::op;
use crate::abi::text::{Text, TEXT_BYTES};
use crate::protocol::{Output, ProtocolError};
use crate::spec::MAX_CONNECTIONS;

const FORMAT: u32 = 1;

/// Requests in flight on a connection.
pub const SLOTS: usize = 64;
/// Bits of a cookie that name the slot; the rest is the generation.
pub const SLOT_BITS: u32 = 8;

const TARGET_BYTES: usize = 80 + TEXT_BYTES;
const CONNECTION_BYTES: usize = 36 + POSITION_BYTES;
const ORPHAN_BYTES: usize = 32;

/// Most bytes of a record.
pub const MAX_RECORD_BYTES: usize =
    TARGET_BYTES + MAX_CONNECTIONS as usize * (CONNECTION_BYTES + SLOTS * ORPHAN_BYTES);

/// The cookie of a slot, in the generation of a request.
pub const fn cookie(generation: u64, slot: usize) -> u64 {
    generation << SLOT_BITS | slot as u64
}

/// The slot that a cookie names; `None` when there is no such slot.
pub fn slot(cookie: u64) -> Option<usize> {
    let slot = (cookie & ((1 << SLOT_BITS) - 1)) as usize;
    (slot < SLOTS).then_some(slot)
}

/// A target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    /// Size of the export in bytes, flags of the transmission phase and block sizes, as agreed on last.
    pub bytes: u64,
    /// Bits of [`super::wire::transmission`].
    pub flags: u16,
    /// See there.
    pub blocks: Blocks,
    /// Since when it is connected or not.
    pub since_ns: u64,
    /// Whether it counts as failed.
    pub failed: bool,
    /// The attempts to connect.
    pub back_off: BackOff,
    /// Connections made after the first.
    pub reconnects: u64,
    /// Requests that were sent again.
    pub resent: u64,
    /// Connections dropped because the server broke the protocol.
    pub protocol_errors: u64,
    /// What went wrong last; empty for nothing.
    pub last_error: Text,
}

/// A connection in the transmission phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection {
    /// Which one of the target.
    pub index: usize,
    /// The low bits of the key by which Atom keeps its socket.
    pub key: u8,
    /// The generation of the next request.
    pub generation: u64,
    /// How far the stream of replies was read.
    pub parser: Parser,
    /// Requests sent.
    pub sent: u64,
    /// Requests answered.
    pub answered: u64,
}

/// A request that was sent, and that nobody here waits for any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Orphan {
    /// What its reply will have.
    pub cookie: u64,
    /// First sector of 512 bytes.
    pub sector: u64,
    /// Length in bytes; 0 for a flush.
    pub bytes: u32,
    /// One of [`op`].
    pub op: u8,
    /// When it was sent.
    pub sent_ns: u64,
}

impl Orphan {
    /// Whether it may still change what is on the export.
    pub const fn writes(&self) -> bool {
        matches!(self.op, op::WRITE | op::DISCARD | op::WRITE_ZEROES)
    }
}

/// Writes a record: the target, then its connections in order, each with its orphans.
pub struct Writer<'a> {
    out: Output<'a>,
}

impl<'a> Writer<'a> {
    /// Begins with the target, of which so many connections follow.
    pub fn new(
        buffer: &'a mut [u8],
        state: &State,
        connections: usize,
    ) -> Result<Self, ProtocolError> {
        let mut out = Output::new(buffer);
        let bits = u32::from(state.failed);
        let blocks = &state.blocks;
        out.put(&[
            &FORMAT.to_le_bytes(),
            &bits.to_le_bytes(),
            &state.bytes.to_le_bytes(),
            &u32::from(state.flags).to_le_bytes(),
            &blocks.minimum.to_le_bytes(),
            &blocks.preferred.to_le_bytes(),
            &blocks.maximum.to_le_bytes(),
            &state.since_ns.to_le_bytes(),
            &state.back_off.failed.to_le_bytes(),
            &state.back_off.next_ns.to_le_bytes(),
            &state.reconnects.to_le_bytes(),
            &state.resent.to_le_bytes(),
            &state.protocol_errors.to_le_bytes(),
            &state.last_error.to_bytes(),
            &(connections as u32).to_le_bytes(),
        ])?;
        Ok(Self { out })
    }

    /// Adds a connection, of which so many orphans follow.
    pub fn connection(
        &mut self,
        connection: &Connection,
        orphans: usize,
    ) -> Result<(), ProtocolError> {
        self.out.put(&[
            &(connection.index as u32).to_le_bytes(),
            &u32::from(connection.key).to_le_bytes(),
            &connection.generation.to_le_bytes(),
            &connection.parser.to_bytes(),
            &connection.sent.to_le_bytes(),
            &connection.answered.to_le_bytes(),
            &(orphans as u32).to_le_bytes(),
        ])
    }

    /// Adds an orphan.
    pub fn orphan(&mut self, orphan: &Orphan) -> Result<(), ProtocolError> {
        self.out.put(&[
            &orphan.cookie.to_le_bytes(),
            &orphan.sector.to_le_bytes(),
            &orphan.bytes.to_le_bytes(),
            &u32::from(orphan.op).to_le_bytes(),
            &orphan.sent_ns.to_le_bytes(),
        ])
    }

    /// Bytes that were written.
    pub fn finish(self) -> usize {
        self.out.len()
    }
}

/// A record that was read from end to end.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The target.
    pub state: State,
    connections: Fields<'a>,
    count: usize,
}

impl<'a> Record<'a> {
    /// Reads hostile bytes, which end with the record.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut fields = Fields::new(bytes);
        let state = decode_state(&mut fields)?;
        let count = bounded(fields.u32()?, MAX_CONNECTIONS as usize, "number of connections")?;
        let connections = fields;
        let mut next = 0;
        for _ in 0..count {
            let (connection, orphans) = decode_connection(&mut fields)?;
            if connection.index < next {
                return Err(ProtocolError::Invalid("order of connections"));
            }
            next = connection.index.saturating_add(1);
            let mut seen = 0u64;
            for _ in 0..orphans {
                let orphan = decode_orphan(&mut fields)?;
                let slot = slot(orphan.cookie).ok_or(ProtocolError::Invalid("slot"))?;
                if seen & (1 << slot) != 0 || orphan.cookie >> SLOT_BITS >= connection.generation {
                    return Err(ProtocolError::Invalid("cookie"));
                }
                seen |= 1 << slot;
            }
        }
        match fields.is_empty() {
            true => Ok(Self { state, connections, count }),
            false => Err(ProtocolError::Trailing),
        }
    }

    /// The connections, each with its orphans.
    pub fn connections(&self) -> impl Iterator<Item = (Connection, Orphans<'a>)> {
        let mut fields = self.connections;
        // `decode` has read each of them without an error.
        (0..self.count).map_while(move |_| {
            let (connection, count) = decode_connection(&mut fields).ok()?;
            let orphans = fields;
            for _ in 0..count {
                decode_orphan(&mut fields).ok()?;
            }
            Some((connection, Orphans { fields: orphans, left: count }))
        })
    }
}

/// The orphans of a connection.
pub struct Orphans<'a> {
    fields: Fields<'a>,
    left: usize,
}

impl Iterator for Orphans<'_> {
    type Item = Orphan;

    fn next(&mut self) -> Option<Orphan> {
        self.left = self.left.checked_sub(1)?;
        decode_orphan(&mut self.fields).ok()
    }
}

const _: () = assert!(SLOTS <= u64::BITS as usize && SLOTS <= 1 << SLOT_BITS);

fn bounded(value: u32, most: usize, what: &'static str) -> Result<usize, ProtocolError> {
    usize::try_from(value).ok().filter(|value| *value <= most).ok_or(ProtocolError::Invalid(what))
}

fn decode_state(fields: &mut Fields<'_>) -> Result<State, ProtocolError> {
    if fields.u32()? != FORMAT {
        return Err(ProtocolError::Invalid("format of a target"));
    }
    let bits = fields.u32()?;
    let bytes = fields.u64()?;
    let flags = fields.u32()?;
    let blocks =
        Blocks { minimum: fields.u32()?, preferred: fields.u32()?, maximum: fields.u32()? };
    let state = State {
        bytes,
        flags: u16::try_from(flags).map_err(|_| ProtocolError::Invalid("flags of an export"))?,
        blocks,
        since_ns: fields.u64()?,
        failed: bits & 1 != 0,
        back_off: BackOff { failed: fields.u32()?, next_ns: fields.u64()? },
        reconnects: fields.u64()?,
        resent: fields.u64()?,
        protocol_errors: fields.u64()?,
        last_error: Text::from_bytes(fields.array::<TEXT_BYTES>()?),
    };
    if bits > 1 {
        return Err(ProtocolError::Invalid("bits of a target"));
    }
    if bytes > i64::MAX as u64 || !blocks.is_valid() {
        return Err(ProtocolError::Invalid("size of an export"));
    }
    Ok(state)
}

fn decode_connection(fields: &mut Fields<'_>) -> Result<(Connection, usize), ProtocolError> {
    let index = fields.u32()?;
    let key = u8::try_from(fields.u32()?).map_err(|_| ProtocolError::Invalid("key"))?;
    let generation = fields.u64()?;
    let parser = Parser::from_bytes(&fields.array::<POSITION_BYTES>()?)
        .ok_or(ProtocolError::Invalid("position in replies"))?;
    let (sent, answered) = (fields.u64()?, fields.u64()?);
    let orphans = bounded(fields.u32()?, SLOTS, "number of orphans")?;
    let index = bounded(index, MAX_CONNECTIONS as usize - 1, "number of a connection")?;
    if generation > u64::MAX >> SLOT_BITS {
        return Err(ProtocolError::Invalid("generation"));
    }
    Ok((Connection { index, key, generation, parser, sent, answered }, orphans))
}

fn decode_orphan(fields: &mut Fields<'_>) -> Result<Orphan, ProtocolError> {
    let (cookie, sector, bytes) = (fields.u64()?, fields.u64()?, fields.u32()?);
    let code = fields.u32()?;
    let sent_ns = fields.u64()?;
    let op = u8::try_from(code).map_err(|_| ProtocolError::Invalid("operation"))?;
    match op {
        op::READ | op::WRITE | op::FLUSH | op::DISCARD | op::WRITE_ZEROES => {}
        _ => return Err(ProtocolError::Invalid("operation")),
    }
    if sector > i64::MAX as u64 / 512 {
        return Err(ProtocolError::Invalid("sector"));
    }
    Ok(Orphan { cookie, sector, bytes, op, sent_ns })
}
