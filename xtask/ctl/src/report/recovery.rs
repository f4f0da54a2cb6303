// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What was found where a tool has died, and what was done about it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::problem::Exit;

/// How a recovery ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecoveryOutcome {
    /// There was nothing to do.
    Nothing,
    /// Only the plan was asked for.
    Planned,
    /// All steps were carried out.
    Recovered,
    /// Nothing was done, for a reason.
    Refused,
    /// A step failed; a payload serves.
    Failed,
    /// No payload serves, and applications wait or see errors.
    Held,
}

impl RecoveryOutcome {
    /// How the process ends with it.
    pub fn exit(self) -> Exit {
        match self {
            Self::Nothing | Self::Planned | Self::Recovered => Exit::Done,
            Self::Refused => Exit::Refused,
            Self::Failed => Exit::Undone,
            Self::Held => Exit::Attention,
        }
    }
}

impl fmt::Display for RecoveryOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::Planned => "planned",
            Self::Recovered => "recovered",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Held => "held",
        })
    }
}

/// What `recover` prints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recovery {
    /// [`Recovery::SCHEMA`].
    pub schema: String,
    /// What became of it.
    pub outcome: RecoveryOutcome,
    /// What was found, in a sentence.
    pub found: String,
    /// The steps of the plan, in words.
    pub plan: Vec<String>,
    /// How many of them were carried out.
    pub done: usize,
    /// What is left on purpose, and what to do about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
    /// Why it ended before its end.
    pub reason: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Version of the payload that serves; empty when none does.
    pub live: String,
}

impl Recovery {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.recovery/1";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_spelled_alike_in_json_and_in_text_and_end_as_documented() {
        for (outcome, code) in [
            (RecoveryOutcome::Nothing, 0),
            (RecoveryOutcome::Planned, 0),
            (RecoveryOutcome::Recovered, 0),
            (RecoveryOutcome::Failed, 1),
            (RecoveryOutcome::Refused, 3),
            (RecoveryOutcome::Held, 4),
        ] {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.to_string());
            assert_eq!(outcome.exit().code(), code);
        }
    }
}
