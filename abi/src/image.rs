// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The image: the state of a payload by value, which Atom keeps while no payload is adopted.
//!
//! All numbers are little-endian, everything is aligned to 8 bytes.
//!
//! ```text
//!   0  magic "ATOMIMG\0"          record:  0  key        u32
//!   8  format          u32                 4  version    u16
//!  12  schema          u32                 6  flags      u16
//!  16  producer        64 bytes            8  length     u64
//!  80  total bytes     u64                16  bytes, padded with zeroes to 8
//!  88  records         u32
//!  92  zero            u32        trailer: CRC-32C of all before it u32, zero u32
//!  96  records ...
//! ```
//!
//! The reader treats the bytes as hostile: it never panics, never reads past the end, and hands out
//! lengths only after it has checked them against the bytes that are there.

use core::fmt;

use super::crc32c::crc32c;
use super::text::{Text, TEXT_BYTES};

const MAGIC: [u8; 8] = *b"ATOMIMG\0";
/// The version of the image format.
pub const FORMAT: u32 = 1;
/// Bytes before the first record.
pub const HEADER_BYTES: usize = 96;
/// Bytes of a record before its content.
pub const RECORD_HEADER_BYTES: usize = 16;
/// Bytes after the last record.
pub const TRAILER_BYTES: usize = 8;
/// Largest image that Atom stores, in bytes.
pub const MAX_BYTES: usize = 64 << 20;

/// Record flag: a reader that does not know the record must refuse the image.
pub const MANDATORY: u16 = 1 << 0;

/// Why an image cannot be written or read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageError {
    /// The buffer is too small for what is written.
    NoRoom,
    /// The image ends before its content does.
    Truncated,
    /// It does not begin as an image does.
    NotAnImage,
    /// The format is of a version that this reader does not know.
    Format(u32),
    /// The checksum does not match: the image is damaged.
    Checksum,
    /// A length or count contradicts the bytes that are there.
    Inconsistent,
    /// A mandatory record of this key is unknown to the reader.
    UnknownRecord(u32),
    /// A record of this key has a version or content that the reader does not understand.
    BadRecord(u32),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom => f.write_str("the buffer is too small for the image"),
            Self::Truncated => f.write_str("the image is cut short"),
            Self::NotAnImage => f.write_str("this is no image"),
            Self::Format(format) => write!(f, "the image has format {format}, known is {FORMAT}"),
            Self::Checksum => f.write_str("the image is damaged: its checksum does not match"),
            Self::Inconsistent => f.write_str("the image contradicts itself"),
            Self::UnknownRecord(key) => write!(f, "the mandatory record {key:#x} is unknown"),
            Self::BadRecord(key) => write!(f, "the record {key:#x} is not understood"),
        }
    }
}

/// Bytes that a record with `length` bytes of content takes in an image.
pub const fn record_bytes(length: usize) -> usize {
    RECORD_HEADER_BYTES.saturating_add(length.saturating_add(7) & !7)
}

/// Writes an image into a buffer of fixed size. Allocates nothing.
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    at: usize,
    records: u32,
}

impl<'a> Writer<'a> {
    /// Begins an image of `schema` in `buffer`.
    pub fn new(buffer: &'a mut [u8], producer: &Text, schema: u32) -> Result<Self, ImageError> {
        let mut writer = Self { buffer, at: 0, records: 0 };
        writer.put(&MAGIC)?;
        writer.put(&FORMAT.to_le_bytes())?;
        writer.put(&schema.to_le_bytes())?;
        writer.put(&producer.to_bytes())?;
        // The total, the count and the zero word are known at the end.
        writer.put(&[0; 16])?;
        Ok(writer)
    }

    /// Adds a record. `parts` are written one after the other, without padding between them.
    pub fn record(
        &mut self,
        key: u32,
        version: u16,
        flags: u16,
        parts: &[&[u8]],
    ) -> Result<(), ImageError> {
        let length = parts
            .iter()
            .try_fold(0usize, |sum, part| sum.checked_add(part.len()))
            .ok_or(ImageError::NoRoom)?;
        self.records = self.records.checked_add(1).ok_or(ImageError::NoRoom)?;
        self.put(&key.to_le_bytes())?;
        self.put(&version.to_le_bytes())?;
        self.put(&flags.to_le_bytes())?;
        self.put(&(length as u64).to_le_bytes())?;
        for part in parts {
            self.put(part)?;
        }
        let padding = length.wrapping_neg() & 7;
        self.put([0; 8].get(..padding).unwrap_or(&[]))
    }

    /// Writes bytes anew that were written before; `at` counts from the start of the image.
    pub fn overwrite(&mut self, at: usize, bytes: &[u8]) -> Result<(), ImageError> {
        let end = at.checked_add(bytes.len()).filter(|end| *end <= self.at);
        end.ok_or(ImageError::Inconsistent)?;
        self.patch(at, bytes)
    }

    /// Completes the image and returns its length in bytes.
    pub fn finish(mut self) -> Result<usize, ImageError> {
        let total = self.at.checked_add(TRAILER_BYTES).ok_or(ImageError::NoRoom)?;
        self.patch(80, &(total as u64).to_le_bytes())?;
        self.patch(88, &self.records.to_le_bytes())?;
        let crc = crc32c(self.buffer.get(..self.at).ok_or(ImageError::NoRoom)?);
        self.put(&crc.to_le_bytes())?;
        self.put(&[0; 4])?;
        Ok(total)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        let end = self.at.checked_add(bytes.len()).ok_or(ImageError::NoRoom)?;
        self.patch(self.at, bytes)?;
        self.at = end;
        Ok(())
    }

    fn patch(&mut self, at: usize, bytes: &[u8]) -> Result<(), ImageError> {
        self.buffer
            .get_mut(at..at.saturating_add(bytes.len()))
            .ok_or(ImageError::NoRoom)?
            .copy_from_slice(bytes);
        Ok(())
    }
}

/// An image whose frame has been checked from end to end.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    records: &'a [u8],
    count: u32,
    schema: u32,
    producer: Text,
}

/// One record of an [`Image`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// What the record is about.
    pub key: u32,
    /// The version of its content.
    pub version: u16,
    /// [`MANDATORY`] or zero.
    pub flags: u16,
    /// The content.
    pub bytes: &'a [u8],
}

impl<'a> Image<'a> {
    /// Checks `bytes` from end to end. Bytes behind the stated total are ignored.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let mut header = Fields::new(bytes);
        if header.array::<8>()? != MAGIC {
            return Err(ImageError::NotAnImage);
        }
        let format = header.u32()?;
        if format != FORMAT {
            return Err(ImageError::Format(format));
        }
        let schema = header.u32()?;
        let producer = Text::from_bytes(header.array::<TEXT_BYTES>()?);
        let total = usize::try_from(header.u64()?).map_err(|_| ImageError::Inconsistent)?;
        let count = header.u32()?;
        let whole = bytes.get(..total).ok_or(ImageError::Truncated)?;
        let body = total
            .checked_sub(TRAILER_BYTES)
            .filter(|end| *end >= HEADER_BYTES)
            .ok_or(ImageError::Inconsistent)?;
        let (content, trailer) = whole.split_at(body);
        if Fields::new(trailer).u32()? != crc32c(content) {
            return Err(ImageError::Checksum);
        }
        let image =
            Self { records: content.get(HEADER_BYTES..).unwrap_or(&[]), count, schema, producer };
        image.check_records()?;
        Ok(image)
    }

    /// The schema in which the payload wrote its records.
    pub fn schema(&self) -> u32 {
        self.schema
    }

    /// The version of the payload that wrote the image.
    pub fn producer(&self) -> &Text {
        &self.producer
    }

    /// The records, in the order in which they were written.
    pub fn records(&self) -> Records<'a> {
        Records { rest: Fields::new(self.records) }
    }

    fn check_records(&self) -> Result<(), ImageError> {
        let mut records = self.records();
        let mut seen = 0u32;
        while records.try_next()?.is_some() {
            seen = seen.saturating_add(1);
        }
        if seen != self.count {
            return Err(ImageError::Inconsistent);
        }
        Ok(())
    }
}

/// Iterates over the records of an [`Image`].
pub struct Records<'a> {
    rest: Fields<'a>,
}

impl<'a> Records<'a> {
    fn try_next(&mut self) -> Result<Option<Record<'a>>, ImageError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.rest.u32()?;
        let version = self.rest.u16()?;
        let flags = self.rest.u16()?;
        let length = usize::try_from(self.rest.u64()?).map_err(|_| ImageError::Inconsistent)?;
        let bytes = self.rest.slice(length)?;
        self.rest.slice(length.wrapping_neg() & 7)?;
        Ok(Some(Record { key, version, flags, bytes }))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        // `Image::parse` has walked the same bytes to their end without an error.
        self.try_next().unwrap_or(None)
    }
}

/// Takes little-endian numbers off the front of a byte slice.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// True when nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `length` bytes.
    pub fn slice(&mut self, length: usize) -> Result<&'a [u8], ImageError> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(ImageError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes by value.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ImageError> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(N)?);
        Ok(array)
    }

    /// The next 16-bit number.
    pub fn u16(&mut self) -> Result<u16, ImageError> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next 32-bit number.
    pub fn u32(&mut self) -> Result<u32, ImageError> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next 64-bit number.
    pub fn u64(&mut self) -> Result<u64, ImageError> {
        self.array().map(u64::from_le_bytes)
    }
}
