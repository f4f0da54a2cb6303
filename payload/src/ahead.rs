// SPDX-License-Identifier: GPL-2.0

//! Copying the volumes to the next payload while they are served, so that little is left for *freeze* and *adopt*.
//!
//! A copy is an image like any other one. A difference has the volumes that may have changed since they were copied last,
//! and all records that are not about volumes. Which volumes there are does not change meanwhile.
//!
//! What the next payload makes of it, nobody finds before *adopt*: volumes, with their stores claimed and their devices
//! bound. Volumes over targets it takes over in *adopt* as a whole, because their connections come and go until then; a
//! difference always has them.

use kernel::prelude::*;

use crate::clients;
use crate::fault::{Points, Variant};
use crate::identity;
use crate::ops::{bound_of, write, Extent};
use crate::points;
use crate::state::Import;
use crate::sys;
use crate::volume::{Pages, Volume};
use crate::volumes::Volumes;

/// Bytes of an image, and the most bytes of a difference.
pub(crate) type Copied = (u64, u64);

/// Writes a copy of the volumes, or the difference to the last one. I/O is served. On an error the number is the bytes
/// that are needed, for `ENOSPC`.
pub(crate) fn copy(
    volumes: &Volumes,
    schema: u32,
    buffer: &mut [u8],
    difference: bool,
) -> Result<Copied, (Error, u64)> {
    let extent = if difference { Extent::Difference } else { Extent::Copy };
    let used = write(volumes, schema, buffer, extent, false)?;
    points::COPY_IMAGE.meet_with(buffer).map_err(|error| (error, 0))?;
    Ok((used, bound_of(volumes, schema, Variant::difference_bytes())))
}

/// Reads a copy, or a difference. Another payload serves. On an error *unprepare* undoes what was done.
pub(crate) fn adopt_ahead(volumes: &mut Volumes, image: &[u8], difference: bool) -> Result {
    if difference != volumes.ahead || (!difference && volumes.count() != 0) {
        return Err(EBUSY);
    }
    volumes.ahead = true;
    read(volumes, image, if difference { What::Difference } else { What::Copy })
}

/// *adopt* after that: the last difference, and what was not taken over before. `EINVAL` when nothing was.
pub(crate) fn adopt(volumes: &mut Volumes, image: &[u8]) -> Result {
    if !volumes.ahead {
        return Err(EINVAL);
    }
    read(volumes, image, What::Last)?;
    volumes.ahead = false;
    Ok(())
}

/// What an image is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Copy,
    Difference,
    /// A difference, in the pause.
    Last,
}

// One piece of code for all, so that what runs in the pause has run before it.
#[inline(never)]
fn read(volumes: &mut Volumes, image: &[u8], what: What) -> Result {
    let image = Import::parse_with(image, &identity::SCHEMA, Variant::KEYS).map_err(|error| {
        pr_err!("{}: image refused: {}\n", identity::VERSION, format_args!("{error}"));
        sys::eproto()
    })?;
    match what {
        What::Copy => begin(volumes, &image)?,
        What::Difference | What::Last => catch_up(volumes, &image, what)?,
    }
    points::ADOPT_CARRY.meet()?;
    volumes.carry(&image)?;
    volumes.next_serial = image.next_serial;
    match what {
        What::Copy => Variant::adopted_ahead(&image, false),
        What::Difference => Variant::adopted_ahead(&image, true),
        What::Last => Variant::adopted(Some(&image)),
    }
}

/// Makes the volumes of a whole image that can be made before the pause.
fn begin(volumes: &mut Volumes, image: &Import<'_>) -> Result {
    let mut left = image.volumes();
    while let Some((description, counts)) = left.next() {
        if left.past().is_some() {
            continue;
        }
        let blank = volumes.blank()?;
        points::ADOPT_CLAIM.meet()?;
        volumes.insert(Volume::new(blank, &description, counts, Pages::Claimed)?)?;
        points::ADOPT_BIND.meet()?;
        sys::bind_device(description.device, description.id.slot())?;
    }
    Ok(())
}

/// Brings what was made before to what a difference says; with the last one the rest comes.
fn catch_up(volumes: &mut Volumes, image: &Import<'_>, what: What) -> Result {
    let mut left = image.volumes();
    while let Some((description, counts)) = left.next() {
        let slot = description.id.slot();
        match left.past() {
            None => {
                let known = sys::with_owned(slot, |volume| volume.catch_up(&description, counts));
                known.ok_or_else(sys::eproto)??;
            }
            Some(past) if what == What::Last => {
                let blank = volumes.blank()?;
                points::ADOPT_CLAIM.meet()?;
                volumes.insert(clients::adopt(blank, &description, counts, past, false)?)?;
                points::ADOPT_BIND.meet()?;
                sys::bind_device(description.device, slot)?;
            }
            Some(_) => {}
        }
    }
    Ok(())
}
