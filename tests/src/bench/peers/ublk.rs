// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A ublk device of the kernel's own test server, `kublk` of `tools/testing/selftests/ublk`, which ends each request at once. Its
//! servers change by `UBLK_U_CMD_QUIESCE_DEV` and user recovery, with requests issued again that the old one had.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};

use crate::bench::call;
use crate::wait;

/// Where the host puts the server.
const PROGRAM: &str = "/usr/bin/kublk";
const NUMBER: &str = "0";
const DEVICE: &str = "/dev/ublkb0";
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take until a server that was asked to go has gone.
const AGAIN: Duration = Duration::from_secs(2);

/// A device with a server.
pub struct Ublk {
    shape: Vec<String>,
}

impl Ublk {
    /// Whether the host has built the server.
    pub fn is_there() -> bool {
        Path::new(PROGRAM).exists()
    }

    /// Starts one, with a hardware queue for each processor and so many tags in each.
    pub fn start(depth: u32) -> Result<Self> {
        call("modprobe", &["ublk_drv"])?;
        let queues = std::thread::available_parallelism()?.to_string();
        let depth = depth.to_string();
        let shape = ["-t", "null", "-n", NUMBER, "-q", &queues, "-d", &depth, "-r", "1", "-i", "1"];
        let shape = shape.map(str::to_owned).to_vec();
        let device = Self { shape };
        device.serve("add")?;
        ensure!(std::fs::exists(DEVICE)?, "there is no {DEVICE}");
        Ok(device)
    }

    pub fn device(&self) -> &'static str {
        DEVICE
    }

    /// Lets another server take over. Returns for how long there was none, by this process's clock.
    pub fn swap(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let mut asked: Option<Instant> = None;
        // Until the old server has let go of its queues nobody can take over. Now and then it does not, and is asked again.
        wait::until("the device is quiesced", PATIENCE, || {
            if asked.is_none_or(|asked| asked.elapsed() > AGAIN) {
                call(PROGRAM, &["quiesce", "-n", NUMBER])?;
                asked = Some(Instant::now());
            }
            Ok(call(PROGRAM, &["list", "-n", NUMBER])?.contains("QUIESCED"))
        })?;
        self.serve("recover")?;
        Ok(begun.elapsed())
    }

    fn serve(&self, how: &str) -> Result<()> {
        let shape: Vec<&str> = self.shape.iter().map(String::as_str).collect();
        call(PROGRAM, &[&[how], shape.as_slice()].concat()).map(drop)
    }

    pub fn stop(self) -> Result<()> {
        call(PROGRAM, &["del", "-n", NUMBER])?;
        call("rmmod", &["ublk_drv"]).map(drop)
    }
}
