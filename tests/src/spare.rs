// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A block device that is not Atom's: a RAM disk of the stock kernel, for whoever needs one to open.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use anyhow::{ensure, Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;

const MODULE: &str = "brd";
const DEVICE: &str = "/dev/ram0";

/// The RAM disk. There is one at a time.
pub struct Spare(());

impl Spare {
    /// Loads the module for one disk of so many MiB, of which only what is written needs memory.
    pub fn create(mib: u64) -> Result<Self> {
        let (disks, kib) = ("rd_nr=1", format!("rd_size={}", mib << 10));
        run("modprobe", &[MODULE, disks, &kib])?;
        ensure!(std::fs::exists(DEVICE)?, "there is no {DEVICE}");
        Ok(Self(()))
    }

    /// The path of the device.
    pub fn device(&self) -> &'static str {
        DEVICE
    }

    /// Whether somebody holds it exclusively, as a mount does, or the kernel for a module.
    pub fn is_held(&self) -> Result<bool> {
        match exclusive(DEVICE) {
            Ok(_) => Ok(false),
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => Ok(true),
            Err(error) => Err(error).context(DEVICE),
        }
    }

    /// Removes it. An error while it is open.
    pub fn remove(self) -> Result<()> {
        run("rmmod", &[MODULE])
    }
}

/// Opens a block device as its only holder.
pub fn exclusive(device: &str) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_EXCL.bits()).open(device)
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).output().context(program.to_owned())?;
    ensure!(
        output.status.success(),
        "`{program} {}` failed ({}): {}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
