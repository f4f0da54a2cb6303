// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the kernel does for an upgrade fails: allocations of objects and of pages, and bios, in the task that carries it out.
//! Each upgrade either succeeds or leaves the old payload serving, a retry succeeds, and data is right.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{bail, ensure, Result};
use atom_payload::spec::Layout;
use atomctl::kmod;
use atomctl::node::Node as _;
use atomctl::report::{Mode, Outcome, UpgradeReport};
use nix::fcntl::OFlag;
use serde_json::json;

use super::Context;
use crate::composed::{self, Target};
use crate::injection::{self, Armed, Fault};
use crate::load::fio::{Fio, Shape};
use crate::patience;
use crate::random::Random;
use crate::site::{Site, Spec};

/// The releases between which it goes.
const VERSIONS: [&str; 2] = ["2.0.0", "2.1.0"];
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

/// Upgrades with a fault, of each mode, when time is short. Then they are spread over all things that can fail.
const FEW: u32 = 12;
/// More than there are things that can fail in an upgrade.
const MANY: u32 = 1_000_000;

const DISK: &str = "vda";
const BYTES: usize = 1 << 20;

/// A site under load, and where it is.
struct Ground {
    site: Site,
    loads: Vec<Fio>,
    done: u32,
    undone: u32,
}

impl Ground {
    fn new() -> Result<Self> {
        let site = Site::on_guest(VERSIONS[0])?;
        let shape = Shape { depth: 8, bytes: 4 << 20, verify: true };
        let ram = site.volume("ram", Spec::ram(16).depth(8))?;
        let targets = [Target::ram(16), Target::ram(16)];
        let striped = composed::create(&site, "striped", composed::stripe(64), &targets)?;
        let loads = vec![Fio::start(&ram, shape)?, Fio::start(&striped.device, shape)?];
        Ok(Self { site, loads, done: 0, undone: 0 })
    }

    /// The release that is not live.
    fn other(&self) -> Result<&'static str> {
        let live = self.site.live()?;
        Ok(if live == VERSIONS[0] { VERSIONS[1] } else { VERSIONS[0] })
    }

    fn attempt(&self, mode: Mode) -> Result<Attempt> {
        let (from, to) = (self.site.live()?, self.other()?);
        let file = self.site.file(to);
        Ok(Attempt { from, to, file, mode })
    }

    /// One payload serves and nothing is held, the tool has told the truth, and a retry succeeds.
    fn judge(&mut self, attempt: &Attempt, result: Result<UpgradeReport>) -> Result<()> {
        let Attempt { from, to, mode, .. } = attempt;
        let status = self.site.node().status()?;
        ensure!(status.place == 1 && status.held_ns == 0, "{status:?} after {result:?}");
        let live = self.site.live()?;
        let told = result.as_ref().ok().map(|report| report.outcome);
        let done = match told {
            Some(Outcome::Committed | Outcome::Switched) => true,
            Some(Outcome::RolledBack | Outcome::Aborted | Outcome::Refused) => false,
            Some(Outcome::Held) => bail!("held after one fault: {result:?}"),
            None => live == *to,
        };
        ensure!(live == if done { *to } else { from.as_str() }, "{live} serves after {result:?}");
        if done {
            self.done += 1
        } else {
            self.undone += 1
        }
        self.loads.iter_mut().try_for_each(Fio::check)?;
        self.tidy_up(&live)?;
        if !done {
            self.site.upgrade(to, *mode)?;
        }
        self.loads.iter_mut().try_for_each(Fio::check)
    }

    /// Unloads what could not be unloaded in the attempt.
    fn tidy_up(&self, live: &str) -> Result<()> {
        for payload in self.site.node().payloads()? {
            if payload.version.as_str() != live {
                kmod::remove(payload.module.as_str())?;
            }
        }
        Ok(())
    }

    fn leave(self, context: &mut Context) -> Result<()> {
        context.fact("upgrades", json!({"done": self.done, "undone": self.undone}));
        context.fact("verified_ios", Fio::stop_all(self.loads)?.ios);
        self.site.leave()
    }
}

/// An upgrade that is about to be tried.
struct Attempt {
    from: String,
    to: &'static str,
    file: std::path::PathBuf,
    mode: Mode,
}

impl Attempt {
    fn run(&self, site: &Site) -> Result<UpgradeReport> {
        site.try_upgrade(&self.file, self.mode, patience::scaled(DEADLINE))
    }
}

/// What Atom allocates, and a payload that Atom has called.
pub fn an_upgrade_outlives_each_allocation_that_fails(context: &mut Context) -> Result<()> {
    let mut ground = Ground::new()?;
    let atom = injection::code_of("atom")?;
    for mode in [Mode::Warm, Mode::Cold] {
        let armed = Armed::new(&[Fault::Slab, Fault::Pages], Some(&atom))?;
        let attempt = ground.attempt(mode)?;
        let (result, left) = injection::nth(MANY, || attempt.run(&ground.site))?;
        ground.judge(&attempt, result)?;
        let allocations = MANY - left;
        ensure!(allocations > 0, "Atom allocates nothing in a {mode} upgrade");
        context.fact(&format!("{mode}_allocations"), allocations);
        let rounds = if context.is_slow() { allocations } else { allocations.min(FEW) };
        for round in 0..rounds {
            let number = 1 + round * allocations / rounds;
            context.step(&format!("{mode}, allocation {number} of {allocations}"));
            let attempt = ground.attempt(mode)?;
            let (result, left) = injection::nth(number, || attempt.run(&ground.site))?;
            // An upgrade is not the same each time, and the last ones may not come.
            ensure!(left == 0 || number > allocations / 2, "allocation {number} did not come");
            ground.judge(&attempt, result)?;
        }
        drop(armed);
    }
    ensure!(ground.undone > 0, "no upgrade failed");
    ground.leave(context)
}

/// What the kernel allocates for the task: modules, files, page tables, the processes' own memory.
pub fn an_upgrade_outlives_any_allocation_of_its_task_that_fails(
    context: &mut Context,
) -> Result<()> {
    let mut ground = Ground::new()?;
    let mut random = Random::new(crate::random::seed()?);
    let rounds = if context.is_slow() { 10 * FEW } else { FEW };
    for mode in [Mode::Warm, Mode::Cold] {
        let armed = Armed::new(&[Fault::Slab, Fault::Pages], None)?;
        let attempt = ground.attempt(mode)?;
        let (result, left) = injection::nth(MANY, || attempt.run(&ground.site))?;
        ground.judge(&attempt, result)?;
        let allocations = MANY - left;
        context.fact(&format!("{mode}_allocations"), allocations);
        for _ in 0..rounds {
            let number = 1 + random.below(u64::from(allocations)) as u32;
            context.step(&format!("{mode}, allocation {number} of {allocations}"));
            let attempt = ground.attempt(mode)?;
            let (result, _) = injection::nth(number, || attempt.run(&ground.site))?;
            ground.judge(&attempt, result)?;
        }
        drop(armed);
    }
    ground.leave(context)
}

/// Bios of the task at the disk of a volume. Those of others, as of the load, do not fail.
pub fn an_upgrade_outlives_bios_of_its_task_that_fail(context: &mut Context) -> Result<()> {
    let mut ground = Ground::new()?;
    let disk = format!("/dev/{DISK}");
    let volume =
        composed::create(&ground.site, "disk", Layout::Linear, &[Target::bdev(&disk)])?.device;
    let written = content(&mut Random::new(crate::random::seed()?));
    fs::OpenOptions::new().write(true).open(&volume)?.write_all(&written)?;
    context.run(&["sync", &volume])?;
    injection::fail_disk(DISK, true)?;
    let armed = Armed::new(&[Fault::Bio], None)?;
    armed.always()?;
    // It is alive: a read of this task fails at the disk.
    ensure!(injection::doomed(|| read(&disk))?.is_err(), "{disk} was read");
    ensure!(read(&disk).is_ok(), "{disk} is not read by others");
    for round in 0..FEW {
        for mode in [Mode::Warm, Mode::Cold] {
            context.step(&format!("{mode} upgrade {round}"));
            let attempt = ground.attempt(mode)?;
            let result = injection::doomed(|| attempt.run(&ground.site))?;
            ground.judge(&attempt, result)?;
        }
    }
    drop(armed);
    injection::fail_disk(DISK, false)?;
    ensure!(read(&volume)? == written, "the volume has not what was written");
    ground.leave(context)
}

fn content(random: &mut Random) -> Vec<u8> {
    (0..BYTES / 8).flat_map(|_| random.number().to_le_bytes()).collect()
}

/// The first bytes, from the device itself and not from the page cache.
fn read(device: &str) -> Result<Vec<u8>> {
    let mut file =
        fs::OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECT.bits()).open(device)?;
    let mut aligned = Box::new(Aligned([0; BYTES]));
    file.read_exact(&mut aligned.0)?;
    Ok(aligned.0.to_vec())
}

/// Memory that a disk can be read into.
#[repr(align(4096))]
struct Aligned([u8; BYTES]);
