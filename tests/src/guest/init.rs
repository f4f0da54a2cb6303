// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The guest's first process.
//!
//! It makes the guest usable, starts the agent as a process of its own, and from then on only reaps: every orphan
//! becomes its child, and a wait for any child would steal the exit codes that the agent waits for. When it is asked
//! to, it moves to another root file system and is executed from there: see [`super::moving`].

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{mount, MsFlags};
use nix::sys::reboot::{reboot, RebootMode};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;

use super::command_line::CommandLine;
use super::moving::{self, Moved};
use super::node;
use super::systemd;
use crate::site::{Site, Spec};

/// The search path of everything in the guest.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// File systems: type, place, options.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", "mode=755"),
    ("devpts", "/dev/pts", "mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", ""),
    ("tmpfs", "/run", "mode=755"),
    ("tmpfs", "/tmp", "mode=1777"),
    ("debugfs", "/sys/kernel/debug", ""),
];

/// Comes with a module of its own.
const CONFIGFS: (&str, &str, &str) = ("configfs", "/sys/kernel/config", "");

/// Runs the guest until it is turned off. An error turns it off as well: the host sees the end and shows the console.
pub fn run() -> ! {
    let done = match Moved::from_arguments() {
        // The guest was made usable before the move.
        Some(moved) => reap(None, Some(&moved)),
        None => prepare().and_then(|shell| reap(shell, None)),
    };
    if let Err(error) = done {
        eprintln!("atom-guest: {error:#}");
    }
    power_off()
}

/// Writes everything back and turns the machine off, or has systemd do so where it is the first process.
pub fn power_off() -> ! {
    if node::is_one() {
        node::shut_down();
    }
    nix::unistd::sync();
    loop {
        match reboot(RebootMode::RB_POWER_OFF) {
            Ok(never) => match never {},
            Err(errno) => {
                eprintln!("atom-guest: cannot power off: {errno}");
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
        }
    }
}

/// Sets up the guest and starts the agent; returns the interactive shell's process if there is one.
fn prepare() -> Result<Option<Pid>> {
    std::env::set_var("PATH", PATH);
    std::env::set_var("HOME", "/root");
    std::env::set_var("TERM", "linux");
    for (kind, place, options) in MOUNTS {
        mount_one(kind, place, options)?;
    }
    let line = CommandLine::read()?;
    if line.value(node::WORD).is_some() {
        node::become_it(&line)?;
    }
    run_to_end("modprobe", &["configfs"])?;
    let (kind, place, options) = CONFIGFS;
    mount_one(kind, place, options)?;
    nix::unistd::sethostname("atom").context("cannot set the host name")?;
    std::fs::write("/proc/sys/kernel/sysrq", "1").context("cannot enable sysrq")?;
    run_to_end("ip", &["link", "set", "lo", "up"])?;
    for module in line.list("modprobe") {
        run_to_end("modprobe", &[module])?;
    }
    if line.value("systemd").is_some() {
        systemd::become_it()?;
    }
    if let Some(version) = line.value("start") {
        start(version)?;
    }
    let agent = std::env::current_exe().unwrap_or_else(|_| "/init".into());
    Command::new(agent).arg("agent").spawn().context("cannot start the agent")?;
    if line.value("shell").is_none() {
        return Ok(None);
    }
    let shell = Command::new("/bin/busybox")
        .arg0("busybox")
        .args(["setsid", "-c", "sh", "-l"])
        .current_dir("/root")
        .stdin(File::open("/dev/ttyS0")?)
        .stdout(File::options().write(true).open("/dev/ttyS0")?)
        .stderr(File::options().write(true).open("/dev/ttyS0")?)
        .spawn()
        .context("cannot start the shell")?;
    Ok(Some(Pid::from_raw(shell.id().try_into()?)))
}

/// Makes what a person wants to look at: Atom, a payload that is live, and a volume of each kind.
fn start(version: &str) -> Result<()> {
    let site = Site::on_guest(version)?;
    site.volume("ram", Spec::ram(64))?;
    site.volume("null", Spec::null(1024))?;
    Ok(())
}

fn mount_one(kind: &str, place: &str, options: &str) -> Result<()> {
    std::fs::create_dir_all(place).with_context(|| format!("cannot create {place}"))?;
    mount(Some(kind), Path::new(place), Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("cannot mount {kind} on {place}"))
}

pub(super) fn run_to_end(program: &str, args: &[&str]) -> Result<()> {
    let status = Command::new(program)
        .args(args)
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    anyhow::ensure!(status.success(), "{program} {args:?} failed: {status}");
    Ok(())
}

/// Reaps until the shell ends, or for ever when there is none, and moves when it is asked to.
fn reap(shell: Option<Pid>, moved: Option<&Moved>) -> Result<()> {
    // Blocked, because only blocked signals wait for the first process. Nothing is started from here on, so nobody
    // inherits it.
    let signals: SigSet = [Signal::SIGCHLD, moving::SIGNAL].into_iter().collect();
    signals.thread_block().context("cannot block signals")?;
    loop {
        if reap_who_is_there(shell)? {
            return Ok(());
        }
        if signals.wait().context("cannot wait for signals")? == moving::SIGNAL {
            let Err(error) = moving::go(moved);
            eprintln!("atom-guest: cannot move: {error:#}");
        }
    }
}

/// Reaps all that have ended; true when the shell is one of them.
fn reap_who_is_there(shell: Option<Pid>) -> Result<bool> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..))
                if Some(pid) == shell =>
            {
                return Ok(true);
            }
            Ok(WaitStatus::StillAlive) => return Ok(false),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("the agent is gone"),
        }
    }
}
