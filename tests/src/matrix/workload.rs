// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What goes on on the device of a cell. The oracle is in all of it, so that the data are judged whatever the load is.

use std::fs::{self, OpenOptions};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};

use super::axes::{Cell, Load, Volume};
use crate::load::files::Files;
use crate::oracle::device::{Device, Promise};
use crate::oracle::load::{self, volume_name, Done, Shape};
use crate::oracle::schedule::Mix;
use crate::oracle::Terms;
use crate::pressure::Pressure;
use crate::wait;

/// The oracle's area.
const BYTES: u64 = 2 << 20;
const PLACE: &str = "/mnt/matrix";
/// Operations of each lane that show that I/O flows.
const SOME: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// The load of a cell.
pub struct Workload {
    oracle: load::Load,
    lanes: u64,
    files: Option<Files>,
    pressure: Option<Pressure>,
}

impl Workload {
    /// Starts the load of a cell on its device. The seed makes it repeatable.
    pub fn start(cell: &Cell, device: &str, seed: u64) -> Result<Self> {
        let (lanes, mix) = match cell.load {
            Load::Idle => (0, Mix::PLAIN),
            Load::DepthOne => (1, Mix::PLAIN),
            Load::Saturated => (16, Mix::PLAIN),
            Load::Mixed => (6, Mix::ALL),
            Load::FileSystem => (2, Mix { zeroes: 0, discards: 0, ..Mix::ALL }),
            Load::Pressure => (3, Mix::ALL),
        };
        let name = volume_name(&[seed]);
        let (on, files) = match cell.load {
            Load::FileSystem => {
                make_file_system(device)?;
                (in_a_file(name)?, Some(Files::start(format!("{PLACE}/files").as_ref())?))
            }
            _ => {
                let promise = Promise { discard_zeroes: cell.volume == Volume::Ram, blank: false };
                (Device::open(device, name, BYTES, promise)?, None)
            }
        };
        let pressure = match cell.load {
            Load::Pressure => {
                Pressure::prepare()?;
                Some(Pressure::start()?)
            }
            _ => None,
        };
        let oracle = load::Load::start(on, &Shape { lanes, mix, seed })?;
        let mut workload = Self { oracle, lanes, files, pressure };
        workload.flows()?;
        Ok(workload)
    }

    /// Waits until every part of it has ended something.
    pub fn flows(&mut self) -> Result<()> {
        let before = (self.oracle.ended(), self.files.as_ref().map_or(0, Files::checked));
        wait::until("I/O flows", PATIENCE, || {
            self.check()?;
            let files = self.files.as_ref().is_none_or(|files| files.checked() > before.1);
            Ok(files && self.oracle.ended() >= before.0 + self.lanes * SOME)
        })
    }

    /// An error when something has failed or was found to be wrong.
    pub fn check(&mut self) -> Result<()> {
        if !self.oracle.is_idle() {
            self.oracle.check()?;
        }
        self.files.as_mut().map_or(Ok(()), Files::check)
    }

    /// Another payload is to serve now.
    pub fn next_generation(&self) {
        self.oracle.next_generation();
    }

    /// Stops, and judges all that was written.
    pub fn stop(self) -> Result<Done> {
        let done = self.oracle.stop().context("the oracle")?;
        if let Some(files) = self.files {
            files.stop()?;
            wait::until("nobody uses the file system", PATIENCE, || {
                let mut umount = Command::new("umount");
                Ok(umount.arg(PLACE).stderr(Stdio::null()).status()?.success())
            })?;
        }
        if let Some(pressure) = self.pressure {
            pressure.stop()?;
        }
        Ok(done)
    }
}

fn make_file_system(device: &str) -> Result<()> {
    fs::create_dir_all(PLACE)?;
    for argv in [&["mkfs.ext4", "-q", "-F", device][..], &["mount", device, PLACE]] {
        let output = Command::new(argv[0]).args(&argv[1..]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{argv:?} failed: {said}");
    }
    Ok(())
}

/// A file of the file system as the oracle's device.
fn in_a_file(volume: u64) -> Result<Device> {
    let path = format!("{PLACE}/oracle");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    file.set_len(BYTES)?;
    let unit_sectors = 8;
    let units = BYTES / (unit_sectors * 512);
    let terms = Terms { volume, unit_sectors, units, discard_zeroes: false, blank: true };
    Device::with_terms(&path, terms)
}
