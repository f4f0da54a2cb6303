// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A program that uses so much memory of its own, over and over, and notices a wrong byte in it.

use anyhow::{ensure, Result};

use crate::random::Random;

/// Bytes of a page.
const PAGE: usize = 4096;

/// Writes each page in an order that nobody foresees, and reads what was written there before. Does not return but with
/// an error.
pub fn run(mib: usize) -> Result<()> {
    let pages = mib << 8;
    let mut memory = vec![0u8; pages * PAGE];
    let mut written = vec![0u64; pages];
    let mut random = Random::new(u64::from(std::process::id()));
    for turn in 1u64.. {
        let page = random.below(pages as u64) as usize;
        let data = &mut memory[page * PAGE..(page + 1) * PAGE];
        for (at, bytes) in data.chunks_exact_mut(8).enumerate() {
            let found = u64::from_le_bytes(bytes.try_into()?);
            ensure!(
                found == written[page],
                "word {at} of page {page} is {found}, not {}",
                written[page]
            );
            bytes.copy_from_slice(&turn.to_le_bytes());
        }
        written[page] = turn;
    }
    Ok(())
}
