// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The stages of a drain.

use atom_abi::control::{stage, Report, Stage as OfAtom};
use serde::{Deserialize, Serialize};

use super::micros;

/// One stage of a drain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stage {
    /// What was waited for: `background`, `data` or `flushes`.
    pub name: String,
    /// How much of it was outstanding when the stage began.
    pub began: u32,
    /// How much was left when it ended: 0, or what was there at the deadline.
    pub left: u32,
    /// How long it took.
    pub us: u64,
}

impl Stage {
    /// The stages that a report tells of. One that took no time has not begun.
    pub fn all_of(report: &Report) -> Vec<Self> {
        stage::NAMES
            .iter()
            .zip(&report.stages)
            .filter(|(_, stage)| **stage != OfAtom::NONE)
            .map(|(name, stage)| Self {
                name: (*name).to_owned(),
                began: stage.began,
                left: stage.left,
                us: micros(stage.ns),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_that_have_not_begun_are_left_out() {
        let mut report = Report::EMPTY;
        assert!(Stage::all_of(&report).is_empty());
        report.stages[stage::DATA] = OfAtom { began: 3, left: 1, ns: 2_500 };
        let stage = Stage { name: "data".to_owned(), began: 3, left: 1, us: 2 };
        assert_eq!(Stage::all_of(&report), [stage]);
    }
}
