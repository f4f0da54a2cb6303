// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The image of all volumes: export and import, in every schema. Pure.
//!
//! ```text
//! key     version  flags      content
//! TABLE   1        mandatory  volumes u32, next serial u32; first, and only once
//! VOLUME  1        mandatory  a description, see `shape.rs`; in ascending order of place
//! COUNTS  schema   -          volume u64, then counts 1, 2 or 3, see `counts.rs`; behind its volume
//! MADE    1        mandatory  volume u64, limits, what it is made of; from schema 4 on, behind a volume over targets
//! TARGET  schema   mandatory  volume u64, target u32, failures kept u32, pages u64, failures u64, then each that is
//!                             kept, then latency by operation; behind MADE, one for each target in its order
//! NBD     1        mandatory  volume u64, target u32, length u32, the record of an NBD target; behind its TARGET
//! others  any      -          kept as they are and written again behind the rest, see `carried.rs`
//! ```
//!
//! The version of the statistics is that of the schema, and 3 from schema 3 on. Volumes over targets are in no schema
//! before 4, and 4 and 5 differ in the latency; all else is the same in all of them. The
//! ascending order makes places, identities and so the keys of the pages unique without a search.
//!
//! What a schema adds goes into the records that it has, never into an optional record beside them: an
//! older version would carry that along, and hand back old numbers later.

use core::fmt;

use super::abi::image::{
    record_bytes, Fields, Image, ImageError, Record, Records, Writer, HEADER_BYTES, MANDATORY,
    RECORD_HEADER_BYTES, TRAILER_BYTES,
};
use super::abi::text::Text;
use super::abi::version::SchemaRange;
use super::carried::{self, Load};
use super::counts::{
    Counts, Counts1, Counts2, Counts3, COUNTS1_BYTES, COUNTS2_BYTES, COUNTS3_BYTES, OPS,
};
use super::history::{Failure, History, FAILURE_BYTES, KEPT};
use super::latency::{op_bytes, OpLatency, OP5_BYTES};
use super::layout::Map;
use super::limits::{Limits, LIMITS_BYTES};
use super::protocol::Output;
use super::shape::{Description, Kind, VolumeId, DESCRIPTION_BYTES};
use super::spec::{Layout, Made, Source, MAX_MADE_BYTES, MAX_TARGETS};

/// Key of the record about the table of volumes.
pub const KEY_TABLE: u32 = 1;
/// Key of the record about one volume.
pub const KEY_VOLUME: u32 = 2;
/// Key of the record with the statistics of the volume before it.
pub const KEY_COUNTS: u32 = 3;
/// Key of the record with what the volume before it is made of.
pub const KEY_MADE: u32 = 4;
/// Key of the record about one target of the volume before it.
pub const KEY_TARGET: u32 = 5;
/// Key of the record with what the target before it has to do with its NBD server.
pub const KEY_NBD: u32 = 6;

/// The oldest schema.
pub const SCHEMA_MIN: u32 = 1;
/// The newest schema.
pub const SCHEMA_MAX: u32 = 5;
/// The oldest schema that has volumes over targets.
pub const SCHEMA_TARGETS: u32 = 4;

const TABLE_VERSION: u16 = 1;
const VOLUME_VERSION: u16 = 1;
const TABLE_BYTES: usize = 8;
const MADE_VERSION: u16 = 1;
const NBD_VERSION: u16 = 1;
/// Bytes of a record about a target before its failures.
const TARGET_BYTES: usize = 32;
/// Most bytes of the rest of it.
const MAX_PAST_BYTES: usize = KEPT * FAILURE_BYTES + OPS.len() * OP5_BYTES;

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
        3..=SCHEMA_MAX => Some((3, 8 + COUNTS3_BYTES)),
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

/// Most bytes that a volume over targets takes beside what [`image_bytes`] counts for each volume.
pub fn composed_bytes(made: &Made<'_>, nbd_bytes: usize) -> usize {
    let target = record_bytes(TARGET_BYTES + MAX_PAST_BYTES);
    let nbd = record_bytes(nbd_bytes.saturating_add(16));
    let each = made.targets().fold(0usize, |sum, one| match one.source {
        Source::Nbd(_) => sum.saturating_add(target).saturating_add(nbd),
        _ => sum.saturating_add(target),
    });
    record_bytes(8 + LIMITS_BYTES + made.bytes()).saturating_add(each)
}

/// Writes the image of all volumes.
pub struct Export<'a> {
    writer: Writer<'a>,
    schema: u32,
    /// How many volumes there were, where it is not known before.
    counted: Option<u32>,
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
        Ok(Self { writer, schema, counted: None })
    }

    /// The same for some of the volumes: as many as will be added.
    pub fn of_some(
        buffer: &'a mut [u8],
        producer: &Text,
        schema: u32,
        next_serial: u32,
    ) -> Result<Self, ImageError> {
        let export = Self::new(buffer, producer, schema, 0, next_serial)?;
        Ok(Self { counted: Some(0), ..export })
    }

    /// Adds a volume. They come in ascending order of their places.
    pub fn volume(&mut self, volume: &Description, counts: Counts) -> Result<(), ImageError> {
        let writer = &mut self.writer;
        self.counted = self.counted.map(|counted| counted.saturating_add(1));
        volume.encode(|parts| writer.record(KEY_VOLUME, VOLUME_VERSION, MANDATORY, parts))?;
        let id = volume.id.to_u64().to_le_bytes();
        match self.schema {
            1 => {
                let Counts1 { reads, writes } = counts.as_one();
                let parts: [&[u8]; 3] = [&id, &reads.to_le_bytes(), &writes.to_le_bytes()];
                self.writer.record(KEY_COUNTS, 1, 0, &parts)
            }
            2 => counts.as_two().encode(|bytes| writer.record(KEY_COUNTS, 2, 0, &[&id, bytes])),
            3..=SCHEMA_MAX => {
                counts.as_three().encode(|bytes| writer.record(KEY_COUNTS, 3, 0, &[&id, bytes]))
            }
            _ => Err(ImageError::Inconsistent),
        }
    }

    /// Adds what the volume that was added last is made of. Its targets follow, each in its turn.
    pub fn made(
        &mut self,
        volume: VolumeId,
        limits: &Limits,
        made: &Made<'_>,
    ) -> Result<(), ImageError> {
        if self.schema < SCHEMA_TARGETS {
            return Err(ImageError::Inconsistent);
        }
        let mut bytes = [0; 12];
        let targets = made.split(&mut bytes);
        let id = volume.to_u64().to_le_bytes();
        let parts: [&[u8]; 4] = [&id, &limits.to_bytes(), &bytes, targets];
        self.writer.record(KEY_MADE, MADE_VERSION, MANDATORY, &parts)
    }

    /// Adds the next target of the volume. `latency` is by place in [`OPS`].
    pub fn target(
        &mut self,
        volume: VolumeId,
        target: usize,
        pages: u64,
        history: &History,
        latency: impl Fn(usize) -> OpLatency,
    ) -> Result<(), ImageError> {
        if self.schema < SCHEMA_TARGETS {
            return Err(ImageError::Inconsistent);
        }
        let mut past = [0; MAX_PAST_BYTES];
        let mut out = Output::new(&mut past);
        let mut kept = 0u32;
        for failure in history.failures() {
            out.put(&[&failure.to_bytes()]).map_err(|_| ImageError::NoRoom)?;
            kept = kept.saturating_add(1);
        }
        for at in 0..OPS.len() {
            latency(at)
                .encode(self.schema, |bytes| out.put(&[bytes]))
                .map_err(|_| ImageError::NoRoom)?;
        }
        let length = out.len();
        let (id, target) = (volume.to_u64().to_le_bytes(), (target as u32).to_le_bytes());
        let numbers = (pages.to_le_bytes(), history.total().to_le_bytes());
        let past = past.get(..length).unwrap_or(&[]);
        let parts: [&[u8]; 6] = [&id, &target, &kept.to_le_bytes(), &numbers.0, &numbers.1, past];
        self.writer.record(KEY_TARGET, self.schema as u16, MANDATORY, &parts)
    }

    /// Adds the record of the target that was added last.
    pub fn nbd(
        &mut self,
        volume: VolumeId,
        target: usize,
        record: &[u8],
    ) -> Result<(), ImageError> {
        let (id, target) = (volume.to_u64().to_le_bytes(), (target as u32).to_le_bytes());
        let length = u32::try_from(record.len()).map_err(|_| ImageError::NoRoom)?.to_le_bytes();
        self.writer.record(KEY_NBD, NBD_VERSION, MANDATORY, &[&id, &target, &length, record])
    }

    /// Adds any other record, behind all volumes.
    pub fn other(&mut self, record: &Record<'_>) -> Result<(), ImageError> {
        self.writer.record(record.key, record.version, record.flags, &[record.bytes])
    }

    /// Completes the image and returns its length.
    pub fn finish(mut self) -> Result<usize, ImageError> {
        if let Some(counted) = self.counted {
            // The table is the first record, and the number its first field.
            let at = HEADER_BYTES + RECORD_HEADER_BYTES;
            self.writer.overwrite(at, &counted.to_le_bytes())?;
        }
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
        let schema = self.image.schema();
        Volumes { records, extra: self.extra, schema, ahead: None, past: None }
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
    matches!(key, KEY_TABLE | KEY_VOLUME | KEY_COUNTS | KEY_MADE | KEY_TARGET | KEY_NBD)
}

/// Iterates over the volumes of an [`Import`].
pub struct Volumes<'a> {
    records: Records<'a>,
    extra: &'static [u32],
    schema: u32,
    /// A record that was looked at and not consumed.
    ahead: Option<Record<'a>>,
    /// What the last volume is made of.
    past: Option<Past<'a>>,
}

/// What an earlier payload has left of a volume over targets.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// The limits of its device.
    pub limits: Limits,
    /// What it is made of.
    pub made: Made<'a>,
    /// Which of its sectors lie where.
    pub map: Map,
    targets: [TargetPast<'a>; MAX_TARGETS],
}

impl<'a> Past<'a> {
    /// What was left of each target, in their order.
    pub fn targets(&self) -> &[TargetPast<'a>] {
        self.targets.get(..self.made.len()).unwrap_or(&[])
    }
}

/// What an earlier payload has left of a target.
#[derive(Clone, Copy, Debug, Default)]
pub struct TargetPast<'a> {
    /// Pages that it has in memory.
    pub pages: u64,
    /// How many failures there were.
    pub total: u64,
    /// The record of an NBD target; empty in a checkpoint.
    pub nbd: &'a [u8],
    failures: &'a [u8],
    latency: &'a [u8],
    schema: u32,
}

impl TargetPast<'_> {
    /// Hands the latency to `sink`, by place in [`OPS`].
    pub fn latency(&self, mut sink: impl FnMut(usize, &OpLatency)) {
        let each = self.latency.chunks_exact(op_bytes(self.schema));
        for (at, bytes) in each.enumerate() {
            // It is as long as it must be.
            if let Ok(latency) = OpLatency::decode(self.schema, &mut Fields::new(bytes)) {
                sink(at, &latency);
            }
        }
    }

    /// Has `history` remember the failures.
    pub fn failures(&self, history: &History) {
        let decode = |bytes: &[u8]| Failure::decode(&mut Fields::new(bytes)).ok().flatten();
        let each = self.failures.chunks_exact(FAILURE_BYTES);
        history.load(self.total, each.map(|bytes| decode(bytes).unwrap_or_default()));
    }
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
        self.past = None;
        if !volume.shape.kind.is_simple() {
            self.decode_past(&volume)?;
        }
        Ok(Some((volume, counts)))
    }

    /// What the volume that came last is made of; `None` for one that has no targets.
    pub fn past(&self) -> Option<&Past<'a>> {
        self.past.as_ref()
    }

    /// The content of the next record, which is to be of that key and version, about the volume.
    fn next_about(
        &mut self,
        key: u32,
        version: u16,
        volume: &Description,
    ) -> Result<Fields<'a>, ImageError> {
        let bad = ImageError::BadRecord(key);
        let record = self.next_known()?.ok_or(bad)?;
        let mut fields = Fields::new(record.bytes);
        match (record.key, record.version) == (key, version)
            && self.schema >= SCHEMA_TARGETS
            && fields.u64()? == volume.id.to_u64()
        {
            true => Ok(fields),
            false => Err(bad),
        }
    }

    /// Decodes it to where it stays: it is too large to be handed from one function to the next on a kernel's stack.
    fn decode_past(&mut self, volume: &Description) -> Result<(), ImageError> {
        let bad = ImageError::BadRecord(KEY_MADE);
        let mut fields = self.next_about(KEY_MADE, MADE_VERSION, volume)?;
        let limits = Limits::decode(&mut fields)?.ok_or(bad)?;
        let made = Made::take(&mut fields).map_err(|_| bad)?;
        let mut sectors = [0; MAX_TARGETS];
        for (place, target) in sectors.iter_mut().zip(made.targets()) {
            *place = target.sectors;
        }
        let sectors = sectors.get(..made.len()).unwrap_or(&[]);
        let map = Map::new(made.layout, sectors.iter().copied()).ok_or(bad)?;
        let kind = match made.layout {
            Layout::Linear => Kind::Linear,
            Layout::Stripe { .. } => Kind::Stripe,
        };
        let shape = &volume.shape;
        let spec = limits.spec(map.capacity(), shape.hw_queues, shape.queue_depth);
        if !fields.is_empty()
            || made.bytes() > MAX_MADE_BYTES
            || kind != shape.kind
            || !spec.is_valid()
            || !shape.agrees_with(&spec)
        {
            return Err(bad);
        }
        let mut targets = [TargetPast::default(); MAX_TARGETS];
        for (at, (place, target)) in targets.iter_mut().zip(made.targets()).enumerate() {
            *place = self.decode_target(volume, at)?;
            if matches!(target.source, Source::Nbd(_)) {
                place.nbd = self.decode_nbd(volume, at)?;
            }
        }
        self.past = Some(Past { limits, made, map, targets });
        Ok(())
    }

    fn decode_target(
        &mut self,
        volume: &Description,
        at: usize,
    ) -> Result<TargetPast<'a>, ImageError> {
        let bad = ImageError::BadRecord(KEY_TARGET);
        let schema = self.schema;
        let mut fields = self.next_about(KEY_TARGET, schema as u16, volume)?;
        let (target, kept) = (fields.u32()? as usize, fields.u32()? as usize);
        let (pages, total) = (fields.u64()?, fields.u64()?);
        if target != at || kept > KEPT || kept as u64 > total {
            return Err(bad);
        }
        let failures = fields.slice(kept * FAILURE_BYTES)?;
        for bytes in failures.chunks_exact(FAILURE_BYTES) {
            Failure::decode(&mut Fields::new(bytes))?.ok_or(bad)?;
        }
        let latency = fields.slice(OPS.len() * op_bytes(schema))?;
        match fields.is_empty() {
            true => Ok(TargetPast { pages, total, nbd: &[], failures, latency, schema }),
            false => Err(bad),
        }
    }

    fn decode_nbd(&mut self, volume: &Description, at: usize) -> Result<&'a [u8], ImageError> {
        let bad = ImageError::BadRecord(KEY_NBD);
        let mut fields = self.next_about(KEY_NBD, NBD_VERSION, volume)?;
        let (target, length) = (fields.u32()? as usize, fields.u32()? as usize);
        let record = fields.slice(length)?;
        match target == at && fields.is_empty() {
            true => Ok(record),
            false => Err(bad),
        }
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
