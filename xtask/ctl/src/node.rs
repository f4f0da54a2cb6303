// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The machine that an upgrade works on, as the few things an upgrade needs of it.

use std::time::Duration;

use atom_abi::control::{PayloadInfo, Report, Status};

use crate::control::Control;
use crate::critical::Critical;
use crate::kmod;
use crate::problem::{Problem, Result};

/// What an upgrade needs of a machine. [`Local`] is the real one; tests have one that fails on demand.
pub trait Node {
    /// What is alive while I/O may be held, see [`Critical`].
    type Critical;

    /// Release of the running kernel.
    fn release(&self) -> Result<String>;
    /// The state of Atom.
    fn status(&self) -> Result<Status>;
    /// The registered payloads.
    fn payloads(&self) -> Result<Vec<PayloadInfo>>;
    /// Warm handoff.
    fn switch(&self, payload: u32, deadline: Duration) -> Result<Report>;
    /// First half of a cold handoff, with the schema that the next payload reads.
    fn abandon(&self, schema: u32, deadline: Duration) -> Result<Report>;
    /// Second half of a cold handoff.
    fn adopt(&self, payload: u32) -> Result<Report>;
    /// Inserts a module from memory.
    fn insert(&self, image: &[u8]) -> Result<()>;
    /// Removes a module.
    fn remove(&self, module: &str) -> Result<()>;
    /// Whether a module of this name is loaded.
    fn is_loaded(&self, module: &str) -> Result<bool>;
    /// Build id of a loaded module, when it can be known.
    fn build_id(&self, module: &str) -> Option<Vec<u8>>;
    /// Begins the time in which this process must not wait for I/O.
    fn enter_critical(&self) -> Result<Self::Critical>;
}

/// The machine that this process runs on.
#[derive(Debug)]
pub struct Local {
    control: Control,
}

impl Local {
    /// Opens Atom's control device.
    pub fn open() -> Result<Self> {
        Control::open().map(|control| Self { control })
    }

    /// Everything else that Atom can be asked for.
    pub fn control(&self) -> &Control {
        &self.control
    }
}

/// Release of the running kernel.
pub fn kernel_release() -> Result<String> {
    let names = nix::sys::utsname::uname().map_err(|errno| {
        Problem::refused(
            "The release of the running kernel is unknown",
            errno.desc(),
            "check that uname -r works",
        )
    })?;
    Ok(names.release().to_string_lossy().into_owned())
}

impl Node for Local {
    type Critical = Critical;

    fn release(&self) -> Result<String> {
        kernel_release()
    }

    fn status(&self) -> Result<Status> {
        self.control.status()
    }

    fn payloads(&self) -> Result<Vec<PayloadInfo>> {
        self.control.payloads()
    }

    fn switch(&self, payload: u32, deadline: Duration) -> Result<Report> {
        self.control.switch(payload, deadline)
    }

    fn abandon(&self, schema: u32, deadline: Duration) -> Result<Report> {
        self.control.abandon(Some(schema), deadline)
    }

    fn adopt(&self, payload: u32) -> Result<Report> {
        self.control.adopt(payload)
    }

    fn insert(&self, image: &[u8]) -> Result<()> {
        kmod::insert(image, "")
    }

    fn remove(&self, module: &str) -> Result<()> {
        kmod::remove(module)
    }

    fn is_loaded(&self, module: &str) -> Result<bool> {
        kmod::find(module).map(|found| found.is_some())
    }

    fn build_id(&self, module: &str) -> Option<Vec<u8>> {
        kmod::build_id(module)
    }

    fn enter_critical(&self) -> Result<Critical> {
        Critical::enter()
    }
}
