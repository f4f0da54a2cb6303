// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! File systems: ext4 and xfs, one on disks and one over the network, and after some boots the other way round. In between
//! they are not made anew: what one cut does to them the next boots have to live with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Result};
use atom_payload::spec::Layout;

use super::{noting, seed, Noted, Plan, FIRST_VERSION};
use crate::composed::{self, stripe, Target, Volume};
use crate::load::synced;
use crate::outside;
use crate::power;
use crate::scenarios::Context;
use crate::site::Site;

/// Writers on each file system.
const WRITERS: u64 = 2;
/// So many boots in a row find the same file systems on the same volumes.
const BOOTS: u32 = 8;
/// The volumes: over the disks and over the network.
const NAMES: [&str; 2] = ["disks", "network"];

/// A file system, in the words of its tools.
struct Kind {
    name: &'static str,
    make: &'static [&'static str],
    /// Exits with an error when it finds anything to repair, and repairs nothing.
    check: &'static [&'static str],
    /// What the kernel says when it has replayed the journal.
    replayed: &'static str,
}

const EXT4: Kind = Kind {
    name: "ext4",
    make: &["mkfs.ext4", "-q", "-F"],
    check: &["e2fsck", "-f", "-n"],
    replayed: "recovery complete",
};
const XFS: Kind = Kind {
    name: "xfs",
    make: &["mkfs.xfs", "-q", "-f"],
    check: &["xfs_repair", "-n"],
    replayed: "Ending recovery",
};

pub fn what_was_synced_to_files_outlives_power_cuts(context: &mut Context) -> Result<()> {
    let boot = context.boot()?;
    let site = Site::on_guest(FIRST_VERSION)?;
    let server = outside::server(context)?;
    let volumes = volumes(&site, &server)?;
    let mut noted = None;
    if let Some(before) = boot.checked_sub(1) {
        let mut theirs = Noted::read(&power::notes()?)?;
        for (volume, kind) in volumes.iter().zip(kinds(before)) {
            context.step(&format!("what was synced to {} on {}", kind.name, volume.name));
            mount(context, volume)?;
            replayed(context, volume, kind)?;
            let last = theirs.of(&volume.name, WRITERS)?;
            let folder = place(volume).join(before.to_string());
            let newer = synced::verify(&folder, theirs.seed, &last)?;
            theirs.add(&last, newer);
            fs::remove_dir_all(&folder)?;
            context.run(&["umount", &volume.device])?;
            context.run(&[kind.check, &[volume.device.as_str()]].concat())?;
        }
        noted = Some(theirs);
    }
    if context.is_last_boot() {
        if let Some(noted) = noted {
            noted.tell(context);
        }
        return site.leave();
    }
    if let Some(noted) = noted {
        noted.seen.note(context);
    }
    let seed = seed(context, boot)?;
    let mut loads = Vec::new();
    for ((volume, kind), name) in volumes.iter().zip(kinds(boot)).zip(NAMES) {
        if boot.is_multiple_of(BOOTS) {
            context.step(&format!("a new {} on {name}", kind.name));
            context.run(&[kind.make, &[volume.device.as_str()]].concat())?;
        }
        mount(context, volume)?;
        let folder = place(volume).join(boot.to_string());
        loads.push(synced::start(&folder, seed, WRITERS, noting(name))?);
    }
    Plan { boot }.until_the_cut(context, &site, &mut loads)
}

/// The file systems on the volumes of a boot.
fn kinds(boot: u32) -> [&'static Kind; 2] {
    if (boot / BOOTS).is_multiple_of(2) {
        [&EXT4, &XFS]
    } else {
        [&XFS, &EXT4]
    }
}

fn volumes(site: &Site, server: &Target) -> Result<[Volume; 2]> {
    let disks = [Target::bdev("/dev/vda"), Target::bdev("/dev/vdb")];
    let server = server.clone().connections(2);
    Ok([
        composed::create(site, NAMES[0], stripe(64), &disks)?,
        composed::create(site, NAMES[1], Layout::Linear, &[server])?,
    ])
}

fn place(volume: &Volume) -> PathBuf {
    Path::new("/mnt").join(&volume.name)
}

fn mount(context: &Context, volume: &Volume) -> Result<()> {
    let place = place(volume);
    fs::create_dir_all(&place)?;
    context.run(&["mount", &volume.device, &place.display().to_string()])?;
    Ok(())
}

/// The power was cut while it was mounted and written to, so its journal had something to replay.
fn replayed(context: &Context, volume: &Volume, kind: &Kind) -> Result<()> {
    let log = context.run(&["dmesg"])?;
    let name = volume.device.trim_start_matches("/dev/");
    let said = log.lines().any(|line| line.contains(name) && line.contains(kind.replayed));
    ensure!(said, "the journal of {} on {} was not replayed", kind.name, volume.name);
    Ok(())
}
