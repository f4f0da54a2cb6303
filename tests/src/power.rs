// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What outlives the power: the notes of a scenario, and the words in which the host and the guest speak of it.
//!
//! A scenario whose machine is booted several times runs anew in each boot. What it notes ([`Context::note`]) goes over
//! the line to the host at once, and the host gives it to the next boot. The line is no disk: what has gone over it is
//! not lost with the power. So a flush that was noted was acknowledged before the cut.
//!
//! [`Context::note`]: crate::scenarios::Context::note

use std::fs;

use anyhow::{Context as _, Result};

/// What a line with a note begins with, on standard output.
pub const NOTE: &str = "note: ";
/// The note that lets the host cut the power, some time after it.
pub const READY: &str = "ready to be cut";
/// Where the host puts the notes of the boot before.
pub const FILE: &str = "/run/atom-notes";

/// The notes of the boot before; none in the first one.
pub fn notes() -> Result<Vec<String>> {
    if !fs::exists(FILE)? {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(FILE).with_context(|| format!("cannot read {FILE}"))?;
    Ok(text.lines().map(str::to_owned).collect())
}
