// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the machine we run on must have, checked before anything is changed.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::command_line::CommandLine;
use crate::problem::refused;

/// Refuses to go on unless the machine can host a sysroot: its processor and our rights.
pub fn check() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(refused(
            "this command needs root",
            "it makes a Debian tree with its own users and devices, and runs programs in it with chroot",
            "run it as root, for example with `sudo -E cargo xtask ...`",
        ));
    }
    let machine = nix::sys::utsname::uname()?.machine().to_string_lossy().into_owned();
    if machine != "x86_64" {
        return Err(refused(
            format!("this machine's processor is {machine}"),
            "the kernels and the modules that Atom is built for are x86_64",
            "use an x86_64 machine",
        ));
    }
    for tool in ["unshare", "setpriv", "chroot", "mount"] {
        require(tool, "util-linux and coreutils")?;
    }
    Ok(())
}

/// Refuses to go on unless `tool` can be found.
pub fn require(tool: &str, package: &str) -> Result<()> {
    match find(tool) {
        Some(_) => Ok(()),
        None => Err(refused(
            format!("the program `{tool}` is missing"),
            "it is needed to make or to enter the sysroot",
            format!("install it; Debian has it in {package}"),
        )),
    }
}

/// Where the search path has `tool`; the administrator's folders are searched even when the path leaves them out.
pub fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(tool))
        .find(|candidate| candidate.is_file())
}

/// Memory that programs could still get without swapping, in MiB; none when the kernel does not say.
pub fn available_memory_mib() -> Option<u64> {
    memory_available(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// `MemAvailable` of proc_meminfo(5), in MiB.
fn memory_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib >> 10)
}

static INSTALLS: Mutex<()> = Mutex::new(());

/// Installs Debian packages on the host when a file of theirs is missing, and says so.
pub fn install_missing(wanted: &[(&str, &Path)]) -> Result<()> {
    let missing: Vec<&str> =
        wanted.iter().filter(|(_, file)| !file.exists()).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    // Two parts of this program can lack something at the same time.
    let _turn = INSTALLS.lock().unwrap_or_else(PoisonError::into_inner);
    eprintln!("installing on this machine: {}", missing.join(" "));
    let install = CommandLine::new("apt-get")
        .args(["install", "-y", "--no-install-recommends"])
        // Somebody else may be at it, such as the upgrades that a fresh machine makes by itself.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive");
    let update = CommandLine::new("apt-get").arg("update");
    if install.passes()? || (update.passes()? && install.passes()?) {
        return Ok(());
    }
    Err(refused(
        format!("this machine lacks {}", missing.join(" and ")),
        format!("this command failed: {install}"),
        "install these packages by hand, then run this command again",
    ))
}

/// Refuses to go on when something is mounted below `dir`, which is about to be deleted with all that is in it.
pub fn require_nothing_mounted(dir: &Path) -> Result<()> {
    let table =
        std::fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    match mounted_below(&table, dir) {
        None => Ok(()),
        Some(place) => Err(refused(
            format!("{} cannot be deleted", dir.display()),
            format!("{place} is mounted in it, and would be emptied as well"),
            format!("unmount it: umount {place}"),
        )),
    }
}

/// The first mount point below `dir` in a table as `/proc/self/mountinfo` has it.
fn mounted_below<'a>(table: &'a str, dir: &Path) -> Option<&'a str> {
    // proc_pid_mountinfo(5): the fifth field.
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .find(|place| Path::new(place).starts_with(dir))
}

/// Refuses to go on unless the file system that holds `dir` has `gib` GiB to spare for `what`.
pub fn require_space(dir: &Path, gib: u64, what: &str) -> Result<()> {
    let stat = nix::sys::statvfs::statvfs(dir)
        .with_context(|| format!("cannot ask for the free space of {}", dir.display()))?;
    let free = stat.blocks_available() * stat.fragment_size();
    if free >= gib << 30 {
        return Ok(());
    }
    Err(refused(
        format!(
            "{} has {:.1} GiB free, and {gib} GiB are needed",
            dir.display(),
            free as f64 / (1u64 << 30) as f64
        ),
        what.to_owned(),
        "free some space, or set XDG_CACHE_HOME (sysroots) and CARGO_TARGET_DIR (everything that is built) to folders on \
         a larger disk",
    ))
}

#[cfg(test)]
mod mount_tests {
    use super::*;

    #[test]
    fn a_mount_within_a_folder_is_noticed_and_one_beside_it_is_not() {
        let table =
            "22 1 0:20 / /proc rw - proc proc rw\n30 1 0:5 / /cache/tree/proc ro - proc proc rw\n";
        assert_eq!(mounted_below(table, Path::new("/cache/tree")), Some("/cache/tree/proc"));
        assert_eq!(mounted_below(table, Path::new("/cache/ro")), None);
        assert_eq!(mounted_below(table, Path::new("/cache/other")), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_in_mebibytes() {
        let table = "MemTotal:       24680000 kB\nMemAvailable:    2097152 kB\nBuffers: 1 kB\n";
        assert_eq!(memory_available(table), Some(2048));
        assert_eq!(memory_available("MemTotal: 1 kB\n"), None);
    }
}
