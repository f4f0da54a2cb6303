// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Chance that can be repeated: everything follows from one number, the seed.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use anyhow::{Context as _, Result};

/// Where the host puts the seed that the person at the keyboard wants (`ATOM_SEED`).
const SEED_FILE: &str = "/etc/atom/seed";

/// A source of numbers.
pub struct Random {
    state: u64,
}

impl Random {
    /// The one that begins with `seed`.
    pub fn new(seed: u64) -> Self {
        // splitmix64's increment; the state must not be zero.
        Self { state: seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    /// The one that begins with all of `words`; another order is another one.
    pub fn mixed(words: &[u64]) -> Self {
        let seed =
            words.iter().fold(0, |state, word| Self::new(state ^ word.rotate_left(17)).number());
        Self::new(seed)
    }

    /// The next number: xorshift64*, Vigna 2016.
    pub fn number(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, which is greater than zero.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.number() >> 16) % end.max(1)
    }

    /// One of these.
    pub fn one_of<'a, T>(&mut self, items: &'a [T]) -> Result<&'a T> {
        let at = self.below(items.len() as u64) as usize;
        items.get(at).context("nothing to choose from")
    }
}

/// The seed that was asked for, or one that nobody has chosen.
pub fn seed() -> Result<u64> {
    match std::fs::read_to_string(SEED_FILE) {
        Ok(text) => text.trim().parse().with_context(|| format!("{SEED_FILE}: {text:?}")),
        Err(_) => Ok(u64::from(RandomState::new().build_hasher().finish() as u32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_one_does_not() {
        let of = |seed| -> Vec<u64> {
            let mut random = Random::new(seed);
            (0..8).map(|_| random.number()).collect()
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert_ne!(of(0), of(u64::MAX));
    }

    #[test]
    fn words_in_another_order_give_other_numbers() {
        let of = |words: &[u64]| Random::mixed(words).number();
        assert_eq!(of(&[1, 2, 3]), of(&[1, 2, 3]));
        let all = [of(&[1, 2, 3]), of(&[1, 3, 2]), of(&[2, 1, 3]), of(&[1, 2]), of(&[1, 2, 3, 0])];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
    }

    #[test]
    fn every_choice_comes_up() {
        let mut random = Random::new(7);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[random.below(5) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert!(random.one_of::<u8>(&[]).is_err());
    }
}
