// SPDX-License-Identifier: GPL-2.0

//! The operations of the lifecycle. Atom calls them one at a time, in process context; each may sleep.
//!
//! `sys.rs` turns the pointers of a call into what these take, and their results into what it returns.

use kernel::prelude::*;

use crate::abi::image::ImageError;
use crate::abi::text::Text;
use crate::fault;
use crate::identity;
use crate::shape::MAX_VOLUMES;
use crate::state::{image_bytes, Export, Import};
use crate::sys;
use crate::volume::Volume;
use crate::volumes::Volumes;

/// Gets the memory for so many devices. The old payload is still serving.
pub(crate) fn prepare(volumes: &mut Volumes, devices: u32) -> Result {
    let devices = usize::try_from(devices).unwrap_or(usize::MAX);
    volumes.prepare(devices.min(MAX_VOLUMES))?;
    fault::in_prepare().inspect_err(|_| volumes.unprepare())
}

/// Inverse of [`prepare`].
pub(crate) fn unprepare(volumes: &mut Volumes) {
    volumes.unprepare();
}

/// Bytes of the image as it would be now. No volume comes before *freeze*, because Atom forwards no
/// command during a switch.
pub(crate) fn bound(volumes: &Volumes, schema: u32) -> u64 {
    image_bytes(schema, volumes.count()).map_or(0, |bytes| bytes as u64)
}

/// Writes the image, and changes nothing. Returns the bytes used; with `ENOSPC`, the bytes needed.
pub(crate) fn freeze(
    volumes: &Volumes,
    schema: u32,
    buffer: &mut [u8],
) -> Result<u64, (Error, u64)> {
    fault::in_freeze().map_err(|error| (error, 0))?;
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
    image.finish().map(|bytes| bytes as u64)
}

/// Inverse of [`freeze`], which has changed nothing.
pub(crate) fn thaw() {}

/// Takes over the volumes of `image`, or begins empty. On an error nothing is left of it.
pub(crate) fn adopt(volumes: &mut Volumes, image: Option<&[u8]>, epoch: u64) -> Result {
    if volumes.count() != 0 {
        // It would be live already.
        return Err(EBUSY);
    }
    let adopted = image.map_or(Ok(()), |image| import(volumes, image));
    volumes.unprepare();
    match adopted {
        Ok(()) => sys::set_epoch(epoch),
        // Atom forgets what was bound and claimed when adopt fails; only the volumes are ours.
        Err(_) => volumes.clear(),
    }
    adopted
}

fn import(volumes: &mut Volumes, image: &[u8]) -> Result {
    let image = Import::parse(image, &identity::SCHEMA).map_err(|error| {
        pr_err!("{}: image refused: {}\n", identity::VERSION, format_args!("{error}"));
        sys::eproto()
    })?;
    let mut bound = 0usize;
    for (description, counts) in image.volumes() {
        let blank = volumes.blank()?;
        volumes.insert(Volume::new(blank, &description, counts, false)?)?;
        fault::in_adopt(bound, image.volumes)?;
        if !fault::forgets_to_bind(bound, image.volumes) {
            sys::bind_device(description.device, description.id.slot())?;
        }
        bound = bound.saturating_add(1);
    }
    fault::in_adopt(bound, image.volumes)?;
    volumes.next_serial = image.next_serial;
    Ok(())
}

/// Drops the volumes, not their pages: another payload, or Atom, has them now.
pub(crate) fn abandon(volumes: &mut Volumes) {
    volumes.clear();
    volumes.unprepare();
}
