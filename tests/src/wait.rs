// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Waiting for something to become true that nobody can be told of.

use std::time::{Duration, Instant};

use anyhow::{ensure, Result};

use crate::patience;

/// Time between two looks. It bounds how much of a processor the looking costs, and nothing else.
const LOOK: Duration = Duration::from_millis(2);

/// Returns once `holds` is true; an error when it is not within `limit`, which is that of the stock kernel.
pub fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let limit = patience::scaled(limit);
    let begun = Instant::now();
    while !holds()? {
        ensure!(begun.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(LOOK);
    }
    Ok(())
}
