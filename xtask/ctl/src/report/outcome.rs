// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! How an upgrade is done, and how it ends.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::problem::Exit;

/// How the new payload comes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Beside the old one.
    Warm,
    /// After the old one is gone; Atom holds I/O meanwhile.
    Cold,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        })
    }
}

/// What became of an upgrade.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The new payload serves, the old one is unloaded.
    Committed,
    /// The new payload serves, the old one is parked: it was asked for, or it could not be unloaded.
    Switched,
    /// The new payload was to take over and did not; the old one serves again.
    RolledBack,
    /// It ended before the new payload's turn, at the deadline for example; the old one serves.
    Aborted,
    /// Refused before anything changed.
    Refused,
    /// No payload serves: Atom holds I/O.
    Held,
}

impl Outcome {
    /// How the process ends with it.
    pub fn exit(self) -> Exit {
        match self {
            Self::Committed | Self::Switched => Exit::Done,
            Self::RolledBack | Self::Aborted => Exit::Undone,
            Self::Refused => Exit::Refused,
            Self::Held => Exit::Attention,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Committed => "committed",
            Self::Switched => "switched",
            Self::RolledBack => "rolled-back",
            Self::Aborted => "aborted",
            Self::Refused => "refused",
            Self::Held => "held",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_spelled_alike_in_json_and_in_text() {
        for outcome in [
            Outcome::Committed,
            Outcome::Switched,
            Outcome::RolledBack,
            Outcome::Aborted,
            Outcome::Refused,
            Outcome::Held,
        ] {
            let json = serde_json::to_value(outcome).unwrap();
            assert_eq!(json, outcome.to_string());
        }
    }

    #[test]
    fn the_exit_code_follows_the_outcome() {
        assert_eq!(Outcome::Committed.exit().code(), 0);
        assert_eq!(Outcome::RolledBack.exit().code(), 1);
        assert_eq!(Outcome::Aborted.exit().code(), 1);
        assert_eq!(Outcome::Refused.exit().code(), 3);
        assert_eq!(Outcome::Held.exit().code(), 4);
    }
}
