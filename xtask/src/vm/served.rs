// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a machine has served by the host, by nbdkit from the sysroot.
//!
//! - Disks that lose what was not flushed. QEMU's own disk is a file whose pages stay in the host's cache when QEMU is
//!   killed, so that cutting it off loses nothing. Here nbdkit stands between QEMU and the file, with its filter `cache`
//!   in the mode `writeback`: what is written goes to a temporary file, and to the disk's file when the guest flushes.
//!   When nbdkit is killed, the temporary file, which has no name, goes with it.
//! - A disk on a port of the host's loopback, which the guest reaches over a network. It is in memory; that of a machine
//!   which will be cut off is a file, and loses what was not flushed as the others do. That of a node is a file as well, on
//!   the same port in each boot: a node has it in its configuration.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use atom_tests::scenarios::Tools;
use nix::unistd::Pid;

use super::{qemu, VmConfig};
use crate::command_line::CommandLine;
use crate::sysroot::Sysroot;

/// How long a server may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The file of the server's disk, in the folder of a machine that will be cut off.
pub const SERVER_DISK: &str = "disk-of-server";

/// Settings of nbdkit with which it loses, when it is killed, what was not flushed. They stand at the end.
const VOLATILE: [&str; 2] = ["cache=writeback", "cache-min-block-size=4K"];

/// The port of the server's disk, in the folder of a node.
const SERVER_PORT: &str = "server.port";

/// Whether the server's disk is kept from boot to boot.
pub fn is_kept(config: &VmConfig) -> bool {
    config.will_be_cut || config.tools == Tools::Node
}

/// Where the server of a disk listens, as QEMU sees it.
pub fn socket(disk: &str) -> String {
    format!("/mnt/vm/{disk}.sock")
}

/// The servers of a machine. They end with it.
pub struct Served {
    servers: Vec<Child>,
    port: Option<u16>,
}

impl Served {
    /// None at all.
    pub fn none() -> Self {
        Self { servers: Vec::new(), port: None }
    }

    /// Starts what the machine in `dir` wants, and waits until all listen.
    pub fn start(sysroot: &Sysroot, config: &VmConfig, dir: &Path) -> Result<Self> {
        let mut served = Self::none();
        if config.will_be_cut {
            for disk in qemu::disks(config) {
                let command = nbdkit(sysroot, dir, &disk)
                    .args(["--unix", &socket(&disk), "--filter=cache", "file"])
                    .arg(format!("/mnt/vm/{disk}"))
                    .args(VOLATILE);
                // A socket that is left from the machine before would be in the way.
                let _ = std::fs::remove_file(dir.join(format!("{disk}.sock")));
                served.launch(&command, dir, &disk)?;
            }
        }
        if config.server_mib > 0 {
            let port = port(config, dir)?;
            let command = nbdkit(sysroot, dir, "server").args([
                "--ipaddr",
                "127.0.0.1",
                "--port",
                &port.to_string(),
            ]);
            let file = format!("/mnt/vm/{SERVER_DISK}");
            let command = match (config.will_be_cut, is_kept(config)) {
                (true, _) => command.args(["--filter=cache", "file"]).arg(file).args(VOLATILE),
                (false, true) => command.arg("file").arg(file),
                (false, false) => command.arg("memory").arg(format!("{}M", config.server_mib)),
            };
            served.launch(&command, dir, "server")?;
            served.port = Some(port);
        }
        Ok(served)
    }

    /// Words for the kernel's command line that tell the guest what there is.
    pub fn cmdline(&self) -> Option<String> {
        self.port.map(|port| format!("atom.server=10.0.2.2:{port}"))
    }

    /// The servers' processes.
    pub fn pids(&self) -> Result<Vec<Pid>> {
        self.servers.iter().map(|child| Ok(Pid::from_raw(child.id().try_into()?))).collect()
    }

    fn launch(&mut self, command: &CommandLine, dir: &Path, name: &str) -> Result<()> {
        let ready = dir.join(format!("{name}.pid"));
        let _ = std::fs::remove_file(&ready);
        let log = std::fs::File::create(dir.join(format!("{name}.log")))?;
        let child = command
            .command()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start nbdkit: {command}"))?;
        self.servers.push(child);
        let begun = Instant::now();
        // It writes its number once it listens.
        while !ready.exists() {
            let ended = self.servers.last_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || begun.elapsed() > START_LIMIT {
                let log = std::fs::read_to_string(dir.join(format!("{name}.log")));
                bail!("nbdkit did not start ({ended:?}): {}\n{command}", log.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        for child in &mut self.servers {
            // It may have been killed with the machine.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A port for the server: a free one, or that of the boot before. Whoever takes it in the moment between makes nbdkit fail,
/// and us with it.
fn port(config: &VmConfig, dir: &Path) -> Result<u16> {
    let memory = dir.join(SERVER_PORT);
    if config.keep_disks && config.tools == Tools::Node {
        let text =
            std::fs::read_to_string(&memory).with_context(|| format!("no {}", memory.display()))?;
        return text.parse().with_context(|| format!("{text:?} in {}", memory.display()));
    }
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    std::fs::write(&memory, port.to_string())?;
    Ok(port)
}

fn nbdkit(sysroot: &Sysroot, dir: &Path, name: &str) -> CommandLine {
    sysroot
        .chroot()
        .bind(dir, "vm")
        .command("nbdkit")
        .args(["--foreground", "--pidfile", &format!("/mnt/vm/{name}.pid")])
        .env("TMPDIR", "/mnt/vm")
}
