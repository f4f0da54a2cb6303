// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Machines that are kept between commands, so that their Atom and their devices are too.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::Pid;

use super::initramfs::Initramfs;
use super::link::Link;
use super::served::Served;
use super::{qemu, Qemu, Vm, VmConfig, POWEROFF_LIMIT};
use crate::lock::{self, Lock};
use crate::places;
use crate::problem::failed;
use crate::sysroot::Sysroot;

/// A machine that is kept, by its name: it has a folder of its own, and there is at most one of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    name: &'static str,
    /// How it is stopped, for whom it does not answer.
    stop: &'static str,
}

/// The machine of `cargo xtask vm start`, which the verbs of `atomctl` use.
pub const SHELL: Kept = Kept { name: "background", stop: "cargo xtask vm stop" };
/// The machine of a long soak.
pub const SOAK: Kept = Kept { name: "soak", stop: "cargo xtask soak --stop" };

/// How long a machine that runs already may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A machine in the background, for one command at a time.
pub struct Background {
    /// The machine.
    pub vm: Vm,
    /// Whether this command started it.
    pub started: bool,
    _turn: Lock,
}

impl Kept {
    fn dir(self) -> PathBuf {
        places::target().join("vm").join(self.name)
    }

    fn turn(self) -> Result<Lock> {
        let dir = places::target().join("vm");
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        lock::take(&dir.join(format!("{}.turn", self.name)), "uses the background machine")
    }

    /// The machine's process, if it still runs.
    fn running(self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.dir().join("pid")).ok()?;
        let pid: i32 = text.trim().parse().ok()?;
        // The number may belong to somebody else by now.
        let argv = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        String::from_utf8_lossy(&argv).contains("/mnt/vm/link.sock").then_some(Pid::from_raw(pid))
    }

    /// Whether it runs.
    pub fn runs(self) -> bool {
        self.running().is_some()
    }

    /// Takes the machine that runs, or starts one; `prepare` makes what it boots from.
    pub fn take(
        self,
        sysroot: &Sysroot,
        prepare: impl FnOnce() -> Result<(Initramfs, VmConfig)>,
    ) -> Result<Background> {
        let turn = self.turn()?;
        if let Some(pid) = self.running() {
            return Ok(Background { vm: self.attach(pid)?, started: false, _turn: turn });
        }
        let (initramfs, config) = prepare()?;
        let config = VmConfig { name: self.name.to_owned(), ..config };
        let folder = qemu::prepare_dir(sysroot, qemu::Origin::Initramfs(&initramfs), &config)?;
        let dir = &folder.path;
        let command = qemu::command(sysroot, &config, dir, qemu::Use::InBackground)?;
        let log = std::fs::File::create(dir.join("qemu.log"))?;
        let child = command
            .command()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A process group of its own: an interrupt at our terminal is not meant for it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start QEMU: {command}"))?;
        places::write_whole(&dir.join("pid"), child.id().to_string().as_bytes())?;
        let hello = (super::Hello::Comes, super::BOOT_LIMIT);
        let mut vm = Vm::meet(Qemu::Ours(child), folder, Served::none(), sysroot, hello)?;
        vm.keep()?;
        Ok(Background { vm, started: true, _turn: turn })
    }

    fn attach(self, pid: Pid) -> Result<Vm> {
        let dir = self.dir();
        let link = Link::connect(&dir)?;
        link.ask_hello(ANSWER_LIMIT).map_err(|error| {
            failed(
                "the background machine does not answer",
                format!("{error:#}"),
                format!("stop it with `{}` and start it again", self.stop),
            )
        })?;
        Ok(Vm {
            qemu: Qemu::Background(pid),
            folder: qemu::Folder::of_running(dir),
            link,
            served: Served::none(),
            poweroff_limit: POWEROFF_LIMIT,
            patience: 1,
        })
    }

    /// Stops the machine; false when none runs.
    pub fn stop(self) -> Result<bool> {
        let _turn = self.turn()?;
        let Some(pid) = self.running() else {
            return Ok(false);
        };
        let ended = self.attach(pid).and_then(Vm::poweroff);
        if let Err(error) = ended {
            eprintln!("the background machine is killed, because it did not stop: {error:#}");
            Qemu::Background(pid).kill();
        }
        Ok(true)
    }
}
