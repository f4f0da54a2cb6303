// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The commands that a payload carries out: both ends. The answers are in `answers.rs`. Pure.
//!
//! Atom forwards them as opaque bytes. All numbers are little-endian, nothing is padded.
//!
//! ```text
//! command: number u32, version u32, then
//!   1 CREATE   name 64, kind u32, block u32, size u64, hw queues u16, queue depth u16
//!   2 DESTROY  name 64
//!   3 LIST     first place u32
//!   4 HOLD     operation u32, requests u32                 (variant stuck)
//!   5 RELEASE                                              (variant stuck)
//!   6 LATE                                                 (variant stuck)
//!   7 ASKED                                                (variant stuck)
//!   8 KEEP     path of a block device 64, TCP port u32     (variant keeper)
//!   9 PROBE    byte to send u32                            (variant keeper)
//!  10 DROP                                                 (variant keeper)
//!  11 COMPOSE   name 64, block u32, hw queues u16, queue depth u16, options u32, then what it is made of
//!  12 SHOW      name 64
//!  13 RESIZE    name 64, then what it is to be made of
//!  14 RECONNECT name 64, target u32 or all ones
//!  15 FILL     pages u32                                  (variant large)
//! ```
//!
//! What a volume is made of is in `spec.rs`. 11 to 14 need a payload with the client.
//!
//! The commands of the variants of the tests are refused by every other payload.
//!
//! A decoder refuses what it does not know, what is too short, and what is too long.

use core::fmt;

use super::abi::image::{Fields, ImageError};
use super::abi::text::Text;
use super::shape::{new_name, read_name, Kind, Shape};
use super::spec::{Made, MAX_MADE_BYTES};

/// The version of the encoding.
pub const VERSION: u32 = 1;
/// Bytes of the longest command.
pub const MAX_COMMAND_BYTES: usize = 8 + 64 + 12 + MAX_MADE_BYTES;
const CREATE: u32 = 1;
const DESTROY: u32 = 2;
const LIST: u32 = 3;
const HOLD: u32 = 4;
const RELEASE: u32 = 5;
const LATE: u32 = 6;
const ASKED: u32 = 7;
const KEEP: u32 = 8;
const PROBE: u32 = 9;
const DROP: u32 = 10;
const COMPOSE: u32 = 11;
const SHOW: u32 = 12;
const RESIZE: u32 = 13;
const RECONNECT: u32 = 14;
const FILL: u32 = 15;

/// Beside the kind of a new volume: it has queues for polled I/O. To a payload that has none it is an unknown kind.
const POLLED_KIND: u32 = 1 << 31;

/// The target of a command that is for all of them.
pub const ALL_TARGETS: u32 = u32::MAX;

/// Why bytes are no command or no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// The buffer is too small for what is written.
    NoRoom,
    /// The bytes end before the content does.
    Truncated,
    /// The content ends before the bytes do.
    Trailing,
    /// The other side encodes in a version that this side does not know.
    Version(u32),
    /// There is no command of this number.
    UnknownCommand(u32),
    /// The named field has a value that it must not have.
    Invalid(&'static str),
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom => f.write_str("the buffer is too small"),
            Self::Truncated => f.write_str("the bytes are cut short"),
            Self::Trailing => f.write_str("there are bytes behind the end"),
            Self::Version(found) => write!(f, "version {found} is spoken, known is {VERSION}"),
            Self::UnknownCommand(number) => write!(f, "there is no command {number}"),
            Self::Invalid(field) => write!(f, "the {field} is not as it must be"),
        }
    }
}

impl From<ImageError> for ProtocolError {
    fn from(_: ImageError) -> Self {
        // `Fields` fails in one way only.
        Self::Truncated
    }
}

/// What a new volume is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Create {
    /// Its name, see [`super::shape::name`].
    pub name: Text,
    /// What serves it.
    pub kind: Kind,
    /// Its size.
    pub bytes: u64,
    /// Smallest unit of addressing, a power of two from 512 to 4096.
    pub block_bytes: u32,
    /// Hardware queues; 0: one for each CPU.
    pub hw_queues: u16,
    /// Requests per hardware queue; 0: as many as Atom sees fit.
    pub queue_depth: u16,
    /// It has as many hardware queues again, for polled I/O. Payloads without the client refuse it.
    pub polled: bool,
}

impl Create {
    /// The shape of the volume, when there can be such a volume.
    pub fn shape(&self) -> Result<Shape, ProtocolError> {
        Shape::new(self.kind, self.bytes, self.block_bytes, self.hw_queues, self.queue_depth)
            .ok_or(ProtocolError::Invalid("size, block size or queue"))
    }
}

/// What a new volume over targets is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compose<'a> {
    /// Its name, see [`super::shape::name`].
    pub name: Text,
    /// Smallest unit of addressing, a power of two from 512 to 4096; 0: the largest of the targets.
    pub block_bytes: u32,
    /// Hardware queues; 0: one for each CPU.
    pub hw_queues: u16,
    /// Requests per hardware queue; 0: as many as Atom sees fit.
    pub queue_depth: u16,
    /// It has as many hardware queues again, for polled I/O.
    pub polled: bool,
    /// What it is made of. A target of 0 sectors gives all that it has.
    pub made: Made<'a>,
}

/// A command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// Creates a volume and its device. Answer: [`Created`](super::answers::Created).
    Create(Create),
    /// Removes a volume, its device and its data.
    Destroy {
        /// Name of the volume.
        name: Text,
    },
    /// Lists volumes. Answer: [`List`](super::answers::List).
    List {
        /// The place in the table to begin with: 0, then [`List::next`](super::answers::List::next).
        from: u32,
    },
    /// Variant stuck: keeps the next requests of one operation without ending them.
    Hold {
        /// One of [`super::abi::request::op`].
        op: u8,
        /// How many.
        requests: u32,
    },
    /// Variant stuck: carries out and ends what was kept.
    Release,
    /// Variant stuck: ends, in the epoch in which they were taken, the requests that it has let go of. Answer:
    /// [`Late`](super::answers::Late).
    Late,
    /// Variant stuck: what it was asked and told. Answer: [`Asked`](super::answers::Asked).
    Asked,
    /// Variant keeper: opens a block device for itself alone, connects to a port of 127.0.0.1, and
    /// gives both to Atom.
    Keep {
        /// Path of the block device.
        path: Text,
        /// The TCP port.
        port: u16,
    },
    /// Variant keeper: uses both. Answer: [`Probed`](super::answers::Probed).
    Probe {
        /// What to send.
        byte: u8,
    },
    /// Variant keeper: has Atom release both.
    Drop,
    /// Variant large: has so much state from now on.
    Fill {
        /// In units of 4 KiB.
        pages: u32,
    },
    /// Creates a volume over targets, and its device. Answer: [`Composed`](super::answers::Composed), or
    /// [`Refused`](super::answers::Refused), and then nothing is left of it.
    Compose(Compose<'a>),
    /// All that is known of one volume. Answer: [`Shown`](super::shown::Shown) or
    /// [`Refused`](super::answers::Refused).
    Show {
        /// Name of the volume.
        name: Text,
    },
    /// Makes a volume larger while it is used. Answer: as to [`Command::Compose`].
    Resize {
        /// Name of the volume.
        name: Text,
        /// What it is to be made of: the same layout, the targets that it has with the same or more sectors (0:
        /// all that the target gives now), and for the layout linear more targets behind them.
        made: Made<'a>,
    },
    /// Has targets on a network try to connect at once, also when they had given up. Answer:
    /// [`Done`](super::answers::Outcome::Done) or [`Refused`](super::answers::Refused).
    Reconnect {
        /// Name of the volume.
        name: Text,
        /// Index of the target, or [`ALL_TARGETS`].
        target: u32,
    },
}

impl<'a> Command<'a> {
    /// Encodes into `buffer` and returns the length.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, ProtocolError> {
        let mut out = Output::new(buffer);
        let mut begin = |number: u32| out.put(&[&number.to_le_bytes(), &VERSION.to_le_bytes()]);
        match self {
            Self::Create(create) => {
                begin(CREATE)?;
                let kind = create.kind.code() | if create.polled { POLLED_KIND } else { 0 };
                out.put(&[
                    &create.name.to_bytes(),
                    &kind.to_le_bytes(),
                    &create.block_bytes.to_le_bytes(),
                    &create.bytes.to_le_bytes(),
                    &create.hw_queues.to_le_bytes(),
                    &create.queue_depth.to_le_bytes(),
                ])?;
            }
            Self::Destroy { name } => {
                begin(DESTROY)?;
                out.put(&[&name.to_bytes()])?;
            }
            Self::List { from } => {
                begin(LIST)?;
                out.put(&[&from.to_le_bytes()])?;
            }
            Self::Hold { op, requests } => {
                begin(HOLD)?;
                out.put(&[&u32::from(*op).to_le_bytes(), &requests.to_le_bytes()])?;
            }
            Self::Release => begin(RELEASE)?,
            Self::Late => begin(LATE)?,
            Self::Asked => begin(ASKED)?,
            Self::Keep { path, port } => {
                begin(KEEP)?;
                out.put(&[&path.to_bytes(), &u32::from(*port).to_le_bytes()])?;
            }
            Self::Probe { byte } => {
                begin(PROBE)?;
                out.put(&[&u32::from(*byte).to_le_bytes()])?;
            }
            Self::Drop => begin(DROP)?,
            Self::Fill { pages } => {
                begin(FILL)?;
                out.put(&[&pages.to_le_bytes()])?;
            }
            Self::Compose(compose) => {
                begin(COMPOSE)?;
                out.put(&[
                    &compose.name.to_bytes(),
                    &compose.block_bytes.to_le_bytes(),
                    &compose.hw_queues.to_le_bytes(),
                    &compose.queue_depth.to_le_bytes(),
                    &options(compose.polled).to_le_bytes(),
                ])?;
                compose.made.put(&mut out)?;
            }
            Self::Show { name } => {
                begin(SHOW)?;
                out.put(&[&name.to_bytes()])?;
            }
            Self::Resize { name, made } => {
                begin(RESIZE)?;
                out.put(&[&name.to_bytes()])?;
                made.put(&mut out)?;
            }
            Self::Reconnect { name, target } => {
                begin(RECONNECT)?;
                out.put(&[&name.to_bytes(), &target.to_le_bytes()])?;
            }
        }
        Ok(out.at)
    }

    /// Decodes hostile bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut fields = Fields::new(bytes);
        let number = fields.u32()?;
        check_version(&mut fields)?;
        let command = match number {
            CREATE => Self::Create(decode_create(&mut fields)?),
            DESTROY => Self::Destroy { name: decode_name(&mut fields)? },
            LIST => Self::List { from: fields.u32()? },
            HOLD => Self::Hold {
                op: u8::try_from(fields.u32()?).map_err(|_| ProtocolError::Invalid("operation"))?,
                requests: fields.u32()?,
            },
            RELEASE => Self::Release,
            LATE => Self::Late,
            ASKED => Self::Asked,
            KEEP => Self::Keep {
                path: decode_path(&mut fields)?,
                port: u16::try_from(fields.u32()?).map_err(|_| ProtocolError::Invalid("port"))?,
            },
            PROBE => Self::Probe {
                byte: u8::try_from(fields.u32()?).map_err(|_| ProtocolError::Invalid("byte"))?,
            },
            DROP => Self::Drop,
            FILL => Self::Fill { pages: fields.u32()? },
            COMPOSE => Self::Compose(Compose::decode(&mut fields)?),
            SHOW => Self::Show { name: decode_name(&mut fields)? },
            RESIZE => {
                Self::Resize { name: decode_name(&mut fields)?, made: Made::take(&mut fields)? }
            }
            RECONNECT => Self::Reconnect { name: decode_name(&mut fields)?, target: fields.u32()? },
            unknown => return Err(ProtocolError::UnknownCommand(unknown)),
        };
        check_end(&fields)?;
        Ok(command)
    }
}

impl<'a> Compose<'a> {
    fn decode(fields: &mut Fields<'a>) -> Result<Self, ProtocolError> {
        let name = decode_new_name(fields)?;
        let block_bytes = fields.u32()?;
        let (hw_queues, queue_depth) = (fields.u16()?, fields.u16()?);
        let polled = decode_options(fields)?;
        Ok(Self { name, block_bytes, hw_queues, queue_depth, polled, made: Made::take(fields)? })
    }
}

fn decode_create(fields: &mut Fields<'_>) -> Result<Create, ProtocolError> {
    let name = decode_new_name(fields)?;
    let kind = fields.u32()?;
    let polled = kind & POLLED_KIND != 0;
    let kind = Kind::from_code(kind & !POLLED_KIND)
        .filter(Kind::is_simple)
        .ok_or(ProtocolError::Invalid("kind"))?;
    let block_bytes = fields.u32()?;
    Ok(Create {
        name,
        kind,
        bytes: fields.u64()?,
        block_bytes,
        hw_queues: fields.u16()?,
        queue_depth: fields.u16()?,
        polled,
    })
}

/// The options of a new volume over targets: a bit for polled I/O, and no other.
fn options(polled: bool) -> u32 {
    u32::from(polled)
}

fn decode_options(fields: &mut Fields<'_>) -> Result<bool, ProtocolError> {
    match fields.u32()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(ProtocolError::Invalid("options")),
    }
}

fn decode_name(fields: &mut Fields<'_>) -> Result<Text, ProtocolError> {
    read_name(fields)?.ok_or(ProtocolError::Invalid("name"))
}

fn decode_new_name(fields: &mut Fields<'_>) -> Result<Text, ProtocolError> {
    let name = decode_name(fields)?;
    new_name(name.as_str()).ok_or(ProtocolError::Invalid("name"))
}

/// An absolute path without bytes behind its end.
fn decode_path(fields: &mut Fields<'_>) -> Result<Text, ProtocolError> {
    let raw = Text::from_bytes(fields.array()?);
    let whole = raw.as_str().starts_with('/') && Text::new(raw.as_str()) == raw;
    whole.then_some(raw).ok_or(ProtocolError::Invalid("path"))
}

pub(super) fn check_version(fields: &mut Fields<'_>) -> Result<(), ProtocolError> {
    match fields.u32()? {
        VERSION => Ok(()),
        other => Err(ProtocolError::Version(other)),
    }
}

pub(super) fn check_end(fields: &Fields<'_>) -> Result<(), ProtocolError> {
    if fields.is_empty() {
        Ok(())
    } else {
        Err(ProtocolError::Trailing)
    }
}

/// Puts bytes one after the other into a buffer of fixed size.
pub struct Output<'a> {
    buffer: &'a mut [u8],
    pub(super) at: usize,
}

impl<'a> Output<'a> {
    /// Begins at the start of `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, at: 0 }
    }

    /// Bytes that were put.
    pub fn len(&self) -> usize {
        self.at
    }

    /// True while nothing was put.
    pub fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// Bytes that are left.
    pub(super) fn room(&self) -> usize {
        self.buffer.len().saturating_sub(self.at)
    }

    /// Puts each of `parts`.
    pub fn put(&mut self, parts: &[&[u8]]) -> Result<(), ProtocolError> {
        for part in parts {
            let end = self.at.saturating_add(part.len());
            self.buffer.get_mut(self.at..end).ok_or(ProtocolError::NoRoom)?.copy_from_slice(part);
            self.at = end;
        }
        Ok(())
    }
}
