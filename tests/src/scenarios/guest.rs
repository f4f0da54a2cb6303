// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What scenarios need of the guest beside Atom: a loopback, a disk of somebody else, modules by name.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atomctl::kmod;
use nix::mount::{mount, umount, MsFlags};

use super::Context;
use crate::echo::{Echo, Seen};
use crate::site::Site;
use crate::spare::{self, Spare};
use crate::wait;

const PATIENCE: Duration = Duration::from_secs(10);

pub fn the_guest_has_a_loopback_a_spare_disk_and_modules_by_name(
    context: &mut Context,
) -> Result<()> {
    context.step("a connection over the loopback");
    let echo = Echo::start()?;
    let mut peer = TcpStream::connect((Ipv4Addr::LOCALHOST, echo.port()))?;
    peer.write_all(b"there")?;
    let mut back = [0; 5];
    peer.read_exact(&mut back)?;
    ensure!(&back == b"there", "{back:?} came back");
    let port = peer.local_addr()?.port();
    drop(peer);
    wait::until("the server sees the end", PATIENCE, || Ok(echo.disconnects() == 1))?;
    let seen = echo.stop()?;
    ensure!(seen == [Seen::Accepted(port), Seen::Disconnected(port)], "{seen:?}");

    context.step("a disk that the kernel holds for itself");
    let spare = Spare::create(16)?;
    ensure!(!spare.is_held()?, "somebody holds it");
    context.run(&["mkfs.ext4", "-q", spare.device()])?;
    std::fs::create_dir_all("/mnt/spare")?;
    let none = MsFlags::empty();
    mount(Some(spare.device()), "/mnt/spare", Some("ext4"), none, None::<&str>)?;
    ensure!(spare.is_held()?, "the kernel does not hold what it has mounted");
    ensure!(spare::exclusive(spare.device()).is_err(), "there are two holders");
    umount("/mnt/spare")?;
    ensure!(!spare.is_held()?, "it is still held");
    spare.remove()?;

    context.step("a payload that the kernel itself asks for");
    let site = Site::on_guest("1.0.0")?;
    asked_for_by_the_kernel("payload_1_1_0")?;
    ensure!(site.knows("1.1.0")?, "it did not register");
    kmod::remove("payload_1_1_0")?;
    site.leave()
}

/// The kernel loads the module of an unknown network interface's name with its own `request_module`, if the caller
/// may load modules. That there is no such interface afterwards is as it should be.
fn asked_for_by_the_kernel(module: &str) -> Result<()> {
    ensure!(kmod::find(module)?.is_none(), "{module} is there already");
    let output = Command::new("ifconfig").arg(module).output().context("no ifconfig")?;
    ensure!(!output.status.success(), "there is an interface {module}");
    ensure!(kmod::find(module)?.is_some(), "the kernel did not load {module}");
    Ok(())
}
