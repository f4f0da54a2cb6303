// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What scenarios need of the guest beside Atom: a loopback, a disk of somebody else, modules by name.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atomctl::kmod;
use nix::mount::{mount, umount, MsFlags};

use super::Context;
use crate::echo::{Echo, Seen};
use crate::firewall::Firewall;
use crate::nbd_client::NbdClient;
use crate::server::{self, At, Server};
use crate::site::Site;
use crate::spare::{self, Spare};
use crate::udev::Udev;
use crate::{queue, wait};

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

/// Each server is tried with the kernel's own client.
pub fn the_large_guest_has_servers_a_firewall_and_what_lies_on_disks(
    context: &mut Context,
) -> Result<()> {
    let file = server::file("disk", 64)?;
    let servers: [(&str, At, &str); 4] = [
        ("nbdkit", At::free_port()?, ""),
        ("nbdkit-socket", At::socket("nbdkit"), ""),
        ("qemu-nbd", At::free_port()?, "disk"),
        ("nbd-server", At::free_port()?, "disk"),
    ];
    for (index, (name, at, export)) in (0..).zip(servers) {
        context.step(name);
        let server = match name {
            "qemu-nbd" => Server::qemu_nbd(name, at, export, &file)?,
            "nbd-server" => Server::nbd_server(name, at, export, &file)?,
            _ => Server::nbdkit(name, at, &["memory", "64M"])?,
        };
        let client = NbdClient::connect(index, server.at(), export, 1)?;
        queue::write_block(client.device(), 5, 0x77)?;
        let read = queue::read_block(client.device(), 5)?;
        ensure!(read.iter().all(|byte| *byte == 0x77), "wrong data");
        client.disconnect()?;
        if name.starts_with("nbdkit") {
            wait::until("nbdkit sees the end", PATIENCE, || Ok(server.seen()?.disconnects > 0))?;
            let seen = server.seen()?;
            ensure!(seen.connects == 1 && seen.writes > 0 && seen.reads > 0, "{seen:?}");
        }
        server.stop()?;
    }

    context.step("a firewall");
    let echo = Echo::start()?;
    let firewall = Firewall::drop_port(echo.port())?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, echo.port()));
    let tried = TcpStream::connect_timeout(&address, Duration::from_millis(300));
    ensure!(tried.is_err(), "a connection passed the firewall");
    firewall.open()?;
    TcpStream::connect_timeout(&address, PATIENCE)?;
    echo.stop()?;

    context.step("LVM and dm-crypt");
    let spare = Spare::create(64)?;
    let udev = Udev::start(context)?;
    context.run(&["pvcreate", "-q", spare.device()])?;
    context.run(&["vgcreate", "-q", "group", spare.device()])?;
    context.run(&["lvcreate", "-q", "-n", "volume", "-L", "16M", "group"])?;
    std::fs::write("/tmp/key", [7; 64])?;
    let cipher = "--cipher=aes-xts-plain64";
    let open = ["cryptsetup", "open", "--type=plain", "--key-file=/tmp/key", "--key-size=512"];
    context.run(&[&open[..], &[cipher, "/dev/group/volume", "secret"]].concat())?;
    queue::write_block("/dev/mapper/secret", 3, 0x55)?;
    ensure!(queue::read_block("/dev/mapper/secret", 3)? == vec![0x55; 4096], "wrong data");
    ensure!(queue::read_block("/dev/group/volume", 3)? != vec![0x55; 4096], "no secret");
    context.run(&["cryptsetup", "close", "secret"])?;
    context.run(&["vgremove", "-q", "-f", "group"])?;
    udev.stop(context)?;
    spare.remove()
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
