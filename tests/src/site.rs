// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A machine with Atom on it: modules in, volumes up, upgrades, and everything out again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use atom_abi::control::outcome;
use atomctl::kmod;
use atomctl::module_file::ModuleFile;
use atomctl::node::{Local, Node};
use atomctl::places::Places;
use atomctl::report::{Mode, Outcome, UpgradeReport};
use atomctl::upgrade::{self, insert_payload, registered, Options};
use atomctl::volume::machine;
use atomctl::volume::{self, Create, Kind};

use crate::patience;

/// Where the modules are on a guest.
pub const MODULES: &str = "/lib/atom";

/// What the version of the template begins with.
const TEMPLATE: &str = "template-";

/// What the version of a test variant begins with.
const VARIANT: &str = "9.0.0-";

/// What a volume is to be; zeroes leave the choice to the payload.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub kind: Kind,
    pub bytes: u64,
    pub hw_queues: u16,
    pub queue_depth: u16,
    pub polled: bool,
}

impl Spec {
    /// A volume in memory.
    pub const fn ram(mib: u64) -> Self {
        Self { kind: Kind::Ram, bytes: mib << 20, hw_queues: 0, queue_depth: 0, polled: false }
    }

    /// A volume that keeps nothing.
    pub const fn null(mib: u64) -> Self {
        Self { kind: Kind::Null, ..Self::ram(mib) }
    }

    /// The same with queues of this depth.
    pub const fn depth(self, queue_depth: u16) -> Self {
        Self { queue_depth, ..self }
    }
}

/// A machine with Atom loaded.
pub struct Site {
    node: Local,
    modules: PathBuf,
    deadline: Duration,
}

impl Site {
    /// Loads Atom from the folder `modules`, and the payload of `version`, and lets it adopt.
    pub fn start(modules: &Path, version: &str) -> Result<Self> {
        let atom = modules.join("atom.ko");
        let image = std::fs::read(&atom).with_context(|| format!("no {}", atom.display()))?;
        kmod::insert(&image, "")?;
        let site = Self {
            node: Local::open()?,
            modules: modules.to_owned(),
            deadline: patience::scaled(Duration::from_secs(10)),
        };
        let id = site.insert(&site.file(version))?;
        site.adopt(id)?;
        Ok(site)
    }

    /// The same on a guest.
    pub fn on_guest(version: &str) -> Result<Self> {
        Self::start(Path::new(MODULES), version)
    }

    /// What upgrades work on.
    pub fn node(&self) -> &Local {
        &self.node
    }

    /// The file of a payload: a release, the template, or a test variant by its version or by what its version ends with.
    pub fn file(&self, version: &str) -> PathBuf {
        let module = module_of(version);
        let test = module.starts_with("payload_t");
        self.modules.join(format!("{}{module}.ko", if test { "test/" } else { "" }))
    }

    /// Inserts a payload and returns its identity.
    pub fn insert(&self, file: &Path) -> Result<u32> {
        let module = ModuleFile::read(file).map_err(|why| anyhow::anyhow!("{why}"))?;
        Ok(insert_payload(&self.node, &module)?)
    }

    /// Inserts a payload with module parameters, as `fault_step=7 fault_times=1`, and returns its identity.
    pub fn insert_with(&self, file: &Path, params: &str) -> Result<u32> {
        let module = ModuleFile::read(file).map_err(|why| anyhow::anyhow!("{why}"))?;
        kmod::insert(&module.bytes, params)
            .with_context(|| format!("{} with {params:?}", file.display()))?;
        let payloads = self.node.payloads()?;
        let payload = registered(&payloads, &module);
        Ok(payload.with_context(|| format!("{} did not register", file.display()))?.id)
    }

    /// Whether the tree that the guest was made from has this payload.
    pub fn has(&self, version: &str) -> bool {
        self.file(version).exists()
    }

    /// Lets a payload adopt.
    pub fn adopt(&self, id: u32) -> Result<()> {
        let report = self.node.adopt(id)?;
        ensure!(report.outcome == outcome::DONE, "adopt: {}", report.refusal);
        Ok(())
    }

    /// Creates a volume with blocks of 4 KiB and returns the path of its device.
    pub fn volume(&self, name: &str, spec: Spec) -> Result<String> {
        self.volume_of_blocks(name, spec, 4096)
    }

    /// The same with blocks of that size.
    pub fn volume_of_blocks(&self, name: &str, spec: Spec, block_bytes: u32) -> Result<String> {
        let device = volume::create(
            self.node.control(),
            &Create {
                name: volume::name(name)?,
                kind: spec.kind,
                bytes: spec.bytes,
                block_bytes,
                hw_queues: spec.hw_queues,
                queue_depth: spec.queue_depth,
                polled: spec.polled,
            },
        )?;
        let path = format!("/dev/atom{device}");
        // The kernel makes the node before it returns.
        ensure!(Path::new(&path).exists(), "there is no {path}");
        // As `atomctl` does: the first open reads the partition table, and would wait while I/O is held.
        std::fs::File::open(&path)?;
        Ok(path)
    }

    /// Removes a volume.
    pub fn destroy(&self, name: &str) -> Result<()> {
        Ok(volume::destroy(self.node.control(), &machine::Local, volume::name(name)?)?)
    }

    /// Whether Atom knows a payload of this version.
    pub fn knows(&self, version: &str) -> Result<bool> {
        Ok(self.node.payloads()?.iter().any(|payload| payload.version.as_str() == version))
    }

    /// Version of the live payload; empty when none is.
    pub fn live(&self) -> Result<String> {
        let status = self.node.status()?;
        let payloads = self.node.payloads()?;
        let live = payloads.iter().find(|payload| payload.id == status.live);
        Ok(live.map(|payload| payload.version.as_str().to_owned()).unwrap_or_default())
    }

    /// Requests that the live payload has taken and not ended, of all devices together.
    pub fn owed(&self) -> Result<u32> {
        Ok(self.node.control().devices()?.iter().map(|device| device.owed).sum())
    }

    /// Upgrades to the payload in `file`, whatever comes of it.
    pub fn try_upgrade(
        &self,
        file: &Path,
        mode: Mode,
        deadline: Duration,
    ) -> Result<UpgradeReport> {
        self.try_upgrade_on(&self.node, file, mode, deadline)
    }

    fn try_upgrade_on<N: Node>(
        &self,
        node: &N,
        file: &Path,
        mode: Mode,
        deadline: Duration,
    ) -> Result<UpgradeReport> {
        let options = Options { deadline, ..self.options(mode)? };
        Ok(upgrade::run(node, file, &options)?)
    }

    /// How an upgrade is made where nothing else is said.
    pub fn options(&self, mode: Mode) -> Result<Options> {
        let mut folders = vec![self.modules.clone(), self.modules.join("test")];
        folders.extend(Places::standard(&self.node.release()?).folders().iter().cloned());
        let places = Places::of(folders);
        Ok(Options { mode, deadline: self.deadline, keep_parked: false, old: None, places })
    }

    /// With another deadline for handoffs, in the time of the stock kernel.
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline: patience::scaled(deadline), ..self }
    }

    /// Upgrades to `version`; anything but a commit is an error.
    pub fn upgrade(&self, version: &str, mode: Mode) -> Result<UpgradeReport> {
        self.upgrade_on(&self.node, version, mode)
    }

    /// The same on this machine as somebody else presents it.
    pub fn upgrade_on<N: Node>(
        &self,
        node: &N,
        version: &str,
        mode: Mode,
    ) -> Result<UpgradeReport> {
        let from = self.live()?;
        let report = self.try_upgrade_on(node, &self.file(version), mode, self.deadline)?;
        ensure!(
            report.outcome == Outcome::Committed && report.warnings.is_empty(),
            "the {mode} upgrade from {from} to {version}: {report:?}"
        );
        let live = self.live()?;
        ensure!(live == report.to && live != from, "{live} is live, not {version}");
        let (old, new) = (module_of(&from), module_of(version));
        ensure!(kmod::find(&old)?.is_none(), "{old} is still loaded");
        ensure!(kmod::find(&new)?.is_some(), "{new} is not loaded");
        Ok(report)
    }

    /// Removes volumes, payload and Atom, in order, and looks whether anything is left.
    pub fn leave(self) -> Result<()> {
        for entry in volume::list(self.node.control())? {
            self.destroy(&entry.name)?;
        }
        self.leave_without_volumes()
    }

    /// The same for a payload that knows nothing of volumes, and has no device any more.
    pub fn leave_without_volumes(self) -> Result<()> {
        let report = self.node.abandon(0, self.deadline)?;
        ensure!(report.outcome == outcome::DONE, "abandon: {}", report.refusal);
        for payload in self.node.payloads()? {
            kmod::remove(payload.module.as_str())?;
        }
        let Self { node, .. } = self;
        drop(node);
        kmod::remove("atom")?;
        let left = leftovers()?;
        if !left.is_empty() {
            bail!("left behind: {}", left.join(", "));
        }
        Ok(())
    }
}

/// The name of the module of a payload version.
fn module_of(version: &str) -> String {
    let variant = version.strip_prefix(VARIANT).unwrap_or(version);
    let plain = variant.replace(['.', '-'], "_");
    match variant.bytes().next().is_some_and(|first| first.is_ascii_digit()) {
        true => format!("payload_{plain}"),
        false if variant.starts_with(TEMPLATE) => format!("payload_{plain}"),
        false => format!("payload_test_{plain}"),
    }
}

/// What there is of Atom on the machine.
fn leftovers() -> Result<Vec<String>> {
    let mut left = Vec::new();
    for folder in ["/dev", "/sys/block", "/sys/class/misc", "/sys/module"] {
        for entry in std::fs::read_dir(folder)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with("atom") && name != "atomic" || name.starts_with("payload_") {
                left.push(format!("{folder}/{name}"));
            }
        }
    }
    Ok(left)
}
