// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Which payloads there are.

use std::fmt;
use std::path::Path;

use atom_abi::control::{payload_state, PayloadInfo};
use atom_abi::version::SchemaRange;
use serde::{Deserialize, Serialize};

use super::state::abi_range;
use crate::module_file::ModuleFile;

/// What `list` prints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listing {
    /// [`Listing::SCHEMA`].
    pub schema: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// The payloads: the registered ones, then files that are not loaded.
    pub payloads: Vec<Entry>,
}

impl Listing {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.list/1";
}

/// Where a payload is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryState {
    /// Serving.
    Live,
    /// Was live; one switch back restores it.
    Parked,
    /// Registered, never live.
    Loaded,
    /// A task died in it: nothing of it is called any more.
    Dead,
    /// A file on this machine.
    Installed,
}

impl fmt::Display for EntryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Parked => "parked",
            Self::Loaded => "loaded",
            Self::Dead => "dead",
            Self::Installed => "installed",
        })
    }
}

/// The image schemas that a payload can read and write, as `[oldest, newest]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Schemas {
    /// What it reads.
    pub read: [u32; 2],
    /// What it writes.
    pub write: [u32; 2],
}

/// The schemas of a payload, for a document.
pub fn schema_range(range: &SchemaRange) -> Schemas {
    Schemas { read: [range.read_min, range.read_max], write: [range.write_min, range.write_max] }
}

/// One payload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its version; empty for a file that does not tell.
    pub version: String,
    /// Its kernel module.
    pub module: String,
    /// Where it is in its life.
    pub state: EntryState,
    /// Versions of the interface.
    pub abi: String,
    /// Image schemas; null for a file that does not tell.
    pub image_schemas: Option<Schemas>,
    /// The file, when one was found.
    pub file: Option<String>,
    /// Why it cannot take over here; null when it can.
    pub problem: Option<String>,
    /// Build id in hexadecimal: of the code in memory for a registered payload, else of the file; null when it is not known.
    #[serde(default)]
    pub build_id: Option<String>,
    /// A file with this payload is on this machine.
    #[serde(default)]
    pub installed: bool,
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Entry {
    /// A registered payload.
    pub fn registered(payload: &PayloadInfo) -> Self {
        Self {
            version: payload.version.as_str().to_owned(),
            module: payload.module.as_str().to_owned(),
            state: match payload.state {
                payload_state::LIVE => EntryState::Live,
                payload_state::PARKED => EntryState::Parked,
                payload_state::DEAD => EntryState::Dead,
                _ => EntryState::Loaded,
            },
            abi: abi_range(&payload.abi),
            image_schemas: Some(schema_range(&payload.schema)),
            file: None,
            problem: None,
            build_id: None,
            installed: false,
        }
    }

    /// The same with what the kernel knows of the code in memory.
    pub fn with_build_id(mut self, build_id: Option<Vec<u8>>) -> Self {
        self.build_id = build_id.as_deref().map(hex);
        self
    }

    /// A file that is not loaded.
    pub fn installed(file: &ModuleFile, problem: Option<String>) -> Self {
        let stamp = file.stamp.as_ref();
        Self {
            version: file.version().to_owned(),
            module: file.name.clone(),
            state: EntryState::Installed,
            abi: stamp.map_or_else(String::new, |stamp| abi_range(&stamp.offer.abi)),
            image_schemas: stamp.map(|stamp| schema_range(&stamp.schema)),
            file: Some(file.path.display().to_string()),
            problem,
            build_id: file.build_id.as_deref().map(hex),
            installed: true,
        }
    }

    /// A file that cannot be read as a module.
    pub fn unreadable(path: &Path, problem: String) -> Self {
        Self {
            version: String::new(),
            module: String::new(),
            state: EntryState::Installed,
            abi: String::new(),
            image_schemas: None,
            file: Some(path.display().to_string()),
            problem: Some(problem),
            build_id: None,
            installed: true,
        }
    }
}
