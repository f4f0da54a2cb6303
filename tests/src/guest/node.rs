// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The first steps of a node, from its initramfs to systemd on its root file system.
//!
//! What the host gives to the node comes with the initramfs. It goes to memory ([`HERE`]), but for packages, which go to
//! the root file system ([`PACKAGES`]): so the image of the root, which all clones share, has nothing of any clone.
//!
//! The network is set up here, once, and stays as it is: systemd has nothing to wait for.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use atomctl::kmod;
use nix::mount::{mount, MsFlags};
use nix::unistd::{chdir, chroot};

use super::command_line::CommandLine;

/// Where a node finds what the host has given to it.
pub const HERE: &str = "/run/atom-host";
/// The modules that the initramfs has, in the order in which they are inserted.
pub const MODULES: &str = "/modules";
/// Packages, in the initramfs and on the node.
pub const PACKAGES: &str = "/packages";
/// The private key of the node's sshd.
pub const HOST_KEY: &str = "host_key";
/// Whom its sshd lets in.
pub const AUTHORIZED_KEYS: &str = "authorized_keys";
/// What the console said in the boot before; the host writes it when a node is booted again.
pub const CONSOLE_BEFORE: &str = "/run/atom-host/console-before";
/// What the disk with the root file system is called. The others have no name.
pub const ROOT_SERIAL: &str = "atom-root";
/// The word of the kernel's command line that makes a guest a node.
pub const WORD: &str = "node";

/// The network as QEMU has it for a guest of its own user network.
const ADDRESS: &str = "10.0.2.15/24";
const GATEWAY: &str = "10.0.2.2";

const ROOT: &str = "/root";
const SYSTEMD: &str = "/sbin/init";
/// File systems that go along.
const MOVED: &[&str] = &["/proc", "/sys", "/dev", "/run"];

/// Whether we run on a node, whatever its first process is.
pub fn is_one() -> bool {
    Path::new(HERE).exists()
}

/// Has systemd shut the machine down: a reboot when another boot follows, which ends QEMU as well. An error is said, and
/// then whoever waits for the end says the rest.
pub fn shut_down() {
    let last = CommandLine::read().map_or(true, |line| line.value("last").is_some());
    let verb = if last { "poweroff" } else { "reboot" };
    match Command::new("systemctl").args([verb, "--no-block"]).status() {
        // systemd ends the agent, and with it this thread.
        Ok(status) if status.success() => loop {
            std::thread::park();
        },
        other => eprintln!("atom-guest: systemctl {verb}: {other:?}"),
    }
}

/// Finds the root and becomes its first process. Returns only with an error.
pub fn become_it(line: &CommandLine) -> Result<()> {
    let mut modules: Vec<PathBuf> =
        fs::read_dir(MODULES)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    modules.sort();
    for module in modules {
        kmod::insert(&fs::read(&module)?, "")
            .with_context(|| format!("cannot insert {}", module.display()))?;
    }
    if line.value("network").is_some() {
        network()?;
    }
    let disk = root_disk()?;
    mount(Some(&disk), ROOT, Some("ext4"), MsFlags::MS_NOATIME, None::<&str>)
        .with_context(|| format!("cannot mount {}", disk.display()))?;
    hand_over()?;
    for place in MOVED {
        let to = format!("{ROOT}{place}");
        mount(Some(*place), to.as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .with_context(|| format!("cannot move {place}"))?;
    }
    // What is in memory here is needed by nobody any more.
    for name in ["init", "usr", "modules", "packages"] {
        let path = Path::new("/").join(name);
        let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
    }
    chdir(ROOT).context("cannot enter the root")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .context("cannot move the root")?;
    chroot(".").context("cannot change the root")?;
    chdir("/").context("cannot enter the root")?;
    let program = CString::new(SYSTEMD)?;
    let Err(errno) = nix::unistd::execv(&program, &[&program]);
    Err(errno).with_context(|| format!("cannot become {SYSTEMD}"))
}

fn network() -> Result<()> {
    let ip = |args: &[&str]| super::init::run_to_end("/bin/busybox", &[&["ip"], args].concat());
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "set", "eth0", "up"])?;
    ip(&["addr", "add", ADDRESS, "dev", "eth0"])?;
    ip(&["route", "add", "default", "via", GATEWAY])
}

/// The disk that the host has named. The kernel may number disks in another order than the host.
fn root_disk() -> Result<PathBuf> {
    for entry in fs::read_dir("/sys/block")?.flatten() {
        let serial = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if serial.trim() == ROOT_SERIAL {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    anyhow::bail!("no disk is called {ROOT_SERIAL}")
}

/// Puts what the host has given where it belongs.
fn hand_over() -> Result<()> {
    fs::create_dir_all(HERE)?;
    let here = Path::new(HERE);
    fs::copy("/init", here.join("atom-guest")).context("cannot copy the agent")?;
    for name in [HOST_KEY, AUTHORIZED_KEYS] {
        let place = here.join(name);
        fs::copy(Path::new("/").join(name), &place).with_context(|| format!("no {name}"))?;
        fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    }
    if !Path::new(PACKAGES).exists() {
        return Ok(());
    }
    let place = format!("{ROOT}{PACKAGES}");
    fs::create_dir_all(&place)?;
    for entry in fs::read_dir(PACKAGES)? {
        let entry = entry?;
        let to = Path::new(&place).join(entry.file_name());
        let package = fs::read(entry.path())?;
        // A machine that is booted again has them.
        if fs::read(&to).is_ok_and(|there| there == package) {
            continue;
        }
        fs::write(&to, package).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}
