// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Load on a node that somebody else operates: on a raw device and on a file system, until somebody wants it to stop.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::files::Files;
use super::fio::{Fio, Shape};
use super::probe::Probe;

/// How often it is looked at whether all goes on.
const GLANCE: Duration = Duration::from_millis(100);

/// Few requests of a little of the device: the node has other work.
const SHAPE: Shape = Shape { depth: 4, bytes: 16 << 20, verify: true };

/// What the load did and saw. One that has seen an error or a wrong byte leaves none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Requests on the raw device, all that were read back verified.
    pub ios: u64,
    /// Files that were written and found right.
    pub files_checked: u64,
    /// The longest time in which no read of the raw device came back.
    pub longest_gap_us: u64,
}

/// Loads `device` and the file system that `folder` lies on until there is a file `stop`. An error as soon as anything is
/// wrong.
pub fn run(device: &str, folder: &Path, stop: &Path) -> Result<Seen> {
    let probe = Probe::start(device)?;
    let mut fio = Fio::start(device, SHAPE)?;
    let mut files = Files::start(folder)?;
    probe.open_window();
    while !stop.exists() {
        fio.check()?;
        files.check()?;
        std::thread::sleep(GLANCE);
    }
    let longest_gap_us = u64::try_from(probe.longest_gap().as_micros())?;
    probe.stop()?;
    let ios = fio.stop()?.ios;
    Ok(Seen { ios, files_checked: files.stop()?.checked, longest_gap_us })
}
