// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What is wrong with a unit, and how it is said.

use std::fmt;

use super::stamp::{Content, SECTOR};

/// A rule of the oracle that is broken; see the [module](super).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A write that must be there is not.
    Lost,
    /// Something older than the last but one has come back.
    Stale,
    /// Sectors of different writes.
    Torn,
    /// It belongs elsewhere.
    Misdirected,
    /// A flushed write is missing, and a later one is there.
    Reordered,
    /// A discard or zeroes were carried out after a later write.
    Replayed,
    /// Nobody has written it.
    Garbage,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost write",
            Self::Stale => "stale data",
            Self::Torn => "torn write",
            Self::Misdirected => "misdirected write",
            Self::Reordered => "reordering across a flush",
            Self::Replayed => "discard carried out after a later write",
            Self::Garbage => "data that nobody has written",
        })
    }
}

/// One unit that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// Where its first sector is, in sectors.
    pub sector: u64,
    /// What is there, for people.
    pub found: String,
    /// What would have been right, for people.
    pub wanted: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, sector, found, wanted } = self;
        write!(f, "{rule} at sector {sector}: there is {found}, and allowed is {wanted}")
    }
}

/// What is in the sectors of a unit, each different content once.
pub(super) fn shown(contents: &[Content], bytes: &[u8]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (at, content) in contents.iter().enumerate() {
        let part = match content {
            Content::Zeroes => "zeroes".to_owned(),
            Content::Stamped(stamp) => format!(
                "write {:#x} of generation {}, stamped {:#x} for sector {}",
                stamp.sequence, stamp.generation, stamp.volume, stamp.sector
            ),
            Content::Garbage => {
                let start = bytes.get(at * SECTOR..at * SECTOR + 16).unwrap_or_default();
                format!("garbage that begins with {start:02x?}")
            }
        };
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts.join("; ")
}

/// Findings for people: how many, and the first few.
pub fn listed(findings: &[Finding]) -> String {
    let mut text = format!("{} units are wrong", findings.len());
    for finding in findings.iter().take(6) {
        text.push_str(&format!("\n  {finding}"));
    }
    text
}
