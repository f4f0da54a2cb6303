// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A device of device mapper whose table is swapped: the new one is loaded beside the old one, then the device is suspended and
//! resumed. The two calls are made by this process, one right after the other: it would take longer with `dmsetup`.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc;

use crate::bench::call;
use crate::mapper;

const CONTROL: &str = "/dev/mapper/control";
/// `_IOWR(DM_IOCTL, DM_DEV_SUSPEND_CMD, struct dm_ioctl)` and flags of `include/uapi/linux/dm-ioctl.h`.
const SUSPEND: libc::c_ulong = 0xc138_fd06;
const SUSPENDED: u32 = 1 << 1;
const SKIP_LOCKFS: u32 = 1 << 10;
const NO_FLUSH: u32 = 1 << 11;
const NAME_BYTES: usize = 128;
/// The version of the interface that has all of this.
const VERSION: [u32; 3] = [4, 0, 0];

/// `struct dm_ioctl`.
#[repr(C)]
struct Command {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; NAME_BYTES],
    uuid: [u8; 129],
    data: [u8; 7],
}

const _: () = assert!(size_of::<Command>() == 312);

/// A mapped device.
pub struct Mapped {
    name: String,
    table: String,
    mapped: mapper::Mapped,
    control: File,
}

impl Mapped {
    /// A linear device over all of another one.
    pub fn over(below: &str, name: &str) -> Result<Self> {
        call("modprobe", &["dm_mod"])?;
        let sectors = call("blockdev", &["--getsz", below])?;
        let table = format!("0 {} linear {below} 0", sectors.trim());
        let mapped = mapper::Mapped::create(name, &table)?;
        let control = OpenOptions::new().read(true).write(true).open(CONTROL).context(CONTROL)?;
        Ok(Self { name: name.to_owned(), table, mapped, control })
    }

    pub fn device(&self) -> &str {
        self.mapped.device()
    }

    /// Swaps the table. Returns how long the device was suspended, by this process's clock.
    pub fn swap(&mut self) -> Result<Duration> {
        call("dmsetup", &["load", &self.name, "--table", &self.table])?;
        let begun = Instant::now();
        self.call(SUSPENDED | SKIP_LOCKFS | NO_FLUSH).context("suspend")?;
        self.call(0).context("resume")?;
        Ok(begun.elapsed())
    }

    fn call(&self, flags: u32) -> Result<()> {
        let mut command = Command {
            version: VERSION,
            data_size: size_of::<Command>() as u32,
            data_start: size_of::<Command>() as u32,
            target_count: 0,
            open_count: 0,
            flags,
            event_nr: 0,
            padding: 0,
            dev: 0,
            name: [0; NAME_BYTES],
            uuid: [0; 129],
            data: [0; 7],
        };
        let name = self.name.bytes().take(NAME_BYTES - 1);
        command.name.iter_mut().zip(name).for_each(|(to, from)| *to = from);
        // SAFETY: The kernel reads and writes as many bytes as the structure says that it has, which are all of them.
        let result =
            unsafe { libc::ioctl(self.control.as_raw_fd(), SUSPEND as _, &raw mut command) };
        Errno::result(result)?;
        Ok(())
    }

    pub fn remove(self) -> Result<()> {
        self.mapped.remove()
    }
}
