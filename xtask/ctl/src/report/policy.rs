// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What Atom does by itself, and the end of a soak.

use atom_abi::control::{hold, Settings};
use serde::{Deserialize, Serialize};

use super::micros;
use crate::drain::AtDeadline;

/// What happens when no payload is adopted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HoldPolicy {
    /// `hold`, `fail` or `fallback`.
    pub policy: String,
    /// How long I/O is held before it acts; 0 for `hold`, which never does.
    pub after_us: u64,
    /// The module that the kernel then loads, for `fallback`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
}

impl HoldPolicy {
    /// That of these settings.
    pub fn of(settings: &Settings) -> Self {
        let (name, after_ns) = match settings.hold {
            hold::HOLD => ("hold", 0),
            hold::FAIL => ("fail", settings.hold_deadline_ns),
            hold::FALLBACK => ("fallback", settings.hold_deadline_ns),
            _ => ("unknown", settings.hold_deadline_ns),
        };
        let fallback = settings.hold == hold::FALLBACK;
        Self {
            policy: name.to_owned(),
            after_us: micros(after_ns),
            fallback: fallback.then(|| settings.fallback.as_str().to_owned()),
        }
    }
}

/// The terms of a soak.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SoakPolicy {
    /// How long Atom waits for a commit before it switches back; 0: every switch is committed at once.
    pub commit_within_us: u64,
    /// How long a request may be owed before Atom switches back; 0: no limit.
    pub stall_us: u64,
    /// What happens at the deadline of that switch: `abort`, `reissue` or `fail`.
    pub back_policy: String,
    /// How long its drain may take.
    pub back_deadline_us: u64,
}

/// What `policy` prints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyDocument {
    /// [`PolicyDocument::SCHEMA`].
    pub schema: String,
    /// What happens when no payload is adopted.
    pub hold: HoldPolicy,
    /// The terms of the soak after each switch.
    pub soak: SoakPolicy,
}

impl PolicyDocument {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.policy/1";

    /// The document of these settings.
    pub fn new(settings: &Settings) -> Self {
        let back = AtDeadline::of_code(settings.back_policy);
        Self {
            schema: Self::SCHEMA.to_owned(),
            hold: HoldPolicy::of(settings),
            soak: SoakPolicy {
                commit_within_us: micros(settings.soak_ns),
                stall_us: micros(settings.stall_ns),
                back_policy: back.map_or("unknown", AtDeadline::name).to_owned(),
                back_deadline_us: micros(settings.back_deadline_ns),
            },
        }
    }
}

/// What `commit` prints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CommitDocument {
    /// [`CommitDocument::SCHEMA`].
    pub schema: String,
    /// Version of the payload that stays.
    pub version: String,
    /// Version of the one to which a switch would have gone back.
    pub parked: String,
    /// The parked one was unloaded.
    pub unloaded: bool,
}

impl CommitDocument {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.commit/1";
}

#[cfg(test)]
mod tests {
    use atom_abi::text::Text;

    use super::*;

    #[test]
    fn the_policy_of_a_fresh_atom_reads_as_documented() {
        let document = serde_json::to_value(PolicyDocument::new(&Settings::DEFAULT)).unwrap();
        assert_eq!(
            document,
            serde_json::json!({
                "schema": "atom.policy/1",
                "hold": { "policy": "hold", "after_us": 0 },
                "soak": {
                    "commit_within_us": 0,
                    "stall_us": 0,
                    "back_policy": "reissue",
                    "back_deadline_us": 1_000_000,
                },
            })
        );
    }

    #[test]
    fn a_fallback_is_named_with_its_time() {
        let settings = Settings {
            hold: hold::FALLBACK,
            hold_deadline_ns: 10_000_000_000,
            fallback: Text::new("payload_1_0_0"),
            ..Settings::DEFAULT
        };
        let policy = HoldPolicy::of(&settings);
        assert_eq!(policy.fallback.as_deref(), Some("payload_1_0_0"));
        assert_eq!((policy.policy.as_str(), policy.after_us), ("fallback", 10_000_000));
    }
}
