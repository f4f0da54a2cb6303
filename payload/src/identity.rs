// SPDX-License-Identifier: GPL-2.0

//! What this version of the payload says about itself, to Atom and in its file.

use crate::abi::stamp::{Stamp, STAMP_BYTES};
use crate::abi::text::Text;
use crate::abi::version::{caps, AbiRange, Offer, SchemaRange};
use crate::fault::{Points, Variant};
use crate::level;

/// The version, as `versions.toml` names it; the build hands it over.
pub(crate) const VERSION: &str = env!("PAYLOAD_VERSION");

/// The oldest schema that this version reads and writes.
const OLDEST_SCHEMA: u32 = match () {
    () if cfg!(payload_schema_min = "1") => 1,
    () if cfg!(payload_schema_min = "2") => 2,
    () if cfg!(payload_schema_min = "3") => 3,
    () => 4,
};
#[cfg(not(any(
    payload_schema_min = "1",
    payload_schema_min = "2",
    payload_schema_min = "3",
    payload_schema_min = "4"
)))]
compile_error!("payload_schema_min must be \"1\", \"2\", \"3\" or \"4\"");

/// The newest schema: that of the statistics in memory.
pub(crate) const NEWEST_SCHEMA: u32 = match () {
    () if cfg!(payload_schema = "1") => 1,
    () if cfg!(payload_schema = "2") => 2,
    () if cfg!(payload_schema = "3") => 3,
    () if cfg!(payload_schema = "4") => 4,
    () => 5,
};
#[cfg(not(any(
    payload_schema = "1",
    payload_schema = "2",
    payload_schema = "3",
    payload_schema = "4",
    payload_schema = "5"
)))]
compile_error!("payload_schema must be \"1\", \"2\", \"3\", \"4\" or \"5\"");
#[cfg(all(payload_client, not(any(payload_schema = "4", payload_schema = "5"))))]
compile_error!("a client needs a schema that has targets");

/// The schemas that this version reads and writes.
pub(crate) const SCHEMA: SchemaRange = match Variant::SCHEMA {
    Some(range) => range,
    None => SchemaRange {
        read_min: OLDEST_SCHEMA,
        read_max: NEWEST_SCHEMA,
        write_min: OLDEST_SCHEMA,
        write_max: NEWEST_SCHEMA,
    },
};

/// What this version brings to the negotiation.
pub(crate) const OFFER: Offer = Offer {
    abi: AbiRange { major: Variant::ABI_MAJOR, ..level::MINORS },
    layout_hash: Variant::LAYOUT,
    provides: level::PROVIDES & !Variant::WITHHOLDS,
    requires: caps::DEVICES
        | caps::PRESERVED_PAGES
        | caps::COMMANDS
        | CLIENT_REQUIRES
        | Variant::REQUIRES,
    scratch_bytes: SCRATCH_BYTES,
};

/// What a client cannot do without.
#[cfg(payload_client)]
const CLIENT_REQUIRES: u64 = caps::PRESERVED_OBJECTS
    | caps::CHANGES
    | caps::SLEEPING_DISPATCH
    | caps::BIO_ENDS
    | caps::EVENTS;
#[cfg(not(payload_client))]
const CLIENT_REQUIRES: u64 = 0;

/// Bytes of scratch in each request.
#[cfg(payload_client)]
const SCRATCH_BYTES: u32 = crate::flight::FLIGHT_BYTES;
#[cfg(not(payload_client))]
const SCRATCH_BYTES: u32 = 0;

/// The same, as the module's file carries it.
pub(crate) const STAMP: Stamp = Stamp { offer: OFFER, schema: SCHEMA, version: Text::new(VERSION) };

#[used(compiler)]
#[link_section = ".atom.payload"]
static STAMP_SECTION: [u8; STAMP_BYTES] = STAMP.to_bytes();

const MODINFO_BYTES: usize = b"version=".len() + VERSION.len() + 1;

#[used(compiler)]
#[link_section = ".modinfo"]
static MODINFO: [u8; MODINFO_BYTES] = modinfo();

const fn modinfo() -> [u8; MODINFO_BYTES] {
    let (key, version) = (b"version=", VERSION.as_bytes());
    let mut bytes = [0; MODINFO_BYTES];
    let mut at = 0;
    while at < key.len() + version.len() {
        bytes[at] = if at < key.len() { key[at] } else { version[at - key.len()] };
        at += 1;
    }
    bytes
}
