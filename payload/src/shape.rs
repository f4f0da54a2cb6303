// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What a volume is: its identity, kind, geometry and name. Pure.

use super::abi::device::{feature, DeviceSpec};
use super::abi::image::{Fields, ImageError};
use super::abi::text::{Text, TEXT_BYTES};

/// Volumes that a payload can have at a time. The cookie of a device is below it.
pub const MAX_VOLUMES: usize = 1024;
/// Bytes of a page of a RAM volume, and the granularity in which it gives memory back.
pub const PAGE_BYTES: u32 = 4096;
/// Longest discard and longest write-zeroes, in sectors: 2 MiB.
///
/// One such request is carried out at once in `queue_rq`, which must not sleep. The block layer may
/// dispatch a whole queue of them in one go, and closing a gate has to wait for that.
pub const MAX_CLEAR_SECTORS: u32 = 4 << 10;
/// Longest read and longest write, in sectors: 1.25 MiB, as much as the block layer asks for by default.
pub const MAX_TRANSFER_SECTORS: u32 = 2560;
/// Longest name of a volume, in bytes.
pub const MAX_NAME_BYTES: usize = TEXT_BYTES - 1;
/// Bytes of an encoded [`Description`].
pub const DESCRIPTION_BYTES: usize = 56 + TEXT_BYTES;

/// The identity of a volume: its place in the table, and a serial number that is never used again.
///
/// The place stays the same across a switch, and is what Atom gets as the device's cookie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VolumeId(u64);

impl VolumeId {
    /// The identity for a place in the table; `None` for a place behind its end or the serial zero.
    pub fn new(slot: usize, serial: u32) -> Option<Self> {
        let low = u64::try_from(slot).ok().filter(|_| slot < MAX_VOLUMES)?;
        (serial > 0).then_some(Self((u64::from(serial) << 16) | low))
    }

    /// Takes a number that claims to be an identity.
    pub fn from_u64(number: u64) -> Option<Self> {
        let serial = u32::try_from(number >> 16).ok()?;
        Self::new(usize::from(number as u16), serial)
    }

    /// The number that stands for it outside, and the key of its pages.
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// The place in the table.
    pub fn slot(self) -> usize {
        usize::from(self.0 as u16)
    }

    /// The serial number.
    pub fn serial(self) -> u32 {
        (self.0 >> 16) as u32
    }
}

/// What serves a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Ends every request at once; what is read is undefined.
    Null,
    /// Keeps the data in pages of memory.
    Ram,
    /// Targets one after the other.
    Linear,
    /// Targets in turn, in chunks.
    Stripe,
}

impl Kind {
    /// The number that stands for it in images and commands.
    pub const fn code(self) -> u32 {
        match self {
            Self::Null => 1,
            Self::Ram => 2,
            Self::Linear => 3,
            Self::Stripe => 4,
        }
    }

    /// True where a volume has no targets, as in a payload without the client.
    pub const fn is_simple(&self) -> bool {
        matches!(self, Self::Null | Self::Ram)
    }

    /// The kind of a number.
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Null),
            2 => Some(Self::Ram),
            3 => Some(Self::Linear),
            4 => Some(Self::Stripe),
            _ => None,
        }
    }

    /// The name, in messages and on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Ram => "ram",
            Self::Linear => "linear",
            Self::Stripe => "stripe",
        }
    }
}

/// The geometry of a volume: what its device was created with.
///
/// The limits are part of it, because the block layer keeps sending requests up to the limits of the
/// payload that created the device, whichever payload serves it now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// What serves it.
    pub kind: Kind,
    /// Capacity in sectors of 512 bytes.
    pub capacity_sectors: u64,
    /// Smallest unit of addressing.
    pub block_bytes: u32,
    /// Bits of [`feature`].
    pub features: u32,
    /// Longest discard, in sectors.
    pub max_discard_sectors: u32,
    /// Longest write-zeroes, in sectors.
    pub max_write_zeroes_sectors: u32,
    /// Hardware queues; 0: one for each CPU.
    pub hw_queues: u16,
    /// Requests per hardware queue; 0: as many as Atom sees fit.
    pub queue_depth: u16,
}

impl Shape {
    /// The shape of a new volume; `None` when Atom could not have such a device.
    pub fn new(
        kind: Kind,
        bytes: u64,
        block_bytes: u32,
        hw_queues: u16,
        queue_depth: u16,
    ) -> Option<Self> {
        let shape = Self {
            kind,
            capacity_sectors: bytes / 512,
            block_bytes,
            features: feature::WRITE_CACHE | feature::FUA,
            max_discard_sectors: MAX_CLEAR_SECTORS,
            max_write_zeroes_sectors: MAX_CLEAR_SECTORS,
            hw_queues,
            queue_depth,
        };
        (bytes % 512 == 0 && shape.spec().is_valid()).then_some(shape)
    }

    /// The device that the shape asks Atom for.
    pub fn spec(&self) -> DeviceSpec {
        DeviceSpec {
            max_sectors: MAX_TRANSFER_SECTORS,
            features: self.features,
            logical_block_bytes: self.block_bytes,
            physical_block_bytes: PAGE_BYTES,
            discard_granularity_bytes: match self.max_discard_sectors {
                0 if !self.kind.is_simple() => 0,
                _ => PAGE_BYTES,
            },
            max_discard_sectors: self.max_discard_sectors,
            max_write_zeroes_sectors: self.max_write_zeroes_sectors,
            hw_queues: self.hw_queues,
            queue_depth: self.queue_depth,
            ..DeviceSpec::new(self.capacity_sectors)
        }
    }
}

impl Shape {
    /// Whether the limits of a device over targets are those of the shape.
    pub fn agrees_with(&self, spec: &DeviceSpec) -> bool {
        let mine = (self.capacity_sectors, self.block_bytes, self.features);
        let theirs = (spec.capacity_sectors, spec.logical_block_bytes, spec.features);
        let longest = (self.max_discard_sectors, self.max_write_zeroes_sectors);
        mine == theirs && longest == (spec.max_discard_sectors, spec.max_write_zeroes_sectors)
    }
}

/// Takes a name that fits: 1 to [`MAX_NAME_BYTES`] letters, digits, `-`, `_` or `.` of ASCII.
pub fn name(text: &str) -> Option<Text> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fits = (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(allowed);
    fits.then(|| Text::new(text))
}

/// Takes a name for a new volume: one that fits and is none of a folder, because it is to stand in `/dev/atom`. An image
/// may have others, from before this was looked at.
pub fn new_name(text: &str) -> Option<Text> {
    name(text).filter(|_| !matches!(text, "." | ".."))
}

/// Reads a name. Rejects bytes behind its end.
pub fn read_name(fields: &mut Fields<'_>) -> Result<Option<Text>, ImageError> {
    let raw = Text::from_bytes(fields.array()?);
    Ok(name(raw.as_str()).filter(|name| *name == raw))
}

/// All that is known of a volume apart from its statistics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Description {
    /// Its identity.
    pub id: VolumeId,
    /// N of `/dev/atomN`.
    pub device: u32,
    /// Its geometry.
    pub shape: Shape,
    /// Pages that it has in memory.
    pub pages: u64,
    /// Its name.
    pub name: Text,
}

impl Description {
    /// Hands the encoded description to `sink`, in parts without padding between them.
    pub fn encode<R>(&self, sink: impl FnOnce(&[&[u8]]) -> R) -> R {
        let shape = &self.shape;
        sink(&[
            &self.id.to_u64().to_le_bytes(),
            &self.device.to_le_bytes(),
            &shape.kind.code().to_le_bytes(),
            &shape.capacity_sectors.to_le_bytes(),
            &shape.block_bytes.to_le_bytes(),
            &shape.features.to_le_bytes(),
            &shape.max_discard_sectors.to_le_bytes(),
            &shape.max_write_zeroes_sectors.to_le_bytes(),
            &shape.hw_queues.to_le_bytes(),
            &shape.queue_depth.to_le_bytes(),
            &[0; 4],
            &self.pages.to_le_bytes(),
            &self.name.to_bytes(),
        ])
    }

    /// Reads a description. `Ok(None)` when the bytes are all there and make no sense.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Option<Self>, ImageError> {
        let id = VolumeId::from_u64(fields.u64()?);
        let device = fields.u32()?;
        let kind = Kind::from_code(fields.u32()?);
        let capacity_sectors = fields.u64()?;
        let block_bytes = fields.u32()?;
        let features = fields.u32()?;
        let max_discard_sectors = fields.u32()?;
        let max_write_zeroes_sectors = fields.u32()?;
        let hw_queues = fields.u16()?;
        let queue_depth = fields.u16()?;
        let zero = fields.u32()?;
        let pages = fields.u64()?;
        let name = read_name(fields)?;
        let (Some(id), Some(kind), Some(name), 0) = (id, kind, name, zero) else {
            return Ok(None);
        };
        let shape = Shape {
            kind,
            capacity_sectors,
            block_bytes,
            features,
            max_discard_sectors,
            max_write_zeroes_sectors,
            hw_queues,
            queue_depth,
        };
        Ok(shape.spec().is_valid().then_some(Self { id, device, shape, pages, name }))
    }
}
