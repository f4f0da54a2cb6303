// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Machines that go on from the memory of one that has booted, for those who need hundreds of a kind: it takes a second instead of five.
//!
//! They are the same machine, again and again: also their random numbers are, at first. So what leaves anything to chance has to boot.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use atom_tests::scenarios::Tools;

use super::qemu::{self, Folder, Origin, Use};
use super::served::Served;
use super::{link, Hello, Qemu, Vm, VmConfig};
use crate::problem::failed;
use crate::sysroot::Sysroot;

/// How long QEMU may take to write a memory, or to read it.
const LIMIT: Duration = Duration::from_secs(60);

/// The memory of a machine right after its agent has said hello. It is deleted with this value.
pub struct Saved {
    config: VmConfig,
    /// Nobody else has it meanwhile.
    folder: Folder,
}

impl Saved {
    /// Saves a machine that has just booted, and ends it. `config` is its own. It must have nothing but its memory and empty disks.
    pub fn save(mut vm: Vm, config: &VmConfig) -> Result<Self> {
        let more = config.server_mib > 0 || config.ssh_port.is_some() || config.will_be_cut;
        let more = more || config.keep_disks || config.tools == Tools::Node;
        ensure!(!more, "the machine {} has more than its memory and empty disks", config.name);
        let commands = format!(
            "migrate_set_parameter max-bandwidth 100G\nmigrate file:/mnt/vm/{}\nquit\n",
            qemu::MEMORY
        );
        let _monitor = link::monitor(vm.dir(), &commands).context("no monitor")?;
        let deadline = Instant::now() + LIMIT * vm.patience;
        while vm.qemu.end()?.is_none() {
            ensure!(
                Instant::now() < deadline,
                "QEMU does not end after it was to save {}",
                config.name
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        let nowhere = Folder::of_running(PathBuf::new());
        let saved =
            Self { config: config.clone(), folder: std::mem::replace(&mut vm.folder, nowhere) };
        if !saved.memory().exists() {
            return Err(failed(
                format!("the machine {} was not saved", config.name),
                "QEMU has written no memory",
                format!("read qemu.log in {}", saved.folder.path.display()),
            ));
        }
        Ok(saved)
    }

    /// Starts a machine of this name that goes on from the memory, with empty disks.
    pub fn go_on(&self, sysroot: &Sysroot, name: &str) -> Result<Vm> {
        let config = VmConfig { name: name.to_owned(), ..self.config.clone() };
        let folder = qemu::prepare_dir(sysroot, Origin::Memory(&self.memory()), &config)?;
        let command = qemu::command(sysroot, &config, &folder.path, Use::GoesOn)?;
        let qemu = Qemu::start(&command, &folder)?;
        Vm::meet(qemu, folder, Served::none(), sysroot, (Hello::IsAsked, LIMIT))
    }

    fn memory(&self) -> PathBuf {
        self.folder.path.join(qemu::MEMORY)
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        // What cannot be deleted costs space and nothing else.
        let _ = std::fs::remove_file(self.memory());
    }
}
