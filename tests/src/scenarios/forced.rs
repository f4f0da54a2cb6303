// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Modules that somebody removes by force, as `rmmod -f` does where the kernel has `CONFIG_MODULE_FORCE_UNLOAD`.

use std::ffi::CString;
use std::fs::{self, File};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{anyhow, ensure, Result};
use atom_abi::control::outcome;
use atomctl::kmod;
use atomctl::node::Node;
use atomctl::report::Mode;
use nix::errno::Errno;
use nix::kmod::{delete_module, DeleteModuleFlags};

use super::Context;
use crate::load::fio::{Fio, Shape};
use crate::queue;
use crate::site::{Site, Spec};
use crate::wait;

const PATIENCE: Duration = Duration::from_secs(30);
const SHAPE: Shape = Shape { depth: 32, bytes: 16 << 20, verify: true };

pub fn a_module_that_is_removed_by_force_goes_when_nobody_needs_it(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let device = site.volume("data", Spec::ram(16))?;

    context.step("Atom below a payload");
    let refused = force("atom");
    ensure!(refused == Err(Errno::EAGAIN), "Atom, which a payload uses: {refused:?}");

    for (from, to, mode) in [("1.0.0", "1.1.0", Mode::Warm), ("1.1.0", "1.2.0", Mode::Cold)] {
        let module = format!("payload_{}", from.replace('.', "_"));
        context.step(&format!("{from}, which is live, and then {to}, {mode}"));
        let mut load = Fio::start(&device, SHAPE)?;
        let removal = in_the_background(&module)?;
        load.check()?;
        ensure!(site.live()? == from, "{} serves", site.live()?);
        let busy = force(&module);
        ensure!(busy == Err(Errno::EBUSY), "{module} once more: {busy:?}");
        let before = queue::stat(&device)?.requests();
        wait::until("it serves on", PATIENCE, || {
            Ok(queue::stat(&device)?.requests() > before + 200)
        })?;
        ensure!(kmod::is_going(&module)? && !removal.is_finished(), "{module} is gone");
        site.upgrade(to, mode)?;
        removed(removal, &module)?;
        let done = load.stop()?;
        ensure!(done.errors == 0 && done.ios > 0, "{done:?}");
    }

    context.step("a payload that nobody needs");
    let parked = site.insert(&site.file("1.1.0"))?;
    force("payload_1_1_0").map_err(|errno| anyhow!("it was refused: {errno}"))?;
    ensure!(kmod::find("payload_1_1_0")?.is_none(), "it is still there");
    ensure!(site.node().payloads()?.iter().all(|one| one.id != parked), "Atom still knows it");

    context.step("Atom with an open device and no payload");
    let open = File::open(&device)?;
    let report = site.node().abandon(0, PATIENCE)?;
    ensure!(report.outcome == outcome::DONE, "abandon: {}", report.refusal);
    kmod::remove("payload_1_2_0")?;
    let removal = in_the_background("atom")?;
    ensure!(File::open(&device).is_err(), "a device of a module that goes was opened");
    drop(open);
    ensure!(!removal.is_finished(), "somebody has its control device, and it is gone");
    drop(site);
    removed(removal, "atom")?;
    ensure!(fs::metadata(&device).is_err(), "{device} is still there");
    Ok(())
}

/// What `rmmod -f` does.
fn force(module: &str) -> nix::Result<()> {
    let flags = DeleteModuleFlags::O_NONBLOCK | DeleteModuleFlags::O_TRUNC;
    delete_module(&CString::new(module).map_err(|_| Errno::EINVAL)?, flags)
}

/// Removes a module by force, and returns once the kernel has begun with it.
fn in_the_background(module: &str) -> Result<JoinHandle<nix::Result<()>>> {
    let name = module.to_owned();
    let removal =
        std::thread::Builder::new().name("rmmod".to_owned()).spawn(move || force(&name))?;
    wait::until("the kernel removes it", PATIENCE, || {
        Ok(kmod::is_going(module)? || removal.is_finished())
    })?;
    Ok(removal)
}

/// The removal comes to its end, and the module is gone.
fn removed(removal: JoinHandle<nix::Result<()>>, module: &str) -> Result<()> {
    wait::until("the removal ends", PATIENCE, || Ok(removal.is_finished()))?;
    let ended = removal.join().map_err(|_| anyhow!("the removal panicked"))?;
    ended.map_err(|errno| anyhow!("{module} was not removed: {errno}"))?;
    ensure!(kmod::find(module)?.is_none(), "{module} is still there");
    Ok(())
}
