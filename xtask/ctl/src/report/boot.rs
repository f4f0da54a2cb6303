// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a boot, or a shutdown, has done.

use serde::{Deserialize, Serialize};

/// What a boot has done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BootDocument {
    /// [`BootDocument::SCHEMA`].
    pub schema: String,
    /// The payload that is live; null when none is installed.
    pub live: Option<String>,
    /// Whether it was live before.
    pub was_live: bool,
    /// What went wrong on the way to it.
    pub warnings: Vec<String>,
}

impl BootDocument {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.boot/1";
}

/// What a shutdown has done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StopDocument {
    /// [`StopDocument::SCHEMA`].
    pub schema: String,
    /// The volumes that were closed, in order.
    pub closed: Vec<String>,
    /// The volumes that somebody uses still.
    pub in_use: Vec<String>,
    /// What went wrong.
    pub warnings: Vec<String>,
}

impl StopDocument {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.stop/1";
}
