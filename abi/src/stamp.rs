// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What a payload's file says about itself, in the ELF section [`SECTION`].
//!
//! The tools read it before they load anything, so that a payload that cannot take over is refused
//! while nothing has changed. Atom decides again from the registered table: the stamp is advice.

use super::image::{Fields, ImageError};
use super::text::{Text, TEXT_BYTES};
use super::version::{AbiRange, Offer, SchemaRange};

/// Name of the ELF section that holds the stamp.
pub const SECTION: &str = ".atom.payload";
/// The first bytes of a stamp.
pub const MAGIC: [u8; 8] = *b"ATOMPAY\0";
/// Bytes of a stamp.
pub const STAMP_BYTES: usize = 8 + 8 + 8 * 3 + 8 + 16 + TEXT_BYTES;

/// The stamp of a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// What the payload brings to the negotiation.
    pub offer: Offer,
    /// Image schemas it can read and write.
    pub schema: SchemaRange,
    /// Its version.
    pub version: Text,
}

impl Stamp {
    /// The bytes that go into the section, little-endian.
    pub const fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        let mut at = 0;
        at = put(&mut bytes, at, &MAGIC);
        at = put(&mut bytes, at, &self.offer.abi.major.to_le_bytes());
        at = put(&mut bytes, at, &self.offer.abi.minor_min.to_le_bytes());
        at = put(&mut bytes, at, &self.offer.abi.minor_max.to_le_bytes());
        at = put(&mut bytes, at, &[0; 2]);
        at = put(&mut bytes, at, &self.offer.layout_hash.to_le_bytes());
        at = put(&mut bytes, at, &self.offer.provides.to_le_bytes());
        at = put(&mut bytes, at, &self.offer.requires.to_le_bytes());
        at = put(&mut bytes, at, &self.offer.scratch_bytes.to_le_bytes());
        at = put(&mut bytes, at, &[0; 4]);
        at = put(&mut bytes, at, &self.schema.read_min.to_le_bytes());
        at = put(&mut bytes, at, &self.schema.read_max.to_le_bytes());
        at = put(&mut bytes, at, &self.schema.write_min.to_le_bytes());
        at = put(&mut bytes, at, &self.schema.write_max.to_le_bytes());
        put(&mut bytes, at, &self.version.to_bytes());
        bytes
    }

    /// Reads a section. The bytes are hostile.
    pub fn parse(section: &[u8]) -> Result<Self, ImageError> {
        let mut fields = Fields::new(section);
        if fields.array::<8>()? != MAGIC {
            return Err(ImageError::NotAnImage);
        }
        let abi = AbiRange {
            major: fields.u16()?,
            minor_min: fields.u16()?,
            minor_max: fields.u16()?,
            reserved: fields.u16()?,
        };
        let offer = Offer {
            abi,
            layout_hash: fields.u64()?,
            provides: fields.u64()?,
            requires: fields.u64()?,
            scratch_bytes: fields.u32()?,
        };
        fields.u32()?;
        let schema = SchemaRange {
            read_min: fields.u32()?,
            read_max: fields.u32()?,
            write_min: fields.u32()?,
            write_max: fields.u32()?,
        };
        let version = Text::from_bytes(fields.array()?);
        Ok(Self { offer, schema, version })
    }
}

const fn put(bytes: &mut [u8; STAMP_BYTES], at: usize, source: &[u8]) -> usize {
    let mut index = 0;
    while index < source.len() {
        bytes[at + index] = source[index];
        index += 1;
    }
    at + source.len()
}
