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
//!   others   nothing
//! ```

use super::abi::image::Fields;
use super::counts::{Counts2, COUNTS2_BYTES};
use super::protocol::{check_end, check_version, Output, ProtocolError, VERSION};
use super::shape::{Description, DESCRIPTION_BYTES};

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
