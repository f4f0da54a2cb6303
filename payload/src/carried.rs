// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Records of an image that this version does not know and hands on as they are. Pure.
//!
//! A later version may have written them. They are optional, so serving without them is right, and
//! dropping them would lose what only that version understands. Between *adopt* and *freeze* they are
//! packed into a small image of their own, in memory whose size is known before it is got.

use super::abi::image::{
    record_bytes, Image, ImageError, Record, Writer, HEADER_BYTES, TRAILER_BYTES,
};
use super::abi::text::Text;

/// Most records that are carried along.
pub const MAX_RECORDS: usize = 64;
/// Most bytes of them, as they stand in an image: with their heads and padding.
pub const MAX_BYTES: usize = 16 << 10;

/// How much is to be carried along.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// Records.
    pub records: usize,
    /// Bytes of them, as they stand in an image.
    pub bytes: usize,
}

impl Load {
    /// The load with one more record.
    pub fn with(self, record: &Record<'_>) -> Self {
        Self {
            records: self.records.saturating_add(1),
            bytes: self.bytes.saturating_add(record_bytes(record.bytes.len())),
        }
    }

    /// True when it is not more than is carried along.
    pub fn fits(&self) -> bool {
        self.records <= MAX_RECORDS && self.bytes <= MAX_BYTES
    }

    /// Bytes of memory that [`pack`] needs for it.
    pub fn packed_bytes(&self) -> usize {
        match self.records {
            0 => 0,
            _ => self.bytes.saturating_add(HEADER_BYTES + TRAILER_BYTES),
        }
    }
}

/// Packs records into `memory`, which has [`Load::packed_bytes`].
pub fn pack<'a>(
    records: impl Iterator<Item = Record<'a>>,
    memory: &mut [u8],
) -> Result<(), ImageError> {
    if memory.is_empty() {
        return Ok(());
    }
    let mut writer = Writer::new(memory, &Text::EMPTY, 0)?;
    for record in records {
        writer.record(record.key, record.version, record.flags, &[record.bytes])?;
    }
    writer.finish().map(|_| ())
}

/// The records that were packed.
pub fn unpack(memory: &[u8]) -> Result<impl Iterator<Item = Record<'_>>, ImageError> {
    let image = match memory {
        [] => None,
        packed => Some(Image::parse(packed)?),
    };
    Ok(image.into_iter().flat_map(|image| image.records()))
}

/// Bytes that the packed records take in an image.
pub fn bytes_in_image(memory: &[u8]) -> usize {
    memory.len().saturating_sub(HEADER_BYTES + TRAILER_BYTES)
}
