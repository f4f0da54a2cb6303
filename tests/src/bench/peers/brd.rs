// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The kernel's `brd`, a disk in memory that takes bios.

use anyhow::{ensure, Result};

use crate::bench::call;

/// Its only device.
const DEVICE: &str = "/dev/ram0";

/// The module with one device.
pub struct Brd;

impl Brd {
    /// Loads it.
    pub fn load(mib: u64) -> Result<Self> {
        call("modprobe", &["brd", "rd_nr=1", &format!("rd_size={}", mib << 10)])?;
        ensure!(std::fs::exists(DEVICE)?, "there is no {DEVICE}");
        Ok(Self)
    }

    pub fn device(&self) -> &'static str {
        DEVICE
    }

    pub fn unload(self) -> Result<()> {
        call("rmmod", &["brd"]).map(drop)
    }
}
