// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! udev at work in the guest, with Debian's rules and the one of the tree.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::scenarios::Context;

/// The folder in which the names of volumes are.
pub const NAMES: &str = "/dev/atom";

/// A running udev.
pub struct Udev(());

impl Udev {
    /// Starts it, and returns once it has seen what there is.
    pub fn start(context: &Context) -> Result<Self> {
        context.run(&["/usr/lib/systemd/systemd-udevd", "--daemon"])?;
        context.run(&["udevadm", "trigger", "--action=add", "--type=all"])?;
        let udev = Self(());
        udev.settle(context)?;
        Ok(udev)
    }

    /// Waits until it has nothing to do.
    pub fn settle(&self, context: &Context) -> Result<()> {
        context.run(&["udevadm", "settle", "--timeout=60"]).map(|_| ())
    }

    /// Ends it. An error when a name of a volume is left.
    pub fn stop(self, context: &Context) -> Result<()> {
        self.settle(context)?;
        context.run(&["udevadm", "control", "--exit"])?;
        if Path::new(NAMES).is_dir() {
            fs::remove_dir(NAMES).context("names are left")?;
        }
        Ok(())
    }
}
