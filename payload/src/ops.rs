// SPDX-License-Identifier: GPL-2.0

//! The operations of the lifecycle. Atom calls them one at a time, in process context; each may sleep.
//!
//! `table.rs` turns the pointers of a call into what these take, and their results into what it returns.
//!
//! What a client has beside its volumes: the reserve of bios with its task (`bios.rs`), and the tasks that look
//! after connections (`nbd`), which *park* stops, so that nothing of theirs runs, and *unpark* lets go on.
//!
//! | operation | targets | undone on an error by |
//! | --- | --- | --- |
//! | *prepare* | reserve and tasks are made, when there are devices | itself; *unprepare* |
//! | *suspend* | no more attempts to connect | *resume* |
//! | *freeze* | parked, then written down | itself, unparked; *thaw*, unparked |
//! | *adopt* | claimed and made; tasks look after them | itself: parked, targets and volumes dropped, reserve and tasks unmade. What was claimed Atom forgets |
//! | *abandon* | parked, volumes dropped, after a grace period reserve and tasks unmade | |
//! | *hand_back* | what was not sent waits at the gates | it is dispatched again |
//! | *revoke* | parked; nothing in flight below, else refused; connections let go of their requests; unparked | itself, unparked |

use kernel::prelude::*;

#[cfg(not(payload_abi = "0"))]
use crate::abi::control::Blocker;
use crate::abi::image::ImageError;
use crate::abi::text::Text;
#[cfg(payload_ahead)]
use crate::ahead;
use crate::carried;
use crate::clients;
use crate::fault::{Points, Variant};
use crate::identity;
use crate::points;
use crate::shape::MAX_VOLUMES;
use crate::state::{image_bytes, Export, Import};
use crate::sys;
use crate::volume::{Pages, Volume};
use crate::volumes::Volumes;

/// Gets the memory for so many devices. The old payload is still serving.
pub(crate) fn prepare(volumes: &mut Volumes, devices: u32) -> Result {
    let devices = usize::try_from(devices).unwrap_or(usize::MAX);
    points::PREPARE_ALLOC.meet()?;
    volumes.prepare(devices.min(MAX_VOLUMES))?;
    if devices != 0 {
        let prepared = points::PREPARE_CLIENTS.meet().and_then(|()| clients::prepare());
        prepared.inspect_err(|_| volumes.unprepare())?;
    }
    Variant::prepared().inspect_err(|_| unprepare(volumes))
}

/// Inverse of [`prepare`].
pub(crate) fn unprepare(volumes: &mut Volumes) {
    volumes.unprepare();
    #[cfg(payload_ahead)]
    if volumes.ahead {
        volumes.clear();
        Variant::unprepared();
    }
    if volumes.count() == 0 {
        clients::unprepare();
    }
}

/// Bytes of the image as it would be now, or more than any image can have when the schema has no place for
/// the volumes. No volume comes before *freeze*, because Atom forwards no command during a switch.
pub(crate) fn bound(volumes: &Volumes, schema: u32) -> u64 {
    bound_of(volumes, schema, Variant::image_bytes())
}

/// The same with so many bytes of a variant's own records.
pub(crate) fn bound_of(volumes: &Volumes, schema: u32, own: usize) -> u64 {
    let others = carried::bytes_in_image(&volumes.carried).saturating_add(own);
    let Some(targets) = clients::image_bytes(volumes, schema) else {
        return u64::MAX;
    };
    let others = others.saturating_add(targets);
    image_bytes(schema, volumes.count()).map_or(0, |bytes| bytes.saturating_add(others) as u64)
}

/// What of the volumes is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of them.
    Whole,
    /// The same, and a difference will follow.
    #[cfg(payload_ahead)]
    Copy,
    /// Those that may have changed since they were copied.
    #[cfg(payload_ahead)]
    Difference,
}

/// Writes the image, and changes nothing. Returns the bytes used; on an error also the bytes needed, for `ENOSPC`.
///
/// With `pause` I/O is held, and nothing runs afterwards until [`thaw`]. Without it volumes are served, and what may be
/// different a moment later is left out of the image.
// One piece of code for both, so that what runs in the pause has run before it.
#[inline(never)]
pub(crate) fn write(
    volumes: &Volumes,
    schema: u32,
    buffer: &mut [u8],
    extent: Extent,
    pause: bool,
) -> Result<u64, (Error, u64)> {
    let range = identity::SCHEMA;
    if !(range.write_min..=range.write_max).contains(&schema) {
        return Err((EINVAL, 0));
    }
    if clients::image_bytes(volumes, schema).is_none() {
        return Err((EINVAL, 0));
    }
    if pause {
        points::FREEZE_PARK.meet().map_err(|error| (error, 0))?;
    }
    let quiet = clients::is_quiet();
    if pause && !quiet {
        clients::park().map_err(|error| (error, 0))?;
    }
    let exported = export(volumes, schema, buffer, pause || quiet, extent);
    let written = exported.map_err(|error| match error {
        ImageError::NoRoom => (ENOSPC, bound(volumes, schema)),
        _ => (EINVAL, 0),
    });
    if written.is_err() && pause {
        clients::unpark();
    }
    written
}

/// Writes the image in the pause.
pub(crate) fn freeze(
    volumes: &Volumes,
    schema: u32,
    buffer: &mut [u8],
    extent: Extent,
) -> Result<u64, (Error, u64)> {
    Variant::freezing().map_err(|error| (error, 0))?;
    let used = write(volumes, schema, buffer, extent, true)?;
    let spoiled = points::FREEZE_IMAGE.meet_with(buffer).map_err(|error| (error, 0));
    spoiled.map(|()| used).inspect_err(|_| clients::unpark())
}

/// Inverse of [`freeze`].
pub(crate) fn thaw(_volumes: &mut Volumes) {
    clients::unpark();
}

/// Stops what runs without a request.
#[cfg(not(payload_abi = "0"))]
pub(crate) fn suspend() {
    clients::suspend();
}

/// Inverse of [`suspend`], after a pause of so many nanoseconds.
#[cfg(not(payload_abi = "0"))]
pub(crate) fn resume(paused_ns: u64) {
    clients::resume(paused_ns);
}

/// Hands back every request that was not started. The gates are closed.
#[cfg(payload_client)]
pub(crate) fn hand_back(volumes: &Volumes) {
    clients::hand_back(volumes);
}

/// Lets go of every request. Errors: `EBUSY` when one may still be carried out.
#[cfg(not(payload_abi = "0"))]
pub(crate) fn revoke(volumes: &Volumes) -> Result {
    clients::revoke(volumes)
}

/// Why a request of a volume has not ended.
#[cfg(not(payload_abi = "0"))]
pub(crate) fn explain(slot: usize, blocker: &Blocker) -> Text {
    let known = clients::explain(slot, blocker);
    known.unwrap_or(Text::new("its dispatch has not returned"))
}

/// `parked`: nothing of a client runs, so that its connections can be written down as they are.
fn export(
    volumes: &Volumes,
    schema: u32,
    buffer: &mut [u8],
    parked: bool,
    extent: Extent,
) -> Result<u64, ImageError> {
    let (producer, serial) = (Text::new(identity::VERSION), volumes.next_serial);
    let mut image = match extent {
        #[cfg(payload_ahead)]
        Extent::Difference => Export::of_some(buffer, &producer, schema, serial)?,
        _ => Export::new(buffer, &producer, schema, volumes.count(), serial)?,
    };
    let mut memory = clients::Memory::new(volumes).map_err(|_| ImageError::NoRoom)?;
    volumes.try_each(0, |volume| {
        // Before what they count, so that what is served meanwhile is found to be missing here later.
        let counts = volume.counts();
        #[cfg(payload_ahead)]
        match extent {
            Extent::Whole => {}
            Extent::Difference if !volume.has_changed(&counts) => return Ok(()),
            Extent::Copy | Extent::Difference => volume.note_copy(&counts),
        }
        image.volume(&volume.describe(), counts)?;
        clients::export(volume, &mut image, &mut memory, parked)
    })?;
    match extent {
        #[cfg(payload_ahead)]
        Extent::Difference => Variant::export_difference(&mut image)?,
        _ => Variant::export(&mut image)?,
    }
    carried::unpack(&volumes.carried)?.try_for_each(|record| image.other(&record))?;
    image.finish().map(|bytes| bytes as u64)
}

/// Leaves an image of the volumes as they are now with Atom. Sleeps. What fails is only logged: without
/// it nothing is missing but the way on from a payload that cannot be asked any more.
///
/// It is left in the oldest and in the newest schema, since whoever is to take over may be older or newer. An Atom that
/// keeps only one keeps the last.
#[cfg(not(payload_abi = "0"))]
pub(crate) fn checkpoint(volumes: &Volumes) {
    let (oldest, newest) = (clients::oldest_schema(volumes), identity::SCHEMA.write_max);
    let older = match oldest < newest {
        true => try_checkpoint(volumes, oldest),
        false => Ok(()),
    };
    if let Err(error) = older.and(try_checkpoint(volumes, newest)) {
        kernel::pr_warn_once!("no checkpoint was left: error {}\n", error.to_errno());
    }
}

#[cfg(not(payload_abi = "0"))]
fn try_checkpoint(volumes: &Volumes, schema: u32) -> Result {
    points::CHECKPOINT_WRITE.meet()?;
    let bytes = usize::try_from(bound(volumes, schema)).map_err(|_| EINVAL)?;
    let mut buffer = KVVec::from_elem(0u8, bytes, GFP_KERNEL)?;
    let used = export(volumes, schema, &mut buffer, false, Extent::Whole).map_err(|_| EINVAL)?;
    let used = usize::try_from(used).map_err(|_| EINVAL)?;
    sys::checkpoint(buffer.get(..used).ok_or(EINVAL)?)
}

/// There are no checkpoints in 1.0.
#[cfg(payload_abi = "0")]
pub(crate) fn checkpoint(_volumes: &Volumes) {}

/// What an image is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageKind {
    /// The volumes as they are.
    Whole,
    /// The volumes as they were when it was left; devices and preserved objects are as they are now.
    #[cfg(not(payload_abi = "0"))]
    Checkpoint,
    /// What differs from what was adopted ahead.
    #[cfg(payload_ahead)]
    Difference,
}

/// Takes over the volumes of `image`, or begins empty. On an error nothing is left of it.
///
/// Of a checkpoint the volumes and devices are as they are now, and all counts are old.
pub(crate) fn adopt(
    volumes: &mut Volumes,
    image: Option<&[u8]>,
    epoch: u64,
    kind: ImageKind,
) -> Result {
    #[cfg(payload_ahead)]
    let ahead = volumes.ahead;
    #[cfg(not(payload_ahead))]
    let ahead = false;
    if !ahead && volumes.count() != 0 {
        // It would be live already.
        return Err(EBUSY);
    }
    let adopted = match (image, kind) {
        #[cfg(payload_ahead)]
        (Some(image), ImageKind::Difference) => ahead::adopt(volumes, image),
        #[cfg(not(payload_abi = "0"))]
        (Some(image), ImageKind::Checkpoint) => import(volumes, image, Pages::Recounted),
        (Some(image), ImageKind::Whole) => import(volumes, image, Pages::Claimed),
        (None, _) => Variant::adopted(None),
    };
    volumes.unprepare();
    match adopted {
        Ok(()) => sys::set_epoch(epoch),
        // Atom forgets what was bound and claimed when adopt fails; only the volumes are ours.
        Err(_) => {
            forget(volumes);
        }
    }
    adopted
}

/// Drops the volumes, and after that what a client has beside them.
fn forget(volumes: &mut Volumes) {
    if let Err(error) = clients::park() {
        pr_err!("connections are still looked after: error {}\n", error.to_errno());
    }
    volumes.clear();
    clients::unprepare();
}

fn import(volumes: &mut Volumes, image: &[u8], pages: Pages) -> Result {
    let image = Import::parse_with(image, &identity::SCHEMA, Variant::KEYS).map_err(|error| {
        pr_err!("{}: image refused: {}\n", identity::VERSION, format_args!("{error}"));
        sys::eproto()
    })?;
    let mut bound = 0usize;
    let mut left = image.volumes();
    while let Some((mut description, counts)) = left.next() {
        description.shape = Variant::shape(description.shape);
        let blank = volumes.blank()?;
        points::ADOPT_CLAIM.meet()?;
        volumes.insert(match left.past() {
            None => Volume::new(blank, &description, counts, pages)?,
            Some(past) => {
                let checkpoint = pages == Pages::Recounted;
                clients::adopt(blank, &description, counts, past, checkpoint)?
            }
        })?;
        Variant::adopting(bound, image.volumes)?;
        points::ADOPT_BIND.meet()?;
        if Variant::binds(bound, image.volumes) {
            sys::bind_device(description.device, description.id.slot())?;
        }
        Variant::bound(&description)?;
        bound = bound.saturating_add(1);
    }
    Variant::adopting(bound, image.volumes)?;
    Variant::adopted(Some(&image))?;
    points::ADOPT_CARRY.meet()?;
    volumes.carry(&image)?;
    volumes.next_serial = image.next_serial;
    Ok(())
}

/// Drops the volumes, not their pages: another payload, or Atom, has them now.
pub(crate) fn abandon(volumes: &mut Volumes) {
    forget(volumes);
    volumes.unprepare();
    Variant::abandoned();
}
