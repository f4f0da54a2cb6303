// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The payload's own code in one module, without Atom (`tests/modules/single`); and a live patch of it
//! (`Documentation/livepatch/livepatch.rst`), which replaces a function of it while it serves.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};

use crate::bench::call;
use crate::wait;

const MODULE: &str = "/usr/lib/atom/test/single.ko";
const PATCH: &str = "/usr/lib/atom/test/single_patch.ko";
/// Its devices: the one that keeps nothing, and the one in memory.
const NULL: &str = "/dev/single0";
const RAM: &str = "/dev/single1";
/// Where the kernel says what becomes of the patch.
const STATE: &str = "/sys/kernel/livepatch/single_patch";
/// How long the last task may take until it runs what it is to run.
const PATIENCE: Duration = Duration::from_secs(60);

/// The module.
pub struct Single;

impl Single {
    /// Loads it with so many MiB on each device, and so many tags in each hardware queue. None: it was not built, as for kernels
    /// that look for defects.
    pub fn load(mib: u64, depth: u32) -> Result<Option<Self>> {
        Self::load_with(mib, depth, 0)
    }

    /// The same, and requests come by a function that can be patched.
    pub fn load_traced(mib: u64, depth: u32) -> Result<Option<Self>> {
        Self::load_with(mib, depth, 1)
    }

    fn load_with(mib: u64, depth: u32, traced: u32) -> Result<Option<Self>> {
        if !Path::new(MODULE).exists() {
            return Ok(None);
        }
        let parameters =
            [format!("mib={mib}"), format!("depth={depth}"), format!("traced={traced}")];
        call("insmod", &[&[MODULE], &parameters.each_ref().map(String::as_str)[..]].concat())?;
        ensure!(fs::exists(NULL)? && fs::exists(RAM)?, "there is no {NULL} or no {RAM}");
        Ok(Some(Self))
    }

    /// The device that keeps nothing.
    pub fn null(&self) -> &'static str {
        NULL
    }

    /// The device in memory.
    pub fn ram(&self) -> &'static str {
        RAM
    }

    /// Applies the patch when it is not applied, and else takes it back. Returns how long that took, until no task runs
    /// what was replaced. No request waits meanwhile.
    pub fn patch(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        if fs::exists(STATE)? {
            fs::write(format!("{STATE}/enabled"), "0")?;
            wait::until("the patch is gone", PATIENCE, || Ok(!fs::exists(STATE)?))?;
            call("rmmod", &["single_patch"])?;
        } else {
            call("insmod", &[PATCH])?;
            wait::until("the patch is applied", PATIENCE, || {
                Ok(fs::read_to_string(format!("{STATE}/transition"))?.trim() == "0")
            })?;
        }
        Ok(begun.elapsed())
    }

    /// Takes the patch back, if it is applied, and unloads.
    pub fn unload(mut self) -> Result<()> {
        if fs::exists(STATE)? {
            self.patch()?;
        }
        call("rmmod", &["single"]).map(drop)
    }
}
