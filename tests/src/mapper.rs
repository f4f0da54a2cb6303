// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Devices of the kernel's device mapper, without udev: nobody makes names for them.

use std::process::Command;

use anyhow::{ensure, Context as _, Result};

/// A mapped device. It stays until it is removed.
pub struct Mapped {
    name: String,
    device: String,
}

impl Mapped {
    /// Makes it of a table in `dmsetup`'s words.
    pub fn create(name: &str, table: &str) -> Result<Self> {
        let file = format!("/tmp/{name}.table");
        std::fs::write(&file, table)?;
        run(&["create", "--noudevrules", "--noudevsync", name, &file])?;
        let number = run(&["info", "-c", "--noheadings", "-o", "blkdevname", name])?;
        let device = format!("/dev/{}", number.trim());
        ensure!(std::fs::exists(&device)?, "there is no {device}");
        Ok(Self { name: name.to_owned(), device })
    }

    /// The path of the device.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Removes it. An error while it is in use.
    pub fn remove(self) -> Result<()> {
        run(&["remove", "--noudevrules", "--noudevsync", &self.name]).map(|_| ())
    }
}

fn run(args: &[&str]) -> Result<String> {
    let output = Command::new("dmsetup").args(args).output().context("no dmsetup")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "dmsetup {args:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
