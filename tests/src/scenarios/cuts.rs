// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The power is cut: what was flushed is there.
//!
//! The machine's disks lose what was not flushed when it is cut off; the first scenario shows that they do. What was
//! acknowledged is noted over the line to the host, which loses nothing.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::time::Duration;

use anyhow::{bail, ensure, Context as _, Result};
use atom_payload::spec::Layout;
use atomctl::report::Mode;

use super::Context;
use crate::composed::{self, stripe, Target};
use crate::load::durable::{self, Durable};
use crate::power;
use crate::random;
use crate::site::Site;
use crate::{queue, wait};

const PATIENCE: Duration = Duration::from_secs(120);
/// Writers on the volume.
const WRITERS: u64 = 4;
/// Where notes about rounds begin, and the one about the seed.
const FLUSHED: &str = "flushed";
const SEED: &str = "seed";

/// What the other scenario stands on.
pub fn a_disk_that_is_cut_off_keeps_what_was_flushed_and_nothing_else(
    context: &mut Context,
) -> Result<()> {
    let disk = "/dev/vda";
    let (first, second) = (queue::read_block(disk, 0)?, queue::read_block(disk, 1)?);
    let boot = u8::try_from(context.boot()?)?;
    ensure!(first.iter().all(|byte| *byte == boot), "boot {boot} reads {:?}", &first[..8]);
    ensure!(second.iter().all(|byte| *byte == 0), "what was not flushed is there");
    if context.is_last_boot() {
        return Ok(());
    }
    queue::write_block(disk, 0, boot + 1)?;
    OpenOptions::new().write(true).open(disk)?.sync_data().context("no flush")?;
    queue::write_block(disk, 1, 0xee)?;
    ensure!(queue::read_block(disk, 1)?.iter().all(|byte| *byte == 0xee), "it was not written");
    until_the_cut(context, || Ok(()))
}

/// Half of the cuts come while payloads are replaced.
pub fn what_was_flushed_outlives_power_cuts(context: &mut Context) -> Result<()> {
    let boot = context.boot()?;
    let site = Site::on_guest("2.0.0")?;
    let targets = [Target::bdev("/dev/vda"), Target::bdev("/dev/vdb")];
    // The same disks, one time striped and one time one behind the other; each boot writes everything anew.
    let layout = |boot: u32| if boot % 4 < 2 { stripe(64) } else { Layout::Linear };
    if let Some(before) = boot.checked_sub(1) {
        context.step("what was flushed before the cut");
        let noted = Noted::read(&power::notes()?)?;
        let volume = composed::create(&site, "data", layout(before), &targets)?;
        let newer = durable::verify(&volume.device, noted.seed, &noted.flushed)?;
        context.fact("rounds_flushed_before_the_last_cut", noted.flushed.iter().sum::<u64>());
        context.fact("blocks_newer_than_the_last_flush", newer);
        site.destroy("data")?;
    }
    if context.is_last_boot() {
        return site.leave();
    }
    let volume = composed::create(&site, "data", layout(boot), &targets)?;
    ensure!(volume.bytes >= durable::bytes(WRITERS), "{volume:?}");
    let seed = random::seed()?.wrapping_add(u64::from(boot));
    context.note(&format!("{SEED} {seed}"));
    let mut durable = Durable::start(&volume.device, seed, WRITERS, |writer, round| {
        println!("{}{FLUSHED} {writer} {round}", power::NOTE);
    })?;
    wait::until("every writer has flushed", PATIENCE, || {
        durable.check()?;
        Ok(durable.rounds() > 1)
    })?;
    let with_upgrades = boot % 2 == 1;
    context.step(if with_upgrades { "a cut within upgrades" } else { "a cut" });
    let mut versions = ["2.1.0", "2.0.0"].into_iter().cycle();
    until_the_cut(context, || {
        durable.check()?;
        if with_upgrades {
            let next = versions.next().context("versions have ended")?;
            site.upgrade(next, Mode::Warm)?;
        }
        Ok(())
    })
}

/// Lets the host cut the power, and does something over and over until it has.
fn until_the_cut(context: &Context, mut meanwhile: impl FnMut() -> Result<()>) -> Result<()> {
    context.note(power::READY);
    wait::until("the power is cut", PATIENCE, || meanwhile().map(|()| false))
}

/// What a boot has noted about its writers.
struct Noted {
    seed: u64,
    /// By writer, the last round.
    flushed: Vec<u64>,
}

impl Noted {
    fn read(notes: &[String]) -> Result<Self> {
        let mut seed = None;
        let mut last = BTreeMap::new();
        for note in notes {
            let words: Vec<&str> = note.split(' ').collect();
            match words.as_slice() {
                [SEED, number] => seed = Some(number.parse()?),
                [FLUSHED, writer, round] => {
                    last.insert(writer.parse::<u64>()?, round.parse::<u64>()?);
                }
                _ if note == power::READY => {}
                _ => bail!("nobody understands the note {note:?}"),
            }
        }
        ensure!(last.keys().copied().eq(0..WRITERS), "notes of other writers: {last:?}");
        Ok(Self { seed: seed.context("no seed was noted")?, flushed: last.into_values().collect() })
    }
}
