// SPDX-License-Identifier: GPL-2.0

//! Targets that are block devices of this machine, held open for the volume alone.
//!
//! Atom keeps the open device from one payload to the next. A device that becomes smaller, or goes, ends
//! what it cannot carry out with an error; the volume stays as it is.

use kernel::prelude::*;

use crate::bios::{self, Device, Unfit};
use crate::flight::{Context, Flight};
use crate::limits::Facts;
use crate::sys;
use crate::why::{Failure, Why};

/// A block device as a target.
pub(crate) struct Target {
    device: Device,
}

impl Target {
    /// Opens the device of a path. Sleeps.
    pub(crate) fn create(path: &str, key: u64) -> Result<Self, Failure> {
        bios::prepare().map_err(Failure::from)?;
        match Device::open(path, key) {
            Ok(device) => Ok(Self { device }),
            Err(Unfit::Atom) => Err(Failure {
                error: sys::eloop(),
                why: Why::new(format_args!("{path} is a device of Atom itself")),
            }),
            Err(Unfit::Zoned) => Err(Failure {
                error: sys::eopnotsupp(),
                why: Why::new(format_args!("{path} is a zoned device")),
            }),
            Err(Unfit::Error(error)) => {
                Err(Failure { error, why: Why::new(format_args!("{path} {}", reason(error))) })
            }
        }
    }

    /// Takes over the device that an earlier payload has opened. Only within *adopt*.
    pub(crate) fn adopt(key: u64) -> Result<Self> {
        bios::prepare()?;
        Ok(Self { device: Device::claim(key)? })
    }

    /// What the device can do now.
    pub(crate) fn facts(&self) -> Facts {
        self.device.facts()
    }

    /// Its size now, in sectors of 512 bytes.
    pub(crate) fn sectors(&self) -> u64 {
        self.device.sectors()
    }

    /// Has it carry out a part.
    pub(crate) fn submit(&self, flight: Flight, context: Context) {
        self.device.submit(flight, context);
    }

    /// The same in the task that may wait.
    pub(crate) fn submit_waiting(&self, flight: Flight) {
        self.device.submit_waiting(flight);
    }

    /// Closes the device. No request may be carried out on it any more. Sleeps.
    pub(crate) fn close(&self) -> Result {
        self.device.release()
    }
}

/// Why a device could not be opened.
fn reason(error: Error) -> &'static str {
    match error {
        e if e == EBUSY => "is in use by somebody else",
        e if e == ENOENT => "does not exist",
        e if e == ENOTBLK => "is no block device",
        e if e == EACCES || e == EPERM => "may not be opened",
        e if e == ENXIO || e == ENODEV => "has no device behind it",
        e if e == EEXIST => "is kept for another target already",
        _ => "cannot be opened",
    }
}
