// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What became of a file of volumes.

use serde::{Deserialize, Serialize};

use super::ErrorDocument;

/// What `apply` prints, whatever the outcome.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApplyDocument {
    /// [`ApplyDocument::SCHEMA`].
    pub schema: String,
    /// The file.
    pub file: String,
    /// What became of it.
    pub outcome: ApplyOutcome,
    /// The volumes, in the order in which they are dealt with.
    pub volumes: Vec<ApplyEntry>,
    /// Why it stopped; null when it did not.
    pub problem: Option<ErrorDocument>,
}

impl ApplyDocument {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.apply/1";
}

/// What became of a file of volumes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApplyOutcome {
    /// Only the plan was asked for.
    Planned,
    /// The volumes are as the file says.
    Done,
    /// The plan has something that cannot be done, and nothing was.
    Refused,
    /// A step failed; what was done before it stays.
    Failed,
}

/// What becomes of one volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApplyEntry {
    /// Its name.
    pub name: String,
    /// `create`, `grow`, `unchanged`, `unlisted`, `destroy` or `refused`.
    pub action: String,
    /// What this means here.
    pub detail: String,
    /// How far it got.
    pub result: ApplyResult,
    /// Its device, once it has one.
    pub device: Option<String>,
}

/// How far a step of a plan got.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApplyResult {
    /// There is nothing to do.
    Nothing,
    /// It was not begun.
    NotDone,
    /// It was carried out.
    Done,
    /// It failed, and the volume is as it was.
    Failed,
}
