// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Raw volumes: one over the disks of the machine beside one over the network.

use anyhow::{Context as _, Result};
use atom_payload::spec::Layout;

use super::{seed, telling, Noted, Plan, FIRST_VERSION};
use crate::composed::{self, stripe, Target, Volume};
use crate::oracle::cut::{Run, REGION};
use crate::oracle::device::{Device, Promise};
use crate::oracle::load::volume_name;
use crate::outside;
use crate::power;
use crate::queue;
use crate::scenarios::Context;
use crate::site::Site;

/// Lanes of the oracle on each volume.
const LANES: u64 = 4;
/// The volumes: over the disks and over the network.
const NAMES: [&str; 2] = ["disks", "network"];

pub fn what_was_flushed_outlives_power_cuts(context: &mut Context) -> Result<()> {
    let boot = context.boot()?;
    let site = Site::on_guest(FIRST_VERSION)?;
    let server = outside::server(context)?;
    let mut noted = None;
    if let Some(before) = boot.checked_sub(1) {
        context.step("what was flushed before the cut");
        let mut theirs = Noted::read(&power::notes()?)?;
        for (volume, index) in volumes(&site, &server, before)?.iter().zip(0..) {
            let (run, device) = run(volume, theirs.seed, before, index)?;
            let told = theirs.told.get(&volume.name).context("nothing was told")?;
            let seen = run.verify(&device, told).with_context(|| volume.name.clone())?;
            theirs.seen.rounds += seen.steps;
            theirs.seen.newer += seen.proven_by_the_disk;
            drop(device);
            site.destroy(&volume.name)?;
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
    for ((volume, name), index) in volumes(&site, &server, boot)?.iter().zip(NAMES).zip(0..) {
        let (run, device) = run(volume, seed, boot, index)?;
        loads.push(run.start(device, telling(name))?);
    }
    Plan { boot }.until_the_cut(context, &site, &mut loads)
}

/// The oracle's run of a boot on a volume.
fn run(volume: &Volume, seed: u64, boot: u32, index: u64) -> Result<(Run, Device)> {
    let name = volume_name(&[seed, index]);
    let block = queue::limit(&volume.device, "logical_block_size")?;
    let promise = Promise { discard_zeroes: false, blank: false };
    let device = Device::open(&volume.device, name, LANES * REGION * block, promise)?;
    let run = Run { seed: seed.wrapping_add(index), lanes: LANES, generation: boot.into() };
    Ok((run, device))
}

/// The volumes of a boot: the same disks, one time striped and one time one behind the other, and the server's over one
/// connection or two. Each boot writes everything anew.
fn volumes(site: &Site, server: &Target, boot: u32) -> Result<[Volume; 2]> {
    let (layout, connections) = if boot % 4 < 2 { (stripe(64), 1) } else { (Layout::Linear, 2) };
    let disks = [Target::bdev("/dev/vda"), Target::bdev("/dev/vdb")];
    let server = server.clone().connections(connections);
    Ok([
        composed::create(site, NAMES[0], layout, &disks)?,
        composed::create(site, NAMES[1], Layout::Linear, &[server])?,
    ])
}
