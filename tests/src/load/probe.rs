// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A reader that notices for how long nothing comes back.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::fcntl::OFlag;

use super::gaps::{Gaps, Watched};

const BLOCK: usize = 4096;

/// Reads one block after the other, past the page cache, and keeps the longest gap between completions.
pub struct Probe(Watched);

impl Probe {
    /// Starts on a device.
    pub fn start(device: &str) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_DIRECT.bits())
            .open(device)
            .with_context(|| format!("cannot open {device}"))?;
        Ok(Self(Watched::start("probe", device, move |gaps| work(&file, gaps))?))
    }

    /// Begins a window; the gap that is under way counts from here.
    pub fn open_window(&self) {
        self.0.open_window();
    }

    /// The longest gap since the window began, including one that has not ended.
    pub fn longest_gap(&self) -> Duration {
        self.0.longest_gap()
    }

    /// Reads that came back.
    pub fn reads(&self) -> u64 {
        self.0.done()
    }

    /// Stops. An error when any read failed.
    pub fn stop(self) -> Result<u64> {
        self.0.stop()
    }
}

fn work(file: &File, gaps: &Gaps) -> Result<()> {
    // O_DIRECT wants memory and offset aligned to the block.
    let mut memory = vec![0u8; 2 * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let block = memory.get_mut(start..start + BLOCK).context("no aligned memory")?;
    let mut at = 0u64;
    while !gaps.ends() {
        let begun = Instant::now();
        file.read_exact_at(block, (at % 64) * BLOCK as u64)?;
        at += 1;
        gaps.came_back(begun);
    }
    Ok(())
}
