// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What an upgrade would do.

use serde::{Deserialize, Serialize};

use super::{AttemptEntry, Mode, StatusDevice, Verdict};
use crate::journal::Kind;
use crate::problem::Exit;

/// What `plan` prints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UpgradePlan {
    /// [`UpgradePlan::SCHEMA`].
    pub schema: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// Version that is live; empty when none is.
    pub from: String,
    /// Version that would be; empty when the file does not tell.
    pub to: String,
    /// The file.
    pub file: String,
    /// Warm or cold.
    pub mode: Mode,
    /// True when the upgrade would be begun.
    pub ok: bool,
    /// Why not.
    pub reason: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// What was looked at, in the order in which an upgrade does. What comes after the first failure was not.
    pub checks: Vec<Verdict>,
    /// What is worth knowing about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The devices that would change hands.
    pub devices: Vec<StatusDevice>,
    /// Names of the volumes behind them, when the live payload tells.
    pub volumes: Vec<String>,
    /// Open handles that would stay open.
    pub opens: u32,
    /// How long I/O was held by the last upgrades of this kind; null when the journal knows none.
    pub expected_pause: Option<ExpectedPause>,
}

impl UpgradePlan {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.plan/1";

    /// How the process ends with it.
    pub fn exit(&self) -> Exit {
        if self.ok {
            Exit::Done
        } else {
            Exit::Refused
        }
    }
}

/// The pauses of earlier upgrades.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExpectedPause {
    /// How many upgrades were looked at.
    pub n: usize,
    /// Half of them were shorter.
    pub median_us: u64,
    /// Nine of ten were shorter.
    pub p90_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl ExpectedPause {
    /// Upgrades that are looked at: the last ones.
    const LOOKED_AT: usize = 50;

    /// Of the last upgrades in this mode that went well, under any kernel.
    pub fn of(attempts: &[AttemptEntry], mode: Mode) -> Option<Self> {
        let alike = |one: &&AttemptEntry| {
            matches!(one.kind, Kind::Upgrade | Kind::Rollback)
                && one.mode == Some(mode)
                && one.succeeded()
        };
        let last = attempts.iter().rev().filter(alike).filter_map(AttemptEntry::pause_us);
        let mut pauses: Vec<u64> = last.take(Self::LOOKED_AT).collect();
        pauses.sort_unstable();
        // The nearest rank: the smallest that at least so many of a hundred do not exceed.
        let rank = |percent: usize| {
            let rank = pauses.len().saturating_mul(percent).div_ceil(100);
            pauses.get(rank.saturating_sub(1)).copied()
        };
        Some(Self { n: pauses.len(), median_us: rank(50)?, p90_us: rank(90)?, max_us: rank(100)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::test_records::{began, ended};
    use crate::journal::{Found, Record};
    use crate::report::JournalDocument;

    fn attempts(outcomes: &[(&str, u8)]) -> Vec<AttemptEntry> {
        let records = (1..).zip(outcomes).flat_map(|(number, (outcome, code))| {
            [Record::Began(began(number)), Record::Ended(ended(number, outcome, *code))]
        });
        let found = Found { records: records.collect(), ..Found::default() };
        JournalDocument::new(&found, "b").attempts
    }

    #[test]
    fn the_pause_to_expect_is_that_of_upgrades_of_the_same_kind_that_went_well() {
        assert_eq!(ExpectedPause::of(&attempts(&[("aborted", 1)]), Mode::Warm), None);
        let ten = attempts(&[("committed", 0); 10]);
        assert_eq!(ExpectedPause::of(&ten, Mode::Cold), None);
        let of_ten = ExpectedPause { n: 10, median_us: 5000, p90_us: 9000, max_us: 10_000 };
        assert_eq!(ExpectedPause::of(&ten, Mode::Warm), Some(of_ten));
        let one = ExpectedPause { n: 1, median_us: 1000, p90_us: 1000, max_us: 1000 };
        assert_eq!(ExpectedPause::of(&ten[..1], Mode::Warm), Some(one));
    }
}
