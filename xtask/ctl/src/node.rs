// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The machine that an upgrade works on, as the few things an upgrade needs of it.

use std::io::{stderr, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

use atom_abi::control::{DeviceInfo, PayloadInfo, Report, Settings, Status};

use crate::canary::Canary;
use crate::control::{Claim, Control};
use crate::critical::{Critical, Locked};
use crate::drain::Drain;
use crate::failpoint::{meet, Point};
use crate::kmod::{self, Loaded};
use crate::problem::{Problem, Result};
use crate::progress::Progress;
use crate::volume;

/// What an upgrade needs of a machine. [`Local`] is the real one; tests have one that fails on demand.
pub trait Node {
    /// What is alive while I/O may be held, see [`Critical`].
    type Critical;
    /// What is alive while a disk may not answer, see [`Locked`].
    type Locked;
    /// What is alive while this process alone changes what runs, see [`Claim`].
    type Claim;

    /// Release of the running kernel.
    fn release(&self) -> Result<String>;
    /// The state of Atom.
    fn status(&self) -> Result<Status>;
    /// The registered payloads.
    fn payloads(&self) -> Result<Vec<PayloadInfo>>;
    /// The devices.
    fn devices(&self) -> Result<Vec<DeviceInfo>>;
    /// The reports that Atom keeps, newest first.
    fn reports(&self) -> Result<Vec<Report>>;
    /// Names of the volumes that only a payload with a newer schema than this one can have.
    fn beyond(&self, schema: u32) -> Result<Vec<String>>;
    /// Makes the changes that are asked for, and returns Atom's settings after them.
    fn settings(&self, wanted: &Settings) -> Result<Settings>;
    /// Warm handoff.
    fn switch(&self, payload: u32, drain: impl Into<Drain>) -> Result<Report>;
    /// First half of a cold handoff, with the schema that the next payload reads.
    fn abandon(&self, schema: u32, drain: impl Into<Drain>) -> Result<Report>;
    /// Second half of a cold handoff.
    fn adopt(&self, payload: u32) -> Result<Report>;
    /// Ends the soak: this payload stays.
    fn commit(&self, payload: u32) -> Result<()>;
    /// Waits until something has happened since the last look at the state; false after `limit`.
    fn wait(&self, limit: Duration) -> Result<bool>;
    /// The time on a clock that never goes back.
    fn now(&self) -> Duration;
    /// Reads the first and the last block of a device, each within `limit`. The error says what is wrong.
    fn read_canary(&self, device: &DeviceInfo, limit: Duration) -> std::result::Result<(), String>;
    /// Inserts a module from memory.
    fn insert(&self, image: &[u8]) -> Result<()>;
    /// Removes a module.
    fn remove(&self, module: &str) -> Result<()>;
    /// Whether a module of this name is loaded.
    fn is_loaded(&self, module: &str) -> Result<bool>;
    /// The loaded modules.
    fn modules(&self) -> Result<Vec<Loaded>>;
    /// Build id of a loaded module, when it can be known.
    fn build_id(&self, module: &str) -> Option<Vec<u8>>;
    /// Begins the time in which this process must not wait for I/O.
    fn enter_critical(&self) -> Result<Self::Critical>;
    /// Locks the memory of this process.
    fn lock_memory(&self) -> Result<Self::Locked>;
    /// Claims the right to change what runs.
    fn claim(&self) -> Result<Self::Claim>;
}

/// The machine that this process runs on.
#[derive(Debug)]
pub struct Local {
    control: Control,
    canary: Canary,
    progress: Option<Progress>,
    opened: Instant,
}

impl Local {
    /// Opens Atom's control device.
    pub fn open() -> Result<Self> {
        let control = Control::open()?;
        Ok(Self { control, canary: Canary::default(), progress: None, opened: Instant::now() })
    }

    /// The same, and drains that take long are shown when the standard error is a terminal.
    pub fn showing_progress(mut self) -> Self {
        if stderr().is_terminal() {
            self.progress = Progress::on_terminal();
        }
        self
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
    type Locked = Locked;
    type Claim = Claim;

    fn release(&self) -> Result<String> {
        kernel_release()
    }

    fn status(&self) -> Result<Status> {
        self.control.status()
    }

    fn payloads(&self) -> Result<Vec<PayloadInfo>> {
        self.control.payloads()
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>> {
        self.control.devices()
    }

    fn reports(&self) -> Result<Vec<Report>> {
        self.control.reports()
    }

    fn settings(&self, wanted: &Settings) -> Result<Settings> {
        meet(Point::UpgradeSettings)?;
        self.control.settings(wanted)
    }

    fn switch(&self, payload: u32, drain: impl Into<Drain>) -> Result<Report> {
        meet(Point::UpgradeSwitch)?;
        let _shown = self.progress.as_ref().map(Progress::watch);
        self.control.switch(payload, drain)
    }

    fn abandon(&self, schema: u32, drain: impl Into<Drain>) -> Result<Report> {
        meet(Point::UpgradeAbandon)?;
        let _shown = self.progress.as_ref().map(Progress::watch);
        self.control.abandon(Some(schema), drain)
    }

    fn adopt(&self, payload: u32) -> Result<Report> {
        meet(Point::UpgradeAdopt)?;
        self.control.adopt(payload)
    }

    fn commit(&self, payload: u32) -> Result<()> {
        meet(Point::UpgradeCommit)?;
        self.control.commit(payload)
    }

    fn wait(&self, limit: Duration) -> Result<bool> {
        meet(Point::UpgradeWait)?;
        self.control.wait(limit)
    }

    fn now(&self) -> Duration {
        self.opened.elapsed()
    }

    fn beyond(&self, schema: u32) -> Result<Vec<String>> {
        volume::beyond(&self.control, schema)
    }

    fn read_canary(&self, device: &DeviceInfo, limit: Duration) -> std::result::Result<(), String> {
        meet(Point::UpgradeCanary).map_err(|problem| problem.why)?;
        let path = Path::new("/dev").join(format!("atom{}", device.id));
        self.canary.read(&path, device.capacity_sectors, limit)
    }

    fn insert(&self, image: &[u8]) -> Result<()> {
        meet(Point::UpgradeInsert)?;
        kmod::insert(image, "")
    }

    fn remove(&self, module: &str) -> Result<()> {
        meet(Point::UpgradeRemove)?;
        kmod::remove(module)
    }

    fn is_loaded(&self, module: &str) -> Result<bool> {
        kmod::find(module).map(|found| found.is_some())
    }

    fn modules(&self) -> Result<Vec<Loaded>> {
        kmod::loaded()
    }

    fn build_id(&self, module: &str) -> Option<Vec<u8>> {
        kmod::build_id(module)
    }

    fn enter_critical(&self) -> Result<Critical> {
        meet(Point::UpgradeCritical)?;
        Critical::enter()
    }

    fn lock_memory(&self) -> Result<Locked> {
        Locked::enter()
    }

    fn claim(&self) -> Result<Claim> {
        meet(Point::UpgradeClaim)?;
        self.control.claim().ok_or_else(|| {
            Problem::refused(
                "What runs was not changed",
                "another atomctl is at work on it",
                "wait for its end; during its soak, atomctl commit and atomctl rollback end it; one that was \
                 killed is passed over by atomctl recover --force",
            )
        })
    }
}
