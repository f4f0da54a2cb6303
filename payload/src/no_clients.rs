// SPDX-License-Identifier: GPL-2.0

//! What `clients.rs` is in a version whose volumes have no targets: nothing.

use kernel::prelude::*;

use crate::abi::image::ImageError;
#[cfg(not(payload_abi = "0"))]
use crate::abi::{control::Blocker, text::Text};
use crate::counts::Counts;
#[cfg(not(payload_abi = "0"))]
use crate::identity;
use crate::shape::Description;
use crate::state::{Export, Past};
use crate::volume::{Blank, Volume};
use crate::volumes::Volumes;

pub(crate) struct Memory;

impl Memory {
    pub(crate) fn new(_volumes: &Volumes) -> Result<Self> {
        Ok(Self)
    }
}

pub(crate) fn prepare() -> Result {
    Ok(())
}

pub(crate) fn unprepare() {}

pub(crate) fn is_quiet() -> bool {
    true
}

pub(crate) fn park() -> Result {
    Ok(())
}

pub(crate) fn unpark() {}

#[cfg(not(payload_abi = "0"))]
pub(crate) fn oldest_schema(_volumes: &Volumes) -> u32 {
    identity::SCHEMA.write_min
}

#[cfg(not(payload_abi = "0"))]
pub(crate) fn suspend() {}

#[cfg(not(payload_abi = "0"))]
pub(crate) fn resume(_paused_ns: u64) {}

#[cfg(not(payload_abi = "0"))]
pub(crate) fn revoke(_volumes: &Volumes) -> Result {
    Ok(())
}

#[cfg(not(payload_abi = "0"))]
pub(crate) fn explain(_slot: usize, _blocker: &Blocker) -> Option<Text> {
    None
}

pub(crate) fn image_bytes(_volumes: &Volumes, _schema: u32) -> Option<usize> {
    Some(0)
}

pub(crate) fn export(
    _volume: &Volume,
    _image: &mut Export<'_>,
    _memory: &mut Memory,
    _parked: bool,
) -> Result<(), ImageError> {
    Ok(())
}

pub(crate) fn adopt(
    _blank: Blank,
    _description: &Description,
    _counts: Counts,
    _past: &Past<'_>,
    _checkpoint: bool,
) -> Result<KBox<Volume>> {
    Err(EINVAL)
}
