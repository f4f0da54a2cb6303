// SPDX-License-Identifier: GPL-2.0

//! What this version of the payload says about itself, to Atom and in its file.

use crate::abi::layout;
use crate::abi::stamp::Stamp;
use crate::abi::text::Text;
use crate::abi::version::{caps, AbiRange, Offer, SchemaRange};
use crate::fault;

/// The version, as `versions.toml` names it; the build hands it over.
pub(crate) const VERSION: &str = env!("PAYLOAD_VERSION");

/// The newest schema: that of the statistics in memory.
#[cfg(payload_schema = "1")]
pub(crate) const NEWEST_SCHEMA: u32 = 1;
/// The newest schema: that of the statistics in memory.
#[cfg(payload_schema = "2")]
pub(crate) const NEWEST_SCHEMA: u32 = 2;
#[cfg(not(any(payload_schema = "1", payload_schema = "2")))]
compile_error!("payload_schema must be \"1\" or \"2\"");

/// The schemas that this version reads and writes.
pub(crate) const SCHEMA: SchemaRange = fault::schema(SchemaRange {
    read_min: crate::state::SCHEMA_MIN,
    read_max: NEWEST_SCHEMA,
    write_min: crate::state::SCHEMA_MIN,
    write_max: NEWEST_SCHEMA,
});

/// What this version brings to the negotiation.
pub(crate) const OFFER: Offer = fault::offer(Offer {
    abi: AbiRange::CURRENT,
    layout_hash: layout::HASH,
    provides: 0,
    requires: caps::DEVICES | caps::PRESERVED_PAGES | caps::COMMANDS,
    scratch_bytes: 0,
});

/// The same, as the module's file carries it.
pub(crate) const STAMP: Stamp = Stamp { offer: OFFER, schema: SCHEMA, version: Text::new(VERSION) };
