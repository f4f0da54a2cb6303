// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The guest with systemd as its first process, as on a machine that people have: it loads Atom, has the volumes of a file
//! made, and mounts what `/etc/fstab` names.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::patience;

/// The volume's name, and where it is mounted.
pub const VOLUME: &str = "data";
pub const PLACE: &str = "/srv";

/// The first process that takes over.
const SYSTEMD: &str = "/usr/lib/systemd/systemd";
const UNITS: &str = "/etc/systemd/system";

/// Files: path and content.
const FILES: &[(&str, &str)] = &[
    (
        "/etc/atom/volumes.toml",
        "[[volume]]\nname = \"data\"\nlayout = \"stripe\"\nchunk = \"64K\"\n\
         targets = [\"bdev:/dev/vda\", \"bdev:/dev/vdb\"]\n",
    ),
    ("/etc/fstab", "/dev/atom/data /srv ext4 defaults 0 0\n"),
    (
        "/etc/systemd/system/atom.service",
        "[Unit]\nDescription=Atom and its volumes\nDefaultDependencies=no\nAfter=systemd-udevd.service\n\
         Before=local-fs-pre.target\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\nEnvironment=PATH=/usr/sbin:/usr/bin\n\
         ExecStart=/usr/sbin/insmod /lib/atom/atom.ko\n\
         ExecStart=/usr/bin/atomctl load /lib/atom/payload_2_0_0.ko\n\
         ExecStart=/usr/bin/atomctl apply /etc/atom/volumes.toml\n",
    ),
    (
        "/etc/systemd/system/atom-agent.service",
        "[Unit]\nDescription=The host's hand in this guest\nDefaultDependencies=no\n\
         [Service]\nEnvironment=PATH=/usr/sbin:/usr/bin HOME=/root\nExecStart=/init agent\n",
    ),
];

/// What the first target wants.
const WANTED: &[&str] = &["atom.service", "atom-agent.service"];

/// Where it is said how long a device may take to come.
const DEVICE_PATIENCE: &str = "/etc/systemd/system.conf.d/devices.conf";
/// systemd's own limit.
const DEVICES_WITHIN: Duration = Duration::from_secs(90);

/// Writes the units and becomes systemd. Returns only with an error.
pub fn become_it() -> Result<()> {
    let within = patience::scaled(DEVICES_WITHIN).as_secs();
    let devices = format!("[Manager]\nDefaultDeviceTimeoutSec={within}\n");
    for (path, content) in FILES.iter().copied().chain([(DEVICE_PATIENCE, devices.as_str())]) {
        if let Some(folder) = Path::new(path).parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, content).with_context(|| format!("cannot write {path}"))?;
    }
    fs::create_dir_all(PLACE)?;
    let wants = format!("{UNITS}/basic.target.wants");
    fs::create_dir_all(&wants)?;
    for unit in WANTED {
        symlink(format!("{UNITS}/{unit}"), format!("{wants}/{unit}"))?;
    }
    symlink("/usr/lib/systemd/system/basic.target", format!("{UNITS}/default.target"))
        .context("cannot choose what is booted")?;
    let program = CString::new(SYSTEMD)?;
    let Err(errno) = nix::unistd::execv(&program, &[&program]);
    Err(errno).with_context(|| format!("cannot become {SYSTEMD}"))
}
