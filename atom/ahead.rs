// SPDX-License-Identifier: GPL-2.0

//! Copying the state of the live payload to the candidate while I/O is served, so that only what differs is frozen.
//!
//! As in the migration of a live machine, rounds of differences follow the whole as long as each is much smaller than the
//! one before. At least one does: it also runs the code of the last one, so that within the pause nothing is read or
//! run for the first time.

use kernel::prelude::*;
use kernel::sync::{Arc, UniqueArc};

use crate::abi::image::Image;
use crate::abi::table::{adopt_flags, freeze_flags};
use crate::abi::version::{reason, Refusal};
use crate::operation::{failed, run, Outcome};
use crate::points;
use crate::state::{Operation, StoredImage};
use crate::sys::STATE;
use crate::turn::Turn;

/// Most rounds of differences.
const ROUNDS: usize = 4;
/// A difference of so many bytes, or fewer, is not worth another round.
const SMALL_BYTES: usize = 64 << 10;

/// What is left to be frozen.
pub(crate) enum Left {
    /// Everything, into the room that there was for it.
    Whole(UniqueArc<StoredImage>),
    /// What differs from what the candidate has read.
    Difference {
        /// The first copy, of everything.
        base: Arc<StoredImage>,
        /// Room for what differs.
        room: UniqueArc<StoredImage>,
    },
}

/// Who copies, and who reads.
pub(crate) struct Pair<'a> {
    pub(crate) turn: &'a Turn,
    pub(crate) live: u32,
    pub(crate) candidate: u32,
    pub(crate) devices: u32,
}

impl Pair<'_> {
    /// Copies into `room`, and then what differs. When the live payload cannot do that now, everything is left to be
    /// frozen; a refusal means that the candidate cannot take over. I/O is served. Sleeps.
    pub(crate) fn copy(&self, mut room: UniqueArc<StoredImage>) -> Outcome<Left> {
        let can = {
            let mut state = STATE.lock();
            state.reset_bindings();
            let copies = |id| state.payload(id).is_some_and(|entry| entry.payload.copies_ahead());
            let adopts = |id| state.payload(id).is_some_and(|entry| entry.payload.adopts_ahead());
            copies(self.live) && adopts(self.candidate)
        };
        if !can || points::SWITCH_COPY.meet().is_err() {
            return Ok(Left::Whole(room));
        }
        let Ok(delta_bytes) = self.export(&mut room, 0)? else {
            return Ok(Left::Whole(room));
        };
        let schema = room.schema;
        let difference = StoredImage::allocate(delta_bytes, schema).ok();
        let difference = difference.filter(|_| points::IMAGE_DIFFERENCE.meet().is_ok());
        let Some(Ok(mut difference)) = difference.map(|room| UniqueArc::new(room, GFP_KERNEL))
        else {
            return Ok(Left::Whole(room));
        };
        self.import(&room, 0)?;
        let base: Arc<StoredImage> = room.into();
        let mut before = base.bytes().len();
        for _ in 0..ROUNDS {
            self.export(&mut difference, freeze_flags::DELTA)?.map_err(failed)?;
            self.import(&difference, adopt_flags::DELTA)?;
            let bytes = difference.bytes().len();
            if bytes <= SMALL_BYTES || bytes > before / 2 {
                break;
            }
            before = bytes;
        }
        Ok(Left::Difference { base, room: difference })
    }

    /// Has the live payload write into `room`. Returns the most bytes that a difference can have, or an errno.
    fn export(&self, room: &mut StoredImage, flags: u32) -> Outcome<Result<u64, i32>> {
        let schema = room.schema;
        let copied = run(self.turn, self.live, Operation::CopyAhead, |payload| {
            payload.copy_ahead(schema, &mut room.buffer, flags)
        })?;
        Ok(copied.map(|(used, delta_bytes)| {
            room.used = used;
            delta_bytes
        }))
    }

    /// Has the candidate read an image, once that is found to be one.
    fn import(&self, image: &StoredImage, flags: u32) -> Outcome {
        if !Image::parse(image.bytes()).is_ok_and(|parsed| parsed.schema() == image.schema) {
            return Err(Refusal::new(reason::IMAGE, 0, 0).into());
        }
        let devices = self.devices;
        match run(self.turn, self.candidate, Operation::AdoptAhead, |payload| {
            payload.adopt_ahead(devices, image.bytes(), flags)
        })? {
            0 => Ok(()),
            errno => Err(failed(errno).into()),
        }
    }
}
