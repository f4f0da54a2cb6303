// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The image of all volumes: export and import, in every schema. Pure.
//!
//! ```text
//! key     version  flags      content
//! TABLE   1        mandatory  volumes u32, next serial u32; first, and only once
//! VOLUME  1        mandatory  a description, see `shape.rs`; in ascending order of place
//! COUNTS  schema   -          volume u64, then counts 1, 2 or 3, see `counts.rs`; behind its volume
//! others  any      -          kept as they are and written again behind the rest, see `carried.rs`
//! ```
//!
//! The version of the statistics is that of the schema; all else is the same in all of them. The
//! ascending order makes places, identities and so the keys of the pages unique without a search.
//!
//! What a schema adds goes into the records that it has, never into an optional record beside them: an
//! older version would carry that along, and hand back old numbers later.

use core::fmt;

use super::abi::image::{
    record_bytes, Fields, Image, ImageError, Record, Records, Writer, HEADER_BYTES, MANDATORY,
    TRAILER_BYTES,
};
use super::abi::text::Text;
use super::abi::version::SchemaRange;
use super::carried::{self, Load};
use super::counts::{
    Counts, Counts1, Counts2, Counts3, COUNTS1_BYTES, COUNTS2_BYTES, COUNTS3_BYTES,
};
use super::shape::{Description, DESCRIPTION_BYTES};

/// Key of the record about the table of volumes.
pub const KEY_TABLE: u32 = 1;
/// Key of the record about one volume.
pub const KEY_VOLUME: u32 = 2;
/// Key of the record with the statistics of the volume before it.
pub const KEY_COUNTS: u32 = 3;

/// The oldest schema.
pub const SCHEMA_MIN: u32 = 1;
/// The newest schema.
pub const SCHEMA_MAX: u32 = 3;

const TABLE_VERSION: u16 = 1;
const VOLUME_VERSION: u16 = 1;
const TABLE_BYTES: usize = 8;

/// Why the image of all volumes is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImportError {
    /// It is no image, is damaged, or has records that are not understood.
    Image(ImageError),
    /// It has schema `found`, which this version does not read.
    Schema(u32),
    /// It has more optional records that this version does not know than it carries along.
    Unknown(Load),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(error) => error.fmt(f),
            Self::Schema(found) => write!(f, "it has schema {found}, which this version does not read"),
            Self::Unknown(Load { records, bytes }) => write!(
                f,
                "it has {records} optional records of {bytes} bytes that this version does not know, and at most {} of {} bytes are carried along",
                carried::MAX_RECORDS,
                carried::MAX_BYTES
            ),
        }
    }
}

impl From<ImageError> for ImportError {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

/// Version and length of the statistics record of a schema.
const fn counts_format(schema: u32) -> Option<(u16, usize)> {
    match schema {
        1 => Some((1, 8 + COUNTS1_BYTES)),
        2 => Some((2, 8 + COUNTS2_BYTES)),
        3 => Some((3, 8 + COUNTS3_BYTES)),
        _ => None,
    }
}

/// Bytes of the image of so many volumes, without records that are carried along; `None` for a schema
/// that does not exist.
pub fn image_bytes(schema: u32, volumes: usize) -> Option<usize> {
    let (_, counts) = counts_format(schema)?;
    record_bytes(DESCRIPTION_BYTES)
        .checked_add(record_bytes(counts))?
        .checked_mul(volumes)?
        .checked_add(HEADER_BYTES + TRAILER_BYTES + record_bytes(TABLE_BYTES))
}

/// Writes the image of all volumes.
pub struct Export<'a> {
    writer: Writer<'a>,
    schema: u32,
}

impl<'a> Export<'a> {
    /// Begins the image of `volumes` volumes in `schema`.
    pub fn new(
        buffer: &'a mut [u8],
        producer: &Text,
        schema: u32,
        volumes: usize,
        next_serial: u32,
    ) -> Result<Self, ImageError> {
        let count = u32::try_from(volumes).map_err(|_| ImageError::Inconsistent)?;
        let mut writer = Writer::new(buffer, producer, schema)?;
        let parts: [&[u8]; 2] = [&count.to_le_bytes(), &next_serial.to_le_bytes()];
        writer.record(KEY_TABLE, TABLE_VERSION, MANDATORY, &parts)?;
        Ok(Self { writer, schema })
    }

    /// Adds a volume. They come in ascending order of their places.
    pub fn volume(&mut self, volume: &Description, counts: Counts) -> Result<(), ImageError> {
        let writer = &mut self.writer;
        volume.encode(|parts| writer.record(KEY_VOLUME, VOLUME_VERSION, MANDATORY, parts))?;
        let id = volume.id.to_u64().to_le_bytes();
        match self.schema {
            1 => {
                let Counts1 { reads, writes } = counts.as_one();
                let parts: [&[u8]; 3] = [&id, &reads.to_le_bytes(), &writes.to_le_bytes()];
                self.writer.record(KEY_COUNTS, 1, 0, &parts)
            }
            2 => counts.as_two().encode(|bytes| writer.record(KEY_COUNTS, 2, 0, &[&id, bytes])),
            3 => counts.as_three().encode(|bytes| writer.record(KEY_COUNTS, 3, 0, &[&id, bytes])),
            _ => Err(ImageError::Inconsistent),
        }
    }

    /// Adds any other record, behind all volumes.
    pub fn other(&mut self, record: &Record<'_>) -> Result<(), ImageError> {
        self.writer.record(record.key, record.version, record.flags, &[record.bytes])
    }

    /// Completes the image and returns its length.
    pub fn finish(self) -> Result<usize, ImageError> {
        self.writer.finish()
    }
}

/// An image of volumes that has been checked from end to end.
#[derive(Clone, Copy, Debug)]
pub struct Import<'a> {
    image: Image<'a>,
    /// Keys of records that the caller reads by itself.
    extra: &'static [u32],
    /// Volumes in it.
    pub volumes: usize,
    /// The serial number for the next new volume.
    pub next_serial: u32,
    /// What is to be carried along.
    pub load: Load,
}

impl<'a> Import<'a> {
    /// Checks `bytes`. Refuses schemas outside of what `range` reads.
    pub fn parse(bytes: &'a [u8], range: &SchemaRange) -> Result<Self, ImportError> {
        Self::parse_with(bytes, range, &[])
    }

    /// The same for a caller that knows records beside those of the volumes.
    pub fn parse_with(
        bytes: &'a [u8],
        range: &SchemaRange,
        extra: &'static [u32],
    ) -> Result<Self, ImportError> {
        let image = Image::parse(bytes)?;
        let schema = image.schema();
        if !(range.read_min..=range.read_max).contains(&schema) || counts_format(schema).is_none() {
            return Err(ImportError::Schema(schema));
        }
        let table = image.records().next().ok_or(ImageError::Inconsistent)?;
        let bad_table = ImageError::BadRecord(KEY_TABLE);
        if (table.key, table.version) != (KEY_TABLE, TABLE_VERSION)
            || table.bytes.len() != TABLE_BYTES
        {
            return Err(bad_table.into());
        }
        let mut fields = Fields::new(table.bytes);
        let mut import = Self {
            image,
            extra,
            volumes: usize::try_from(fields.u32()?).map_err(|_| bad_table)?,
            next_serial: fields.u32()?,
            load: Load::default(),
        };
        import.check()?;
        import.load = import.carried().fold(Load::default(), |load, record| load.with(&record));
        if !import.load.fits() {
            return Err(ImportError::Unknown(import.load));
        }
        Ok(import)
    }

    /// The volumes with their statistics, in ascending order of their places.
    pub fn volumes(&self) -> Volumes<'a> {
        let mut records = self.image.records();
        // The first record is the table, `parse` has read it.
        records.next();
        Volumes { records, extra: self.extra, schema: self.image.schema(), ahead: None }
    }

    /// The records that are carried along: optional, and known neither here nor to the caller.
    pub fn carried(&self) -> impl Iterator<Item = Record<'a>> {
        let extra = self.extra;
        self.image
            .records()
            .filter(move |record| !is_own(record.key) && !extra.contains(&record.key))
    }

    /// The records of one key that the caller knows.
    pub fn extra(&self, key: u32) -> impl Iterator<Item = Record<'a>> {
        self.image.records().filter(move |record| record.key == key)
    }

    fn check(&self) -> Result<(), ImageError> {
        let mut volumes = self.volumes();
        let mut seen = 0usize;
        let mut lowest_free_slot = 0;
        while let Some((volume, _)) = volumes.try_next()? {
            let slot = volume.id.slot();
            if slot < lowest_free_slot || volume.id.serial() >= self.next_serial {
                return Err(ImageError::BadRecord(KEY_VOLUME));
            }
            lowest_free_slot = slot.saturating_add(1);
            seen = seen.saturating_add(1);
        }
        if seen != self.volumes || self.next_serial == 0 {
            return Err(ImageError::BadRecord(KEY_TABLE));
        }
        Ok(())
    }
}

/// Whether a record is about the volumes.
const fn is_own(key: u32) -> bool {
    matches!(key, KEY_TABLE | KEY_VOLUME | KEY_COUNTS)
}

/// Iterates over the volumes of an [`Import`].
pub struct Volumes<'a> {
    records: Records<'a>,
    extra: &'static [u32],
    schema: u32,
    /// A record that was looked at and not consumed.
    ahead: Option<Record<'a>>,
}

impl<'a> Volumes<'a> {
    fn try_next(&mut self) -> Result<Option<(Description, Counts)>, ImageError> {
        let Some(record) = self.next_known()? else {
            return Ok(None);
        };
        if record.key != KEY_VOLUME {
            return Err(ImageError::BadRecord(record.key));
        }
        let volume = decode_volume(&record)?;
        let counts = match self.next_known()? {
            Some(record) if record.key == KEY_COUNTS => self.decode_counts(&record, &volume)?,
            other => {
                // Statistics are optional: without them a volume begins at zero.
                self.ahead = other;
                Counts::none()
            }
        };
        Ok(Some((volume, counts)))
    }

    /// The next record that this reader knows.
    fn next_known(&mut self) -> Result<Option<Record<'a>>, ImageError> {
        if let Some(record) = self.ahead.take() {
            return Ok(Some(record));
        }
        for record in self.records.by_ref() {
            if is_own(record.key) {
                return Ok(Some(record));
            }
            if record.flags & MANDATORY != 0 && !self.extra.contains(&record.key) {
                return Err(ImageError::UnknownRecord(record.key));
            }
        }
        Ok(None)
    }

    fn decode_counts(
        &self,
        record: &Record<'_>,
        volume: &Description,
    ) -> Result<Counts, ImageError> {
        let bad = ImageError::BadRecord(KEY_COUNTS);
        if counts_format(self.schema) != Some((record.version, record.bytes.len())) {
            return Err(bad);
        }
        let mut fields = Fields::new(record.bytes);
        if fields.u64()? != volume.id.to_u64() {
            return Err(bad);
        }
        Ok(match self.schema {
            1 => Counts::One(Counts1 { reads: fields.u64()?, writes: fields.u64()? }),
            2 => Counts::Two(Counts2::decode(&mut fields)?),
            _ => Counts::Three(Counts3::decode(&mut fields)?),
        })
    }
}

impl Iterator for Volumes<'_> {
    type Item = (Description, Counts);

    fn next(&mut self) -> Option<Self::Item> {
        // `Import::parse` has walked the same records to their end without an error.
        self.try_next().unwrap_or(None)
    }
}

fn decode_volume(record: &Record<'_>) -> Result<Description, ImageError> {
    let bad = ImageError::BadRecord(KEY_VOLUME);
    if record.version != VOLUME_VERSION || record.bytes.len() != DESCRIPTION_BYTES {
        return Err(bad);
    }
    Description::decode(&mut Fields::new(record.bytes))?.ok_or(bad)
}
