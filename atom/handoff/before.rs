// SPDX-License-Identifier: GPL-2.0

//! Before the pause: all that can fail or be slow, while the live payload serves or Atom holds.

use core::mem::replace;

use kernel::prelude::*;
use kernel::sync::UniqueArc;

use super::{Handoff, Hurry};
use crate::abi::control::{outcome, phase, stage, Stage};
use crate::abi::lifecycle::{Event, Step};
use crate::abi::version::{common_schema, reason, Refusal};
use crate::ahead::{Left, Pair};
use crate::back::advance;
use crate::barrier;
use crate::operation::{failed, run, Outcome, Stop};
use crate::points;
use crate::state::{Operation, StoredImage};
use crate::sys::{self, STATE};
/// The longest that one call of *suspend* may wait.
const SUSPEND_WAIT_NS: u64 = 50_000_000;

impl Handoff<'_> {
    pub(super) fn find_candidate(&mut self) -> Outcome {
        let id = self.plan.target;
        let mut state = STATE.lock();
        let missing = Refusal::new(reason::NO_PAYLOAD, 0, id.into());
        let live = state.live;
        let entry = state.payload_mut(id).ok_or(missing)?;
        self.report.to = entry.payload.version();
        if live == id {
            return Err(Refusal::new(reason::SLOT_TAKEN, 0, id.into()).into());
        }
        if entry.dead {
            return Err(Refusal::new(reason::DEAD, 0, id.into()).into());
        }
        if entry.pin.is_none() {
            entry.pin = Some(entry.payload.pin().ok_or(missing)?);
        }
        state.candidate = id;
        self.candidate = id;
        Ok(())
    }

    /// Everything that can fail or be slow, while the live payload serves or Atom holds.
    pub(super) fn prepare(&mut self) -> Outcome {
        let image_bytes = self.make_room()?;
        self.meet(&points::SWITCH_PREPARE, Step::Prepare)?;
        if self.candidate != 0 {
            let devices = self.report.devices;
            let error = run(self.turn, self.candidate, Operation::Prepare, |payload| {
                payload.prepare(devices, image_bytes)
            })?;
            match error {
                0 => advance(Event::Done(Step::Prepare))?,
                error => return self.failed(Step::Prepare, failed(error)),
            };
        }
        self.lap(phase::PREPARE);
        Ok(())
    }

    /// Chooses the schema of the image and gets its memory, or finds the image that there is.
    fn make_room(&mut self) -> Result<u64, Stop> {
        let (stored, reads, writes) = {
            let state = STATE.lock();
            let schema = |id| state.payload(id).map(|entry| entry.payload.schema());
            let reads = schema(self.candidate);
            let stored = match (self.live, self.forsaken) {
                (0, _) => state.image.clone(),
                (_, true) => {
                    let missing = Refusal::new(reason::NO_CHECKPOINT, 0, 0);
                    Some(state.checkpoints.for_reader(reads).ok_or(missing)?)
                }
                _ => None,
            };
            (stored, reads, schema(self.live))
        };
        if let Some(stored) = stored {
            self.report.schema = stored.schema;
            if let Some(reads) = reads {
                reads.reads(stored.schema)?;
            }
            let bytes = stored.bytes().len() as u64;
            self.stored = Some(stored);
            return Ok(bytes);
        }
        let Some(writes) = writes else {
            return Ok(0);
        };
        let newest = match reads {
            Some(reads) => common_schema(&writes, &reads)?,
            None => writes.write_max,
        };
        let schema = match self.plan.schema {
            0 => newest,
            wanted if (writes.write_min..=newest).contains(&wanted) => wanted,
            wanted => {
                return Err(Refusal::new(reason::UNWRITABLE, newest.into(), wanted.into()).into())
            }
        };
        let bytes = run(self.turn, self.live, Operation::ImageBytes, |payload| {
            payload.image_bytes(schema)
        })?;
        let no_memory = |_: Error| Refusal::new(reason::NO_MEMORY, 0, bytes);
        points::IMAGE_ROOM.meet().map_err(no_memory)?;
        let room = UniqueArc::new(StoredImage::allocate(bytes, schema)?, GFP_KERNEL);
        self.room = Some(room.map_err(|_| no_memory(ENOMEM))?);
        self.report.schema = schema;
        Ok(bytes)
    }

    /// Has the candidate read a copy of the live payload's state, so that only what differs is left to be frozen.
    pub(super) fn copy_ahead(&mut self) -> Outcome {
        let Some(room) = self.room.take() else {
            return Ok(());
        };
        self.report.outcome = outcome::UNDONE;
        let Self { turn, live, candidate, .. } = *self;
        let pair = Pair { turn, live, candidate, devices: self.report.devices };
        match pair.copy(room) {
            Ok(Left::Whole(room)) => self.room = Some(room),
            Ok(Left::Difference { base, room }) => {
                self.base = Some(base);
                self.room = Some(room);
            }
            Err(Stop::Refused(refusal)) => return self.failed(Step::Suspend, refusal),
            Err(Stop::Lost) => return Err(Stop::Lost),
        }
        let copied_ns = sys::now_ns().saturating_sub(self.mark_ns);
        let prepared_ns = self.report.phases_ns.get(phase::PREPARE).copied().unwrap_or(0);
        self.lap(phase::PREPARE);
        self.set_phase(phase::PREPARE, prepared_ns.saturating_add(copied_ns));
        Ok(())
    }

    /// Has the live payload stop its background work; I/O is served meanwhile.
    pub(super) fn suspend(&mut self) -> Outcome {
        self.report.outcome = outcome::UNDONE;
        self.meet(&points::SWITCH_SUSPEND, Step::Suspend)?;
        let start_ns = sys::now_ns();
        let until_ns = start_ns.saturating_add(self.plan.deadline_ns);
        let mut result = Stage::NONE;
        let mut first = true;
        while !self.forsaken {
            let wait_ns = until_ns.saturating_sub(sys::now_ns()).min(SUSPEND_WAIT_NS);
            let suspended = run(self.turn, self.live, Operation::Suspend, |payload| {
                payload.suspend(if first { 0 } else { wait_ns })
            })?;
            result.left = match suspended {
                Ok(left) => left,
                Err(error) => return self.failed(Step::Suspend, failed(error)),
            };
            if replace(&mut first, false) {
                result.began = result.left;
            }
            result.ns = sys::now_ns().saturating_sub(start_ns);
            self.set_stage(stage::BACKGROUND, result);
            if result.left == 0 {
                break;
            }
            STATE.lock().stage = (stage::BACKGROUND as u32 + 1, result.left);
            if sys::now_ns() >= until_ns || !sys::moment() {
                STATE.lock().stage = (0, 0);
                let refusal =
                    Refusal::new(reason::DEADLINE, self.plan.deadline_ns, result.left.into());
                return self.failed(Step::Suspend, refusal);
            }
        }
        STATE.lock().stage = (0, 0);
        Ok(advance(Event::Done(Step::Suspend))?)
    }

    /// Closes the gates of all devices. The pause begins.
    pub(super) fn close(&mut self, step: Step) -> Outcome {
        self.meet(&points::SWITCH_CLOSE, step)?;
        if self.hurry.is_none() {
            self.hurry = Some(Hurry::enter());
        }
        self.mark_ns = sys::now_ns();
        self.until_ns = self.mark_ns.saturating_add(self.plan.deadline_ns);
        {
            let mut state = STATE.lock();
            state.progress.closed_ns = self.mark_ns;
            if self.live != 0 {
                state.progress.until_ns = self.until_ns;
            }
        }
        barrier::close();
        if self.live != 0 {
            // What still runs at the deadline, the drain finds.
            barrier::settle(self.until_ns);
        }
        self.lap(phase::CLOSE);
        Ok(advance(Event::Done(step))?)
    }
}
