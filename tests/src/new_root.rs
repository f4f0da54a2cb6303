// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A root file system on a block device: everything that the guest has, and its first process.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use nix::mount::{mount, umount, umount2, MntFlags, MsFlags};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::guest::moving;
use crate::wait;

/// Where it is mounted.
const PLACE: &str = "/mnt/root";
/// What is copied: programs, libraries, modules, settings.
const COPIED: &[&str] = &["/bin", "/sbin", "/lib", "/lib64", "/usr", "/etc"];
/// What both roots have in common: file systems that lie on no disk.
const SHARED: &[&str] = &["/proc", "/sys", "/dev", "/run", "/tmp"];
/// How long the first process may take to move.
const MOVE: Duration = Duration::from_secs(30);

/// The root file system, with the first process in it. Where a scenario fails it stays as it is: the guest is turned
/// off after it.
pub struct NewRoot {
    device: String,
}

impl NewRoot {
    /// Makes an ext4 with a copy of the guest on `device`, and moves the first process there.
    pub fn make(device: &str) -> Result<Self> {
        run("mkfs.ext4", &["-q", device])?;
        fs::create_dir_all(PLACE)?;
        // Without access times, so that reading a file does not write.
        mount(Some(device), PLACE, Some("ext4"), MsFlags::MS_NOATIME, None::<&str>)
            .with_context(|| format!("cannot mount {device}"))?;
        let mut copy = vec!["-a"];
        copy.extend(COPIED);
        copy.push(PLACE);
        run("cp", &copy)?;
        for place in SHARED {
            let inside = inside(place);
            fs::create_dir_all(&inside)?;
            let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(*place), &inside, None::<&str>, bind, None::<&str>)
                .with_context(|| format!("cannot bind {place}"))?;
        }
        nix::unistd::sync();
        let root = Self { device: device.to_owned() };
        root.move_first_process(PLACE)?;
        Ok(root)
    }

    /// A program that is executed from this root and has it as its own.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command.args([PLACE, program]);
        command
    }

    /// A path of this root as it is seen from outside.
    pub fn path(&self, inside_root: &str) -> PathBuf {
        inside(inside_root)
    }

    /// Moves the first process back, unmounts, and checks the file system. An error while anybody uses it.
    pub fn leave(self) -> Result<()> {
        self.move_first_process("")?;
        for place in SHARED {
            umount2(&inside(place), MntFlags::MNT_DETACH)
                .with_context(|| format!("cannot unbind {place}"))?;
        }
        umount(PLACE).with_context(|| format!("cannot unmount {PLACE}"))?;
        run("e2fsck", &["-f", "-n", &self.device])
    }

    fn move_first_process(&self, place: &str) -> Result<()> {
        let wanted =
            if place.is_empty() { fs::metadata("/")?.dev() } else { number(&self.device)? };
        fs::write(moving::WISH, place)?;
        kill(Pid::from_raw(1), moving::SIGNAL).context("cannot ask the first process to move")?;
        let what = format!("the first process is executed from {place:?}");
        wait::until(&what, MOVE, || {
            let program = fs::metadata("/proc/1/exe")?.dev();
            let root = fs::metadata("/proc/1/root")?.dev();
            Ok(program == wanted && root == wanted)
        })
    }
}

/// The number of a block device, which files on a file system of it have as theirs.
pub fn number(device: &str) -> Result<u64> {
    Ok(fs::metadata(device).with_context(|| format!("no {device}"))?.rdev())
}

fn inside(path: &str) -> PathBuf {
    Path::new(PLACE).join(path.trim_start_matches('/'))
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let output =
        Command::new(program).args(args).output().with_context(|| format!("no {program}"))?;
    ensure!(
        output.status.success(),
        "`{program} {}` failed ({}): {}{}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
