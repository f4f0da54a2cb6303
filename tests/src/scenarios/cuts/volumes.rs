// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Raw volumes: one over the disks of the machine beside one over the network.

use anyhow::{ensure, Result};
use atom_payload::spec::Layout;

use super::{noting, seed, Noted, Plan, FIRST_VERSION};
use crate::composed::{self, stripe, Target, Volume};
use crate::load::durable;
use crate::outside;
use crate::power;
use crate::scenarios::Context;
use crate::site::Site;

/// Writers on each volume.
const WRITERS: u64 = 3;
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
        for volume in volumes(&site, &server, before)? {
            let flushed = theirs.of(&volume.name, WRITERS)?;
            let newer = durable::verify(&volume.device, theirs.seed, &flushed)?;
            theirs.add(&flushed, newer);
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
    for (volume, name) in volumes(&site, &server, boot)?.iter().zip(NAMES) {
        ensure!(volume.bytes >= durable::bytes(WRITERS), "{volume:?}");
        loads.push(durable::start(&volume.device, seed, WRITERS, noting(name))?);
    }
    Plan { boot }.until_the_cut(context, &site, &mut loads)
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
