// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The answers of a payload to the commands of `protocol.rs`: both ends. Pure.
//!
//! ```text
//! answer: version u32, then
//!   CREATE   volume u64, device u32
//!   LIST     schema u32, next place u32, entries u32, then each: a description, counts 2
//!   LATE     refused u32, accepted u32
//!   ASKED    times u64, nanoseconds u64
//!   PROBE    local port u32, byte u32, the device's first bytes 8
//!   COMPOSE, RESIZE, SHOW, RECONNECT
//!            outcome u32; 1, refused: errno u32, target u32 or all ones, why (length u32, bytes); 0, done:
//!     COMPOSE, RESIZE
//!            volume u64, sectors u64, device u32, targets u32, then each: sectors used u64, sectors it has u64
//!     SHOW   schema u32, a description, counts 2, what it is made of, then each target, see `shown.rs`
//!     RECONNECT  nothing
//!   others   nothing
//! ```
//!
//! To what can be refused with a reason the kernel's error would say too little: such a command succeeds,
//! and its answer says what came of it.

use super::abi::image::Fields;
use super::counts::{Counts2, COUNTS2_BYTES};
use super::protocol::{check_end, check_version, Output, ProtocolError, ALL_TARGETS, VERSION};
use super::shape::{Description, DESCRIPTION_BYTES};
use super::spec::MAX_TARGETS;

/// Bytes of the answer to a command that only succeeds.
pub const DONE_BYTES: usize = 4;
/// Bytes of the answer to CREATE.
pub const CREATED_BYTES: usize = 16;
/// Bytes of the answer to LATE.
pub const LATE_BYTES: usize = 12;
/// Bytes of the answer to ASKED.
pub const ASKED_BYTES: usize = 20;
/// Bytes of the answer to PROBE.
pub const PROBED_BYTES: usize = 20;
/// Bytes of one entry of a list.
pub const ENTRY_BYTES: usize = DESCRIPTION_BYTES + COUNTS2_BYTES;
/// The next place in a list that is complete.
pub const END_OF_LIST: u32 = u32::MAX;

const LIST_HEADER_BYTES: usize = 16;

/// Longest reason of a [`Refused`], in bytes.
pub const MAX_WHY_BYTES: usize = 192;

/// What came of a command whose refusal has a reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome<'a, T> {
    /// It was carried out.
    Done(T),
    /// It was refused, and nothing has changed.
    Refused(Refused<'a>),
}

/// Why a command was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused<'a> {
    /// The kernel's number of the error, greater than zero.
    pub errno: u32,
    /// Index of the target that it is about.
    pub target: Option<u32>,
    /// In a few words, at most [`MAX_WHY_BYTES`].
    pub why: &'a str,
}

const DONE: u32 = 0;
const REFUSED: u32 = 1;

impl Refused<'_> {
    /// Encodes into `buffer` and returns the length. Of a reason that is too long only the start is taken.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, ProtocolError> {
        let mut length = self.why.len().min(MAX_WHY_BYTES);
        while !self.why.is_char_boundary(length) {
            length = length.saturating_sub(1);
        }
        let why = self.why.as_bytes().get(..length).unwrap_or(&[]);
        let mut out = Output::new(buffer);
        out.put(&[
            &VERSION.to_le_bytes(),
            &REFUSED.to_le_bytes(),
            &self.errno.to_le_bytes(),
            &self.target.unwrap_or(ALL_TARGETS).to_le_bytes(),
            &(why.len() as u32).to_le_bytes(),
            why,
        ])?;
        Ok(out.at)
    }
}

/// Begins an answer that says that the command was carried out.
pub(super) fn begin_done(out: &mut Output<'_>) -> Result<(), ProtocolError> {
    out.put(&[&VERSION.to_le_bytes(), &DONE.to_le_bytes()])
}

/// Reads hostile bytes up to what follows when the command was carried out.
pub(super) fn decode_outcome<'a>(
    fields: &mut Fields<'a>,
) -> Result<Outcome<'a, ()>, ProtocolError> {
    check_version(fields)?;
    match fields.u32()? {
        DONE => Ok(Outcome::Done(())),
        REFUSED => {
            let errno = fields.u32()?;
            let target = Some(fields.u32()?).filter(|target| *target != ALL_TARGETS);
            let length = usize::try_from(fields.u32()?).map_err(|_| ProtocolError::Truncated)?;
            if length > MAX_WHY_BYTES {
                return Err(ProtocolError::Invalid("length of a reason"));
            }
            let why = core::str::from_utf8(fields.slice(length)?)
                .map_err(|_| ProtocolError::Invalid("reason"))?;
            check_end(fields)?;
            Ok(Outcome::Refused(Refused { errno, target, why }))
        }
        _ => Err(ProtocolError::Invalid("outcome")),
    }
}

/// Encodes the answer to a command that was carried out and has nothing to say.
pub fn encode_outcome_done(buffer: &mut [u8]) -> Result<usize, ProtocolError> {
    let mut out = Output::new(buffer);
    begin_done(&mut out)?;
    Ok(out.at)
}

/// Decodes the answer to a command that can be refused with a reason and has nothing else to say.
pub fn decode_outcome_done(bytes: &[u8]) -> Result<Outcome<'_, ()>, ProtocolError> {
    let mut fields = Fields::new(bytes);
    let outcome = decode_outcome(&mut fields)?;
    check_end(&fields)?;
    Ok(outcome)
}

/// What a target gives to its volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Given {
    /// Sectors that the volume uses.
    pub used: u64,
    /// Sectors that the target has.
    pub sectors: u64,
}

/// The answer to [`Command::Compose`](super::protocol::Command::Compose) and
/// [`Command::Resize`](super::protocol::Command::Resize).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Composed<'a> {
    /// Identity of the volume.
    pub volume: u64,
    /// N of `/dev/atomN`.
    pub device: u32,
    /// Its capacity in sectors of 512 bytes.
    pub sectors: u64,
    targets: &'a [u8],
}

impl<'a> Composed<'a> {
    /// Encodes into `buffer` and returns the length.
    pub fn encode(
        volume: u64,
        device: u32,
        sectors: u64,
        targets: impl ExactSizeIterator<Item = Given>,
        buffer: &mut [u8],
    ) -> Result<usize, ProtocolError> {
        let mut out = Output::new(buffer);
        begin_done(&mut out)?;
        out.put(&[
            &volume.to_le_bytes(),
            &sectors.to_le_bytes(),
            &device.to_le_bytes(),
            &(targets.len() as u32).to_le_bytes(),
        ])?;
        for given in targets {
            out.put(&[&given.used.to_le_bytes(), &given.sectors.to_le_bytes()])?;
        }
        Ok(out.at)
    }

    /// Decodes hostile bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Outcome<'a, Self>, ProtocolError> {
        let mut fields = Fields::new(bytes);
        if let Outcome::Refused(refused) = decode_outcome(&mut fields)? {
            return Ok(Outcome::Refused(refused));
        }
        let (volume, sectors, device) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let count = usize::try_from(fields.u32()?).map_err(|_| ProtocolError::Truncated)?;
        if !(1..=MAX_TARGETS).contains(&count) {
            return Err(ProtocolError::Invalid("number of targets"));
        }
        let targets = fields.slice(count.saturating_mul(16))?;
        check_end(&fields)?;
        Ok(Outcome::Done(Self { volume, device, sectors, targets }))
    }

    /// What each target gives, in their order.
    pub fn targets(&self) -> impl Iterator<Item = Given> + 'a {
        self.targets.chunks_exact(16).filter_map(|bytes| {
            let mut fields = Fields::new(bytes);
            Some(Given { used: fields.u64().ok()?, sectors: fields.u64().ok()? })
        })
    }
}

/// Bytes of the longest answer to COMPOSE.
pub const MAX_COMPOSED_BYTES: usize = 32 + 16 * MAX_TARGETS;

/// Encodes the answer to a command that only succeeds.
pub fn encode_done(buffer: &mut [u8]) -> Result<usize, ProtocolError> {
    let mut out = Output::new(buffer);
    out.put(&[&VERSION.to_le_bytes()])?;
    Ok(out.at)
}

/// Decodes the answer to a command that only succeeds.
pub fn decode_done(bytes: &[u8]) -> Result<(), ProtocolError> {
    let mut fields = Fields::new(bytes);
    check_version(&mut fields)?;
    check_end(&fields)
}

/// The answer to [`Command::Create`](super::protocol::Command::Create).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Created {
    /// Identity of the volume.
    pub volume: u64,
    /// N of `/dev/atomN`.
    pub device: u32,
}

impl Created {
    /// Encodes into `buffer` and returns the length.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, ProtocolError> {
        let mut out = Output::new(buffer);
        out.put(&[&VERSION.to_le_bytes(), &self.volume.to_le_bytes(), &self.device.to_le_bytes()])?;
        Ok(out.at)
    }

    /// Decodes hostile bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let mut fields = Fields::new(bytes);
        check_version(&mut fields)?;
        let created = Self { volume: fields.u64()?, device: fields.u32()? };
        check_end(&fields)?;
        Ok(created)
    }
}

/// The answer to [`Command::Late`](super::protocol::Command::Late).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Late {
    /// Ends that Atom refused.
    pub refused: u32,
    /// Ends that it accepted.
    pub accepted: u32,
}

impl Late {
    /// Encodes into `buffer` and returns the length.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, ProtocolError> {
        let mut out = Output::new(buffer);
        let (refused, accepted) = (self.refused.to_le_bytes(), self.accepted.to_le_bytes());
        out.put(&[&VERSION.to_le_bytes(), &refused, &accepted])?;
        Ok(out.at)
    }

    /// Decodes hostile bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let mut fields = Fields::new(bytes);
        check_version(&mut fields)?;
        let late = Self { refused: fields.u32()?, accepted: fields.u32()? };
        check_end(&fields)?;
        Ok(late)
    }
}

/// The answer to [`Command::Asked`](super::protocol::Command::Asked).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    /// How often *timeout* was asked about a request.
    pub timeouts: u64,
    /// The length of the pause that *resume* was told last, in nanoseconds.
    pub paused_ns: u64,
}

impl Asked {
    /// Encodes into `buffer` and returns the length.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, ProtocolError> {
        let mut out = Output::new(buffer);
        let (timeouts, paused_ns) = (self.timeouts.to_le_bytes(), self.paused_ns.to_le_bytes());
        out.put(&[&VERSION.to_le_bytes(), &timeouts, &paused_ns])?;
        Ok(out.at)
    }

    /// Decodes hostile bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let mut fields = Fields::new(bytes);
        check_version(&mut fields)?;
        let asked = Self { timeouts: fields.u64()?, paused_ns: fields.u64()? };
        check_end(&fields)?;
        Ok(asked)
    }
}

/// The answer to [`Command::Probe`](super::protocol::Command::Probe).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Probed {
    /// The local port of the connection, by which one sees that it is still the same one.
    pub port: u16,
    /// What came back.
    pub byte: u8,
    /// The first bytes of the block device.
    pub first: [u8; 8],
}

impl Probed {
    /// Encodes into `buffer` and returns the length.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, ProtocolError> {
        let mut out = Output::new(buffer);
        let port = u32::from(self.port).to_le_bytes();
        let byte = u32::from(self.byte).to_le_bytes();
        out.put(&[&VERSION.to_le_bytes(), &port, &byte, &self.first])?;
        Ok(out.at)
    }

    /// Decodes hostile bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let mut fields = Fields::new(bytes);
        check_version(&mut fields)?;
        let probed = Self {
            port: u16::try_from(fields.u32()?).map_err(|_| ProtocolError::Invalid("port"))?,
            byte: u8::try_from(fields.u32()?).map_err(|_| ProtocolError::Invalid("byte"))?,
            first: fields.array()?,
        };
        check_end(&fields)?;
        Ok(probed)
    }
}

/// One volume of a [`List`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What the volume is.
    pub volume: Description,
    /// Its statistics; what the payload's own schema lacks is zero.
    pub counts: Counts2,
}

/// Writes the answer to [`Command::List`](super::protocol::Command::List).
pub struct ListWriter<'a> {
    out: Output<'a>,
    entries: u32,
}

impl<'a> ListWriter<'a> {
    /// Begins an answer. `schema` is the newest that the payload has.
    pub fn new(buffer: &'a mut [u8], schema: u32) -> Result<Self, ProtocolError> {
        let mut out = Output::new(buffer);
        // The next place and the number of entries are known at the end.
        out.put(&[&VERSION.to_le_bytes(), &schema.to_le_bytes(), &[0; 8]])?;
        Ok(Self { out, entries: 0 })
    }

    /// True while another entry fits.
    pub fn has_room(&self) -> bool {
        self.out.room() >= ENTRY_BYTES
    }

    /// True while no entry was added.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Adds a volume.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), ProtocolError> {
        let out = &mut self.out;
        entry.volume.encode(|parts| out.put(parts))?;
        entry.counts.encode(|bytes| out.put(&[bytes]))?;
        self.entries = self.entries.saturating_add(1);
        Ok(())
    }

    /// Completes the answer and returns its length. `next` is the place to go on with.
    pub fn finish(mut self, next: u32) -> Result<usize, ProtocolError> {
        let total = self.out.at;
        self.out.at = 8;
        self.out.put(&[&next.to_le_bytes(), &self.entries.to_le_bytes()])?;
        Ok(total)
    }
}

/// The answer to [`Command::List`](super::protocol::Command::List).
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    /// The newest schema of the payload that answered.
    pub schema: u32,
    /// Where to go on, or [`END_OF_LIST`].
    pub next: u32,
    entries: &'a [u8],
}

impl<'a> List<'a> {
    /// Decodes hostile bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut fields = Fields::new(bytes);
        check_version(&mut fields)?;
        let schema = fields.u32()?;
        let next = fields.u32()?;
        let count = usize::try_from(fields.u32()?).map_err(|_| ProtocolError::Truncated)?;
        let entries = bytes.get(LIST_HEADER_BYTES..).unwrap_or(&[]);
        if Some(entries.len()) != count.checked_mul(ENTRY_BYTES) {
            return Err(ProtocolError::Invalid("number of entries"));
        }
        entries.chunks_exact(ENTRY_BYTES).try_for_each(|entry| decode_entry(entry).map(|_| ()))?;
        Ok(Self { schema, next, entries })
    }

    /// The volumes.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + 'a {
        // `decode` has read each of them without an error.
        self.entries.chunks_exact(ENTRY_BYTES).filter_map(|entry| decode_entry(entry).ok())
    }
}

fn decode_entry(bytes: &[u8]) -> Result<Entry, ProtocolError> {
    let mut fields = Fields::new(bytes);
    Ok(Entry {
        volume: Description::decode(&mut fields)?.ok_or(ProtocolError::Invalid("volume"))?,
        counts: Counts2::decode(&mut fields)?,
    })
}
