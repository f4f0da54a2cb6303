// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What a volume is made of: a layout over targets. Pure.
//!
//! The tool writes it into a command, a payload keeps it and writes it into its image, and whoever reads
//! it treats the bytes as hostile. Nothing is copied: strings and targets are borrowed from the bytes.
//!
//! ```text
//! volume   layout u32, chunk sectors u32, targets u32, then each target
//! target   kind u32, sectors u64, policy u32, deadline ms u32, answer ms u32, retry ms u32,
//!          retries u32, then by kind:
//!   1 null
//!   2 ram
//!   3 bdev   path
//!   4 nbd    family u32, port u32, scope u32, address 16, path or host, export, connections u32,
//!            keep-alive s u32
//! string   length u32, bytes of UTF-8 without zeroes
//! ```
//!
//! All numbers are little-endian, nothing is padded.

use super::abi::image::Fields;
use super::protocol::{Output, ProtocolError};

/// Most targets of a volume.
pub const MAX_TARGETS: usize = 16;
/// Longest path, host or name of an export, in bytes.
pub const MAX_STRING_BYTES: usize = 255;
/// Most connections of one NBD target.
pub const MAX_CONNECTIONS: u32 = 8;
/// Smallest chunk of a stripe, in sectors: 4 KiB.
pub const MIN_CHUNK_SECTORS: u32 = 8;
/// Largest chunk of a stripe, in sectors: 1 GiB.
pub const MAX_CHUNK_SECTORS: u32 = 2 << 20;
/// Longest time in [`Terms`]: a day, in milliseconds.
pub const MAX_TERM_MS: u32 = 86_400_000;
/// Most bytes of an encoded target.
pub const MAX_TARGET_BYTES: usize = 32 + 28 + 2 * (4 + MAX_STRING_BYTES) + 8;
/// Most bytes of an encoded volume.
pub const MAX_MADE_BYTES: usize = 12 + MAX_TARGETS * MAX_TARGET_BYTES;

/// How the sectors of a volume lie on its targets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// One target after the other.
    Linear,
    /// In chunks, in turn on each target. All targets give the same number of whole chunks.
    Stripe {
        /// Length of a chunk, a power of two from [`MIN_CHUNK_SECTORS`] to [`MAX_CHUNK_SECTORS`].
        chunk_sectors: u32,
    },
}

impl Layout {
    /// The name, in messages and on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Stripe { .. } => "stripe",
        }
    }

    const fn code(self) -> (u32, u32) {
        match self {
            Self::Linear => (1, 0),
            Self::Stripe { chunk_sectors } => (2, chunk_sectors),
        }
    }

    fn from_code(code: u32, chunk_sectors: u32) -> Result<Self, ProtocolError> {
        match (code, chunk_sectors) {
            (1, 0) => Ok(Self::Linear),
            (2, MIN_CHUNK_SECTORS..=MAX_CHUNK_SECTORS) if chunk_sectors.is_power_of_two() => {
                Ok(Self::Stripe { chunk_sectors })
            }
            (2, _) => Err(ProtocolError::Invalid("chunk size")),
            _ => Err(ProtocolError::Invalid("layout")),
        }
    }
}

/// What becomes of requests for a target that counts as failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnFailure {
    /// They wait until the target is back.
    Hold,
    /// They end with an error, and so does what comes until the target is back.
    Error,
}

impl OnFailure {
    /// The name, in messages and on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Error => "error",
        }
    }

    const fn code(self) -> u32 {
        match self {
            Self::Hold => 1,
            Self::Error => 2,
        }
    }

    fn from_code(code: u32) -> Result<Self, ProtocolError> {
        match code {
            1 => Ok(Self::Hold),
            2 => Ok(Self::Error),
            _ => Err(ProtocolError::Invalid("policy of a target")),
        }
    }
}

/// For how long a target is waited for. Only targets on a network use it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// What becomes of requests when the target has failed.
    pub on_failure: OnFailure,
    /// Milliseconds without a connection after which the target counts as failed; 0: never.
    pub deadline_ms: u32,
    /// Milliseconds after which a connection is given up on which nothing happens to the oldest request; 0: never.
    pub answer_ms: u32,
    /// Longest time between two attempts to connect, in milliseconds, at least 100.
    pub retry_ms: u32,
    /// Attempts to connect in a row after which no more are made until somebody asks for it, and the
    /// target counts as failed; 0: no limit.
    pub retries: u32,
}

impl Terms {
    /// What holds where nothing else is said.
    pub const DEFAULT: Self = Self {
        on_failure: OnFailure::Hold,
        deadline_ms: 60_000,
        answer_ms: 30_000,
        retry_ms: 5_000,
        retries: 0,
    };

    /// Whether every time is within its limits.
    pub const fn is_valid(&self) -> bool {
        self.deadline_ms <= MAX_TERM_MS
            && self.answer_ms <= MAX_TERM_MS
            && self.retry_ms <= MAX_TERM_MS
            && self.retry_ms >= 100
    }
}

/// Where an NBD server listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Address<'a> {
    /// IPv4.
    V4 {
        /// In network order.
        address: [u8; 4],
        /// TCP port.
        port: u16,
        /// The host as it was written, for messages.
        host: &'a str,
    },
    /// IPv6.
    V6 {
        /// In network order.
        address: [u8; 16],
        /// TCP port.
        port: u16,
        /// Index of the interface of a link-local address, or 0.
        scope: u32,
        /// The host as it was written, for messages.
        host: &'a str,
    },
    /// A socket in the file system, at most 107 bytes.
    Unix {
        /// Its absolute path.
        path: &'a str,
    },
}

/// An export of an NBD server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nbd<'a> {
    /// Where the server listens.
    pub address: Address<'a>,
    /// The name of the export; empty for the server's default.
    pub export: &'a str,
    /// Connections to make, 1 to [`MAX_CONNECTIONS`], where the server allows several.
    pub connections: u32,
    /// Seconds of silence after which the connection is probed (TCP keep-alive); 0: never.
    pub keepalive_s: u32,
}

/// What a target is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source<'a> {
    /// Ends every request at once; what is read is undefined.
    Null,
    /// Keeps the data in pages of memory.
    Ram,
    /// A block device of this machine, by its absolute path.
    Bdev(&'a str),
    /// An export of an NBD server.
    Nbd(Nbd<'a>),
}

impl Source<'_> {
    /// The name of the kind, in messages and on command lines.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Ram => "ram",
            Self::Bdev(_) => "bdev",
            Self::Nbd(_) => "nbd",
        }
    }
}

/// One target of a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target<'a> {
    /// What it is.
    pub source: Source<'a>,
    /// Sectors of 512 bytes that the volume uses of it, from its start; 0, in a command only: all.
    pub sectors: u64,
    /// For how long it is waited for.
    pub terms: Terms,
}

impl<'a> Target<'a> {
    /// Writes it.
    pub fn encode(&self, out: &mut Output<'_>) -> Result<(), ProtocolError> {
        let kind: u32 = match self.source {
            Source::Null => 1,
            Source::Ram => 2,
            Source::Bdev(_) => 3,
            Source::Nbd(_) => 4,
        };
        let terms = &self.terms;
        out.put(&[
            &kind.to_le_bytes(),
            &self.sectors.to_le_bytes(),
            &terms.on_failure.code().to_le_bytes(),
            &terms.deadline_ms.to_le_bytes(),
            &terms.answer_ms.to_le_bytes(),
            &terms.retry_ms.to_le_bytes(),
            &terms.retries.to_le_bytes(),
        ])?;
        match &self.source {
            Source::Null | Source::Ram => Ok(()),
            Source::Bdev(path) => put_string(out, path),
            Source::Nbd(nbd) => nbd.encode(out),
        }
    }

    /// Bytes that [`Target::encode`] writes.
    pub const fn bytes(&self) -> usize {
        let rest = match &self.source {
            Source::Null | Source::Ram => 0,
            Source::Bdev(path) => 4 + path.len(),
            Source::Nbd(nbd) => {
                let text = match nbd.address {
                    Address::V4 { host, .. } | Address::V6 { host, .. } => host,
                    Address::Unix { path } => path,
                };
                28 + 4 + text.len() + 4 + nbd.export.len() + 8
            }
        };
        32 + rest
    }

    /// Reads hostile bytes.
    pub fn decode(fields: &mut Fields<'a>) -> Result<Self, ProtocolError> {
        let kind = fields.u32()?;
        let sectors = fields.u64()?;
        let terms = Terms {
            on_failure: OnFailure::from_code(fields.u32()?)?,
            deadline_ms: fields.u32()?,
            answer_ms: fields.u32()?,
            retry_ms: fields.u32()?,
            retries: fields.u32()?,
        };
        let source = match kind {
            1 => Source::Null,
            2 => Source::Ram,
            3 => Source::Bdev(path(string(fields)?)?),
            4 => Source::Nbd(Nbd::decode(fields)?),
            _ => return Err(ProtocolError::Invalid("kind of a target")),
        };
        if !terms.is_valid() {
            return Err(ProtocolError::Invalid("time of a target"));
        }
        if sectors > i64::MAX as u64 / 512 {
            return Err(ProtocolError::Invalid("size of a target"));
        }
        Ok(Self { source, sectors, terms })
    }
}

impl<'a> Nbd<'a> {
    fn encode(&self, out: &mut Output<'_>) -> Result<(), ProtocolError> {
        let mut bytes = [0; 16];
        let (family, port, scope, text): (u32, u16, u32, &str) = match &self.address {
            Address::V4 { address, port, host } => {
                let (start, _) = bytes.split_at_mut(4);
                start.copy_from_slice(address);
                (4, *port, 0, host)
            }
            Address::V6 { address, port, scope, host } => {
                bytes = *address;
                (6, *port, *scope, host)
            }
            Address::Unix { path } => (1, 0, 0, path),
        };
        let port = u32::from(port).to_le_bytes();
        out.put(&[&family.to_le_bytes(), &port, &scope.to_le_bytes(), &bytes])?;
        put_string(out, text)?;
        put_string(out, self.export)?;
        out.put(&[&self.connections.to_le_bytes(), &self.keepalive_s.to_le_bytes()])
    }

    fn decode(fields: &mut Fields<'a>) -> Result<Self, ProtocolError> {
        let family = fields.u32()?;
        let port = u16::try_from(fields.u32()?).map_err(|_| ProtocolError::Invalid("port"))?;
        let scope = fields.u32()?;
        let bytes: [u8; 16] = fields.array()?;
        let text = string(fields)?;
        let [a, b, c, d, ..] = bytes;
        let address = match (family, port) {
            (4 | 6, 0) => return Err(ProtocolError::Invalid("port")),
            (4, _) => Address::V4 { address: [a, b, c, d], port, host: text },
            (6, _) => Address::V6 { address: bytes, port, scope, host: text },
            (1, 0) if text.len() <= 107 => Address::Unix { path: path(text)? },
            _ => return Err(ProtocolError::Invalid("address")),
        };
        let export = string(fields)?;
        let connections = fields.u32()?;
        let keepalive_s = fields.u32()?;
        if !(1..=MAX_CONNECTIONS).contains(&connections) {
            return Err(ProtocolError::Invalid("number of connections"));
        }
        // The kernel's own limit, `MAX_TCP_KEEPIDLE`.
        if keepalive_s > 32767 {
            return Err(ProtocolError::Invalid("keep-alive"));
        }
        Ok(Self { address, export, connections, keepalive_s })
    }
}

/// What a volume is made of, still encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Made<'a> {
    /// How its sectors lie on the targets.
    pub layout: Layout,
    count: usize,
    targets: &'a [u8],
}

impl<'a> Made<'a> {
    /// Writes a layout and its targets.
    pub fn encode<'t>(
        layout: Layout,
        targets: impl ExactSizeIterator<Item = Target<'t>>,
        out: &mut Output<'_>,
    ) -> Result<(), ProtocolError> {
        let (code, chunk) = layout.code();
        let count = u32::try_from(targets.len()).map_err(|_| ProtocolError::NoRoom)?;
        out.put(&[&code.to_le_bytes(), &chunk.to_le_bytes(), &count.to_le_bytes()])?;
        for target in targets {
            target.encode(out)?;
        }
        Ok(())
    }

    /// Reads hostile bytes, which end with the last target. All of its targets can then be had.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut fields = Fields::new(bytes);
        let made = Self::take(&mut fields)?;
        match fields.is_empty() {
            true => Ok(made),
            false => Err(ProtocolError::Trailing),
        }
    }

    /// The same where other bytes may follow.
    pub fn take(fields: &mut Fields<'a>) -> Result<Self, ProtocolError> {
        let layout = Layout::from_code(fields.u32()?, fields.u32()?)?;
        let count = usize::try_from(fields.u32()?).map_err(|_| ProtocolError::Truncated)?;
        if !(1..=MAX_TARGETS).contains(&count) {
            return Err(ProtocolError::Invalid("number of targets"));
        }
        let mut ahead = *fields;
        let mut length = 0usize;
        for _ in 0..count {
            length = length.saturating_add(Target::decode(&mut ahead)?.bytes());
        }
        Ok(Self { layout, count, targets: fields.slice(length)? })
    }

    /// Writes it as it was read.
    pub fn put(&self, out: &mut Output<'_>) -> Result<(), ProtocolError> {
        let mut head = [0; 12];
        let targets = self.split(&mut head);
        out.put(&[&head, targets])
    }

    /// The same in two parts: what is before the targets, and the targets.
    pub fn split(&self, head: &mut [u8; 12]) -> &'a [u8] {
        let (code, chunk) = self.layout.code();
        // It is at most `MAX_TARGETS`.
        let numbers = [code, chunk, self.count as u32];
        for (place, number) in head.chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        self.targets
    }

    /// Bytes that [`Made::put`] writes.
    pub fn bytes(&self) -> usize {
        self.targets.len().saturating_add(12)
    }

    /// How many targets there are, at least one.
    pub fn len(&self) -> usize {
        self.count
    }

    /// False: there is at least one target.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The targets, in the order of the layout.
    pub fn targets(&self) -> impl Iterator<Item = Target<'a>> {
        let mut fields = Fields::new(self.targets);
        // `decode` has read each of them without an error.
        (0..self.count).map_while(move |_| Target::decode(&mut fields).ok())
    }
}

fn put_string(out: &mut Output<'_>, text: &str) -> Result<(), ProtocolError> {
    let length = u32::try_from(text.len()).map_err(|_| ProtocolError::NoRoom)?;
    out.put(&[&length.to_le_bytes(), text.as_bytes()])
}

fn string<'a>(fields: &mut Fields<'a>) -> Result<&'a str, ProtocolError> {
    let length = usize::try_from(fields.u32()?).map_err(|_| ProtocolError::Truncated)?;
    if length > MAX_STRING_BYTES {
        return Err(ProtocolError::Invalid("length of a string"));
    }
    let bytes = fields.slice(length)?;
    match core::str::from_utf8(bytes) {
        Ok(text) if !bytes.contains(&0) => Ok(text),
        _ => Err(ProtocolError::Invalid("string")),
    }
}

fn path(text: &str) -> Result<&str, ProtocolError> {
    match text.starts_with('/') {
        true => Ok(text),
        false => Err(ProtocolError::Invalid("path")),
    }
}
