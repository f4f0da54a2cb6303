// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What an operator's year is made of. Chance chooses, so a seed repeats it.

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Warm, the usual way: the old module is removed at once.
    Warm,
    /// Abandon, rmmod, insmod, adopt.
    Cold,
    /// Warm, watched for a while with canary reads, and committed.
    Soaked,
    /// Warm, the old one stays parked; some I/O later one switch goes back, and the new one is removed.
    RolledBack,
    /// A file that cannot take over: the check refuses it, nothing changes.
    Refused,
    /// A candidate that fails in *adopt*: Atom undoes the switch.
    Undone,
    /// The server stands still, so that the drain meets its deadline.
    Aborted,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Warm,
        Self::Cold,
        Self::Soaked,
        Self::RolledBack,
        Self::Refused,
        Self::Undone,
        Self::Aborted,
    ];

    /// How often it comes up, in a hundred.
    const fn weight(self) -> u64 {
        match self {
            Self::Warm => 76,
            Self::Cold => 8,
            Self::Soaked => 4,
            Self::RolledBack => 4,
            Self::Refused => 3,
            Self::Undone => 3,
            Self::Aborted => 2,
        }
    }

    /// The next one.
    pub fn next(random: &mut Random) -> Self {
        let mut at = random.below(Self::ALL.iter().map(|kind| kind.weight()).sum());
        for kind in Self::ALL {
            if at < kind.weight() {
                return kind;
            }
            at -= kind.weight();
        }
        Self::Warm
    }

    /// Whether another payload has taken over. Only these count as upgrades.
    pub fn is_upgrade(self) -> bool {
        matches!(self, Self::Warm | Self::Cold | Self::Soaked | Self::RolledBack)
    }

    /// In a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
            Self::Soaked => "warm with a soak",
            Self::RolledBack => "warm, and back",
            Self::Refused => "refused before anything changed",
            Self::Undone => "undone, because the candidate failed",
            Self::Aborted => "aborted at the deadline",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_comes_up_as_often_as_it_should_and_a_seed_repeats_it() {
        let of = |seed| -> Vec<Kind> {
            let mut random = Random::new(seed);
            (0..20_000).map(|_| Kind::next(&mut random)).collect()
        };
        let kinds = of(3);
        for kind in Kind::ALL {
            let seen = kinds.iter().filter(|one| **one == kind).count() as u64;
            let wanted = 200 * kind.weight();
            assert!(seen.abs_diff(wanted) < wanted / 4, "{kind:?}: {seen}, not {wanted}");
        }
        assert_eq!(kinds, of(3));
        assert_ne!(kinds, of(4));
        assert_eq!(Kind::ALL.iter().map(|kind| kind.weight()).sum::<u64>(), 100);
    }
}
