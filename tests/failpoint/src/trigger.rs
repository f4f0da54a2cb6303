// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! At which of its passes an armed failpoint strikes. Pure: it follows from the number of the pass alone.

use core::fmt;

/// What a chance is out of.
pub const MILLION: u32 = 1_000_000;

/// When a point strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// At every pass.
    Always,
    /// At the next so many passes.
    Next(u32),
    /// Once, after so many passes.
    After(u32),
    /// At a part of the passes, of which a seed says which.
    Chance {
        /// So many of a million.
        ppm: u32,
        /// What the choice comes from.
        seed: u32,
    },
}

impl Trigger {
    /// Whether it strikes at a pass, of which the first one is 0.
    pub fn strikes(self, pass: u64) -> bool {
        match self {
            Self::Always => true,
            Self::Next(times) => pass < times.into(),
            Self::After(skipped) => pass == skipped.into(),
            Self::Chance { ppm, seed } => {
                mixed((u64::from(seed) << 32).wrapping_add(pass)) % u64::from(MILLION) < ppm.into()
            }
        }
    }

    pub(crate) fn pack(self) -> (u64, u64) {
        match self {
            Self::Always => (0, 0),
            Self::Next(times) => (1, times.into()),
            Self::After(skipped) => (2, skipped.into()),
            Self::Chance { ppm, seed } => (3, u64::from(ppm) << 32 | u64::from(seed)),
        }
    }

    pub(crate) fn unpack(tag: u64, value: u64) -> Self {
        // The lower half is taken on purpose.
        let (high, low) = ((value >> 32) as u32, value as u32);
        match tag {
            0 => Self::Always,
            1 => Self::Next(low),
            2 => Self::After(low),
            _ => Self::Chance { ppm: high, seed: low },
        }
    }
}

/// Spreads a number over all others (`splitmix64`).
fn mixed(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => Ok(()),
            Self::Next(times) => write!(f, ",next={times}"),
            Self::After(skipped) => write!(f, ",after={skipped}"),
            Self::Chance { ppm, seed } => write!(f, ",chance={ppm},seed={seed}"),
        }
    }
}
