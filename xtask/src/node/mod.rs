// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Nodes: machines with a real Debian, systemd and sshd, as operators have them. Nothing of Atom is on one, but for
//! packages in a folder: it is installed as everywhere.
//!
//! - [`image`] makes the root file system, once;
//! - [`base`] tells its package managers what they cannot know;
//! - [`boot`] makes what it boots from, with what the host gives to it;
//! - [`keys`] lets the host in by ssh;
//! - [`packages`] makes what scenarios install.
//!
//! A scenario gets one with `Tools::Node`. For a fleet, [`Ground::prepare`] makes what all nodes share, and [`Node::boot`]
//! boots one after the other; they run beside each other until they are dropped.

mod base;
mod boot;
pub mod image;
pub mod keys;
pub mod packages;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use atom_tests::scenarios::Tools;

use crate::places;
use crate::sysroot::Sysroot;
use crate::vm::initramfs::Initramfs;
use crate::vm::{Vm, VmConfig};
use keys::Keys;

/// Where a node finds what the host has given to it.
pub use atom_tests::guest::node::HERE;

/// The folder of the clone with what nodes are made from.
fn folder() -> Result<PathBuf> {
    let dir = places::target().join("node");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// What nodes boot from.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The root file system that each gets an overlay of.
    pub image: PathBuf,
    /// The archives of the initramfs.
    pub archives: [PathBuf; 2],
    /// The keys of ssh.
    keys: Keys,
}

impl Parts {
    /// Makes what is missing. The files of the folder `packages` will be in `/packages` on each node.
    pub fn make(sysroot: &Sysroot, packages: Option<&Path>) -> Result<Self> {
        let image = image::get(sysroot)?;
        let keys = Keys::get(sysroot)?;
        let archives = boot::archives(sysroot, &keys, packages)?;
        Ok(Self { image, archives, keys })
    }
}

/// What all nodes of a fleet share.
pub struct Ground {
    sysroot: Sysroot,
    initramfs: Initramfs,
    keys: Keys,
}

impl Ground {
    /// Makes what is missing; see [`Parts::make`]. The programs have to be built.
    pub fn prepare(sysroot: &Sysroot, packages: Option<&Path>) -> Result<Self> {
        let parts = Parts::make(sysroot, packages)?;
        let keys = parts.keys.clone();
        Ok(Self { sysroot: sysroot.clone(), initramfs: Initramfs::of_nodes(parts), keys })
    }

    /// The keys that let the host in.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }
}

/// The machine that is wanted.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its folder below `target/vm`, and, with dashes, its host name.
    pub name: String,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// Its processors.
    pub vcpus: u32,
    /// Disks besides the root's, of so many MiB each: `/dev/vda`, `/dev/vdb` and so on.
    pub disks_mib: Vec<u64>,
    /// Whether its disks, with the root's, are those of the last machine of this name.
    pub keep_disks: bool,
}

impl NodeConfig {
    /// A node of a fleet: little memory, one processor, no disks.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            memory_mib: 640,
            vcpus: 1,
            disks_mib: Vec::new(),
            keep_disks: false,
        }
    }
}

/// A running node. It dies with this value.
pub struct Node {
    vm: Vm,
    ssh_port: u16,
}

impl Node {
    /// Boots one and waits for its agent. Its sshd may take longer.
    pub fn boot(ground: &Ground, config: &NodeConfig) -> Result<Self> {
        // Whoever takes the port in the moment between makes QEMU fail, and us with it.
        let ssh_port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let config = VmConfig {
            memory_mib: config.memory_mib,
            vcpus: config.vcpus,
            disks_mib: config.disks_mib.clone(),
            keep_disks: config.keep_disks,
            tools: Tools::Node,
            ssh_port: Some(ssh_port),
            ..VmConfig::named(&config.name)
        };
        let vm = Vm::boot(&ground.sysroot, &ground.initramfs, &config)?;
        Ok(Self { vm, ssh_port })
    }

    /// The machine, whose agent obeys.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// The port of 127.0.0.1 that leads to its sshd.
    pub fn ssh_port(&self) -> u16 {
        self.ssh_port
    }

    /// Has systemd turn it off, and waits until it has.
    pub fn poweroff(self) -> Result<()> {
        self.vm.poweroff()
    }
}
