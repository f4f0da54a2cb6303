// SPDX-License-Identifier: GPL-2.0

//! The operations of the lifecycle. Atom calls them one at a time, in process context; each may sleep.
//!
//! `table.rs` turns the pointers of a call into what these take, and their results into what it returns.

use kernel::prelude::*;

use crate::abi::image::ImageError;
use crate::abi::text::Text;
use crate::carried;
use crate::fault::{Points, Variant};
use crate::identity;
use crate::shape::MAX_VOLUMES;
use crate::state::{image_bytes, Export, Import};
use crate::sys;
use crate::volume::{Pages, Volume};
use crate::volumes::Volumes;

/// Gets the memory for so many devices. The old payload is still serving.
pub(crate) fn prepare(volumes: &mut Volumes, devices: u32) -> Result {
    let devices = usize::try_from(devices).unwrap_or(usize::MAX);
    volumes.prepare(devices.min(MAX_VOLUMES))?;
    Variant::prepared().inspect_err(|_| volumes.unprepare())
}

/// Inverse of [`prepare`].
pub(crate) fn unprepare(volumes: &mut Volumes) {
    volumes.unprepare();
}

/// Bytes of the image as it would be now. No volume comes before *freeze*, because Atom forwards no
/// command during a switch.
pub(crate) fn bound(volumes: &Volumes, schema: u32) -> u64 {
    let others = carried::bytes_in_image(&volumes.carried).saturating_add(Variant::image_bytes());
    image_bytes(schema, volumes.count()).map_or(0, |bytes| bytes.saturating_add(others) as u64)
}

/// Writes the image, and changes nothing. Returns the bytes used; with `ENOSPC`, the bytes needed.
pub(crate) fn freeze(
    volumes: &Volumes,
    schema: u32,
    buffer: &mut [u8],
) -> Result<u64, (Error, u64)> {
    Variant::freezing().map_err(|error| (error, 0))?;
    let range = identity::SCHEMA;
    if !(range.write_min..=range.write_max).contains(&schema) {
        return Err((EINVAL, 0));
    }
    export(volumes, schema, buffer).map_err(|error| match error {
        ImageError::NoRoom => (ENOSPC, bound(volumes, schema)),
        _ => (EINVAL, 0),
    })
}

fn export(volumes: &Volumes, schema: u32, buffer: &mut [u8]) -> Result<u64, ImageError> {
    let producer = Text::new(identity::VERSION);
    let count = volumes.count();
    let mut image = Export::new(buffer, &producer, schema, count, volumes.next_serial)?;
    volumes.try_each(0, |volume| image.volume(&volume.describe(), volume.counts()))?;
    Variant::export(&mut image)?;
    carried::unpack(&volumes.carried)?.try_for_each(|record| image.other(&record))?;
    image.finish().map(|bytes| bytes as u64)
}

/// Leaves an image of the volumes as they are now with Atom. Sleeps. What fails is only logged: without
/// it nothing is missing but the way on from a payload that cannot be asked any more.
#[cfg(not(payload_abi = "0"))]
pub(crate) fn checkpoint(volumes: &Volumes) {
    if let Err(error) = try_checkpoint(volumes) {
        kernel::pr_warn_once!("no checkpoint was left: error {}\n", error.to_errno());
    }
}

#[cfg(not(payload_abi = "0"))]
fn try_checkpoint(volumes: &Volumes) -> Result {
    let schema = identity::SCHEMA.write_max;
    let bytes = usize::try_from(bound(volumes, schema)).map_err(|_| EINVAL)?;
    let mut buffer = KVVec::from_elem(0u8, bytes, GFP_KERNEL)?;
    let used = export(volumes, schema, &mut buffer).map_err(|_| EINVAL)?;
    let used = usize::try_from(used).map_err(|_| EINVAL)?;
    sys::checkpoint(buffer.get(..used).ok_or(EINVAL)?)
}

/// There are no checkpoints in 1.0.
#[cfg(payload_abi = "0")]
pub(crate) fn checkpoint(_volumes: &Volumes) {}

/// Takes over the volumes of `image`, or begins empty. On an error nothing is left of it.
///
/// Of a `checkpoint` the volumes and devices are as they are now, and all counts are old.
pub(crate) fn adopt(
    volumes: &mut Volumes,
    image: Option<&[u8]>,
    epoch: u64,
    checkpoint: bool,
) -> Result {
    if volumes.count() != 0 {
        // It would be live already.
        return Err(EBUSY);
    }
    let pages = if checkpoint { Pages::Recounted } else { Pages::Claimed };
    let adopted = match image {
        Some(image) => import(volumes, image, pages),
        None => Variant::adopted(None),
    };
    volumes.unprepare();
    match adopted {
        Ok(()) => sys::set_epoch(epoch),
        // Atom forgets what was bound and claimed when adopt fails; only the volumes are ours.
        Err(_) => volumes.clear(),
    }
    adopted
}

fn import(volumes: &mut Volumes, image: &[u8], pages: Pages) -> Result {
    let image = Import::parse_with(image, &identity::SCHEMA, Variant::KEYS).map_err(|error| {
        pr_err!("{}: image refused: {}\n", identity::VERSION, format_args!("{error}"));
        sys::eproto()
    })?;
    let mut bound = 0usize;
    for (mut description, counts) in image.volumes() {
        description.shape = Variant::shape(description.shape);
        let blank = volumes.blank()?;
        volumes.insert(Volume::new(blank, &description, counts, pages)?)?;
        Variant::adopting(bound, image.volumes)?;
        if Variant::binds(bound, image.volumes) {
            sys::bind_device(description.device, description.id.slot())?;
        }
        Variant::bound(&description)?;
        bound = bound.saturating_add(1);
    }
    Variant::adopting(bound, image.volumes)?;
    Variant::adopted(Some(&image))?;
    volumes.carry(&image)?;
    volumes.next_serial = image.next_serial;
    Ok(())
}

/// Drops the volumes, not their pages: another payload, or Atom, has them now.
pub(crate) fn abandon(volumes: &mut Volumes) {
    volumes.clear();
    volumes.unprepare();
    Variant::abandoned();
}
