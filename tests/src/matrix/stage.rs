// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The machine that cells run on, one after the other: Atom, two payloads with failpoints, disks and a server.

use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atom_abi::control::payload_state;
use atom_abi::lifecycle::Place;
use atom_payload::spec::Layout;
use atomctl::kmod;
use atomctl::node::Node;
use atomctl::report::Mode;

use super::axes::{Cell, Direction, Fault, Volume};
use super::{points, rules};
use crate::composed::{self, stripe, Target};
use crate::failpoint;
use crate::guest::kmsg;
use crate::kernel_log;
use crate::leaks;
use crate::relay::Relay;
use crate::server::{self, At, Server};
use crate::site::{Site, Spec};

/// The older and the newer version.
const VERSIONS: [&str; 2] = ["2.0.0", "2.1.0"];
/// The volume of a cell.
pub const NAME: &str = "cell";
/// Its queues: shorter than the load wants.
const DEPTH: u16 = 8;
/// MiB of it.
const MIB: u64 = 16;
/// Kernel memory in KiB that may be gone with each cell: less than a page for each request of the load.
const GROWTH_KIB: u64 = 32;
/// What the kernel's caches come and go by, in KiB.
const SLACK_KIB: u64 = 4096;
/// Cells before the first look at the memory.
const WARM_UP: u64 = 5;

/// The machine.
pub struct Stage {
    pub site: Site,
    pub folder: &'static str,
    pub server: Server,
    /// Between the volume of a cell and the server.
    pub relay: Relay,
    /// Lines of the kernel's log that were judged.
    judged: usize,
    cells: u64,
    early_kib: u64,
}

/// What there is before a cell, and must be there after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct There {
    payloads: usize,
    devices: usize,
    preserved: u32,
    descriptors: usize,
    tools: usize,
}

impl Stage {
    /// Loads everything.
    pub fn start() -> Result<Self> {
        let folder = failpoint::MODULES;
        let site = Site::start(Path::new(folder), VERSIONS[0])?;
        let file = server::file("matrix.img", MIB)?;
        let file = file.display().to_string();
        let server = Server::nbdkit_unseen("matrix", At::free_port()?, &["file", &file])?;
        let relay = Relay::start(server.at().port()?)?;
        let judged = kmsg::read()?.lines().count();
        Ok(Self { site, folder, server, relay, judged, cells: 0, early_kib: 0 })
    }

    /// The faults that the loaded modules list.
    pub fn faults(&self) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        for module in self.points_of()? {
            faults.extend(points::faults(&module)?);
        }
        faults.sort();
        faults.dedup();
        Ok(faults)
    }

    /// The modules with failpoints that are loaded.
    pub fn points_of(&self) -> Result<Vec<String>> {
        let mut modules = vec!["atom".to_owned()];
        for payload in self.site.node().payloads()? {
            modules.push(payload.module.as_str().to_owned());
        }
        modules.retain(|module| points::has(module));
        Ok(modules)
    }

    /// No point does anything any more, and nobody hangs.
    pub fn disarm(&self) -> Result<()> {
        self.points_of()?.iter().try_for_each(|module| failpoint::off(module))
    }

    /// The versions from which and to which a cell goes.
    pub fn versions(direction: Direction) -> (&'static str, &'static str) {
        match direction {
            Direction::Up => (VERSIONS[0], VERSIONS[1]),
            Direction::Down => (VERSIONS[1], VERSIONS[0]),
        }
    }

    /// The modules that somebody may try to unload: both payloads, and Atom below them.
    pub fn modules(&self) -> Vec<CString> {
        let payloads = VERSIONS.map(|version| format!("payload_{}", version.replace('.', "_")));
        payloads
            .into_iter()
            .chain(["atom".to_owned()])
            .filter_map(|name| CString::new(name).ok())
            .collect()
    }

    /// The file of a version, as `atomctl` wants it.
    pub fn file(&self, version: &str) -> String {
        self.site.file(version).display().to_string()
    }

    /// Lets a version serve, alone.
    pub fn serve(&self, version: &str) -> Result<()> {
        self.tidy()?;
        if self.site.live()? != version {
            self.site.upgrade(version, Mode::Warm)?;
        }
        Ok(())
    }

    /// Unloads the payloads that do not serve.
    pub fn tidy(&self) -> Result<()> {
        let live = self.site.node().status()?.live;
        for payload in self.site.node().payloads()? {
            if payload.id != live {
                kmod::remove(payload.module.as_str())?;
            }
        }
        Ok(())
    }

    /// How the volume of a cell comes to the server.
    pub fn way_to_server(&self, cell: &Cell) -> At {
        match rules::needs_a_relay(cell) {
            true => At::Port(self.relay.port()),
            false => self.server.at().clone(),
        }
    }

    /// Makes a volume, over this way to the server, and returns its device.
    pub fn volume(&self, kind: Volume, name: &str, server: &At) -> Result<String> {
        let disks = [Target::bdev("/dev/vda").mib(MIB / 2), Target::bdev("/dev/vdb").mib(MIB / 2)];
        let made = |layout, targets: &[Target]| -> Result<String> {
            Ok(composed::create_of_depth(&self.site, name, layout, targets, DEPTH)?.device)
        };
        match kind {
            Volume::Ram => self.site.volume(name, Spec::ram(MIB).depth(DEPTH)),
            Volume::Linear => made(Layout::Linear, &disks),
            Volume::Stripe => made(stripe(64), &disks),
            Volume::Nbd => {
                let server = Target::nbd(server, "").connections(2);
                made(Layout::Linear, &[server.retries_each(Duration::from_millis(200))])
            }
        }
    }

    /// Whether a payload is dead.
    pub fn is_dead(&self, version: &str) -> Result<bool> {
        let payloads = self.site.node().payloads()?;
        let mut theirs = payloads.iter().filter(|payload| payload.version.as_str() == version);
        Ok(theirs.any(|payload| payload.state == payload_state::DEAD))
    }

    /// Whether a payload serves and no I/O is held.
    pub fn serves(&self) -> Result<bool> {
        let status = self.site.node().status()?;
        Ok(status.place == Place::Live.code() && status.held_ns == 0)
    }

    /// What there is now.
    pub fn there(&self) -> Result<There> {
        let status = self.site.node().status()?;
        Ok(There {
            payloads: kmod::loaded()?.iter().filter(|one| one.name.starts_with("payload_")).count(),
            devices: self.site.node().devices()?.len(),
            preserved: status.preserved,
            descriptors: fs::read_dir("/proc/self/fd")?.count(),
            tools: processes_called("atomctl")?,
        })
    }

    /// What the kernel has said since the last look, and must not have.
    pub fn complaints(&mut self, cell: &Cell) -> Result<Vec<String>> {
        let log = kmsg::read()?;
        let lines: Vec<&str> = log.lines().collect();
        let fresh = lines.get(self.judged..).unwrap_or(&lines).join("\n");
        self.judged = lines.len();
        let mut allowed = Vec::new();
        if cell.fault.kind == "oops" {
            allowed.push("oops in atom_failpoint_oops");
        }
        let findings = kernel_log::scan(&fresh, &allowed);
        Ok(findings
            .into_iter()
            .map(|finding| format!("{} ({})", finding.text, finding.meaning))
            .collect())
    }

    /// A cell has passed. An error when kernel memory went with each one so far. A kernel that looks for leaks itself keeps what is
    /// freed, and records of all that is not, so that its memory says nothing.
    pub fn passed(&mut self) -> Result<()> {
        if leaks::are_found() {
            return Ok(());
        }
        self.cells += 1;
        let now = kernel_kib()?;
        if self.cells <= WARM_UP {
            self.early_kib = self.early_kib.max(now);
        }
        let most = self.early_kib + SLACK_KIB + self.cells * GROWTH_KIB;
        ensure!(
            now < most,
            "kernel memory grew from {} to {now} KiB in {} cells",
            self.early_kib,
            self.cells
        );
        Ok(())
    }
}

/// Memory of the kernel that nobody can take from it.
fn kernel_kib() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("SUnreclaim:"));
    let number = line.and_then(|line| line.split_whitespace().next()).context("no SUnreclaim")?;
    Ok(number.parse()?)
}

fn processes_called(name: &str) -> Result<usize> {
    let called = |entry: std::io::Result<fs::DirEntry>| {
        let comm = fs::read_to_string(entry.ok()?.path().join("comm")).ok()?;
        (comm.trim() == name).then_some(())
    };
    Ok(fs::read_dir("/proc")?.filter_map(called).count())
}
