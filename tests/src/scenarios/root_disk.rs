// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A node whose root file system lies on a volume from the initramfs on, which the node's own tools have made: that of
//! initramfs-tools, and in slow runs that of dracut after it.
//!
//! The volume is over the very disk that the node was installed on. Atom writes nothing of its own on a target, so the file
//! system is where it was.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context as _, Result};

use super::Context;
use crate::console;
use crate::guest::kmsg;
use crate::guest::node::{CONSOLE_BEFORE, HERE, ROOT_SERIAL};
use crate::load::files::Files;
use crate::load::probe::Probe;
use crate::packaged::{
    configure, deb, debs_are_whole, fstab, run, run_saying, serves, until_up, volumes,
};
use crate::wait;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
/// The versions that the boots take turns in.
const VERSIONS: [&str; 2] = ["2.0.0", "2.1.0"];
/// Where an initramfs is made: in memory.
const MADE: &str = "/run/initramfs-of-atom";
/// Where the host's files lie on the root file system, since no initramfs of the host brings them.
const KEPT: &str = "/var/lib/atom-host";
/// What the host calls the agent's program.
const PROGRAM: &str = "/init";
const AGENT: &str = "/etc/systemd/system/atom-agent.service.d";
/// Files that are written and found right around an upgrade.
const FILES: u64 = 5;

pub fn the_root_file_system_lies_on_a_volume_from_the_initramfs_on(
    context: &mut Context,
) -> Result<()> {
    until_up()?;
    let boot = context.boot()?;
    if boot == 0 {
        install()?;
        context.step("an initramfs by initramfs-tools");
        fs::write("/etc/initramfs-tools/conf.d/atom", "ATOM=y\n")?;
        context.run(&["mkinitramfs", "-o", MADE, &release()?])?;
        return hand_to_the_host(context);
    }
    context.step("the root file system is on the volume");
    run_saying("findmnt", &["-n", "-o", "SOURCE", "/"], "/dev/atom")?;
    let before = VERSIONS[(boot as usize + 1) % 2];
    let after = VERSIONS[boot as usize % 2];
    serves(before)?;
    for unit in ["atom.service", "atom-volumes.service"] {
        run_saying("systemctl", &["is-active", unit], "active")?;
    }
    no_network_is_waited_for()?;
    ended_in_order(boot)?;

    context.step("an upgrade by a package on that very file system");
    upgrade(context, after)?;

    context.step("an initramfs is made with Atom, because the root is on a volume");
    fs::write("/etc/initramfs-tools/conf.d/atom", "")?;
    if context.is_last_boot() {
        return hook_finds_the_volume(context);
    }
    context.run(&[
        "dracut",
        "--force",
        "--hostonly",
        "--no-hostonly-cmdline",
        MADE,
        &release()?,
    ])?;
    hand_to_the_host(context)
}

/// Everything but the initramfs.
fn install() -> Result<()> {
    let packages = [
        deb("kmod-atom", "*", "1")?,
        deb("atom-tools", "*", "1")?,
        deb("kmod-atom-payload-2.0.0", "2.0.0", "1")?,
        deb("atom-payload", "2.0.0", "1")?,
    ];
    let mut args = vec!["-i"];
    args.extend(packages.iter().map(String::as_str));
    run_saying("dpkg", &args, "")?;
    configure("[packages]\nsoak = \"1s\"\n")?;
    volumes(&format!(
        "[[volume]]\nname = \"root\"\ntargets = [\"bdev:/dev/disk/by-id/virtio-{ROOT_SERIAL}\"]\n"
    ))?;
    fstab("/dev/atom/root / ext4 defaults 0 1")?;
    run_saying("cp", &["-a", HERE, KEPT], "")?;
    fs::create_dir_all(AGENT)?;
    // Nothing in `/run` is executed when Debian's initramfs has mounted it.
    let copy = format!("ExecStartPre=/bin/sh -c '[ -e {HERE} ] || cp -a {KEPT} {HERE}'\n");
    let start = format!("ExecStart=\nExecStart={KEPT}/atom-guest agent\n");
    fs::write(Path::new(AGENT).join("kept.conf"), format!("[Service]\n{copy}{start}"))?;
    fs::remove_file(PROGRAM)?;
    std::os::unix::fs::symlink(format!("{KEPT}/atom-guest"), PROGRAM)?;
    Ok(())
}

/// A package brings the other version while files are written on the root file system, and its device is read.
fn upgrade(context: &mut Context, version: &str) -> Result<()> {
    let device = fs::canonicalize("/dev/atom/root")?;
    let probe = Probe::start(&device.to_string_lossy())?;
    let files = Files::start(Path::new("/var/tmp/files"))?;
    let more = |files: &Files| {
        let wanted = files.checked() + FILES;
        wait::until("files are written and found right", PATIENCE, || Ok(files.checked() >= wanted))
    };
    more(&files)?;
    let packages = [
        deb(&format!("kmod-atom-payload-{version}"), version, "1")?,
        deb("atom-payload", version, "1")?,
    ];
    run_saying("dpkg", &["-i", &packages[0], &packages[1]], &format!("payload {version} is live"))?;
    serves(version)?;
    debs_are_whole()?;
    more(&files)?;
    context.fact("files_checked", files.stop()?.checked);
    context.fact("longest_gap_ms", probe.longest_gap().as_millis() as u64);
    context.fact("reads", probe.stop()?);
    Ok(())
}

/// No volume is over a server, so nobody waits for the network.
fn no_network_is_waited_for() -> Result<()> {
    for unit in ["atom-volumes-network.service", "network-online.target"] {
        let said = run("systemctl", &["is-active", unit])?;
        ensure!(said.text.trim() == "inactive", "{unit} is {}", said.text);
    }
    Ok(())
}

/// How the boot before has ended: nothing was held up, and the root file system was written to its end.
fn ended_in_order(boot: u32) -> Result<()> {
    let said = fs::read_to_string(CONSOLE_BEFORE).context("no console of the boot before")?;
    let end = said.find("Stopping ").map_or("", |at| &said[at..]);
    ensure!(end.contains("Restarting system"), "boot {} has not ended: {end}", boot - 1);
    let complaints = console::complaints(&said);
    ensure!(complaints.is_empty(), "{complaints:?}");
    let log = kmsg::read()?;
    ensure!(!log.contains("recovery complete"), "the root file system was in use: {log}");
    Ok(())
}

/// The hook of initramfs-tools notices by itself that the root file system is on a volume.
fn hook_finds_the_volume(context: &Context) -> Result<()> {
    let folder = "/run/hook";
    fs::create_dir_all(folder)?;
    let hook = format!(
        "export DESTDIR={folder} version={} verbose=n; exec sh /usr/share/initramfs-tools/hooks/atom",
        release()?
    );
    context.run(&["sh", "-c", &hook])?;
    for file in ["usr/bin/atomctl", "etc/atom/volumes.toml", "var/lib/atom/live"] {
        let file = Path::new(folder).join(file);
        ensure!(file.exists(), "{} is not in it", file.display());
    }
    Ok(())
}

/// Writes the initramfs on the disk that the host boots it from: its length, 8 bytes, little-endian, and then itself.
fn hand_to_the_host(context: &mut Context) -> Result<()> {
    let initramfs = fs::read(MADE)?;
    context.fact("initramfs_mib", initramfs.len() >> 20);
    let disk = other_disk()?;
    let mut disk = File::options().write(true).open(&disk)?;
    disk.write_all(&(initramfs.len() as u64).to_le_bytes())?;
    disk.write_all(&initramfs)?;
    disk.sync_all()?;
    Ok(())
}

/// The disk that has not the root file system.
fn other_disk() -> Result<PathBuf> {
    for entry in fs::read_dir("/sys/block")?.flatten() {
        let serial = fs::read_to_string(entry.path().join("serial"));
        let name = entry.file_name();
        let is_disk = name.to_string_lossy().starts_with("vd");
        if is_disk && serial.map_or(true, |serial| serial.trim() != ROOT_SERIAL) {
            return Ok(Path::new("/dev").join(name));
        }
    }
    anyhow::bail!("there is no other disk")
}

fn release() -> Result<String> {
    Ok(nix::sys::utsname::uname()?.release().to_string_lossy().into_owned())
}
