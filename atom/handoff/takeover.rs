// SPDX-License-Identifier: GPL-2.0

//! The image is frozen, and the candidate becomes the one that serves.

use core::mem::take;

use super::Handoff;
use crate::abi::control::{cause, kind, outcome, phase};
use crate::abi::image::Image;
use crate::abi::lifecycle::{Event, Step};
use crate::abi::table::{adopt_flags, freeze_flags};
use crate::abi::version::{reason, Refusal};
use crate::back::{self, advance};
use crate::barrier;
use crate::checkpoints::Checkpoints;
use crate::operation::{failed, run, Outcome};
use crate::points;
use crate::state::{Operation, Soak, State};
use crate::sys::{self, Payload, STATE};
impl Handoff<'_> {
    /// Has the live payload write its image, or takes its checkpoint; `next` is the step that needs it.
    pub(super) fn freeze(&mut self, next: Step) -> Outcome {
        if self.forsaken {
            self.image = self.stored.take();
            self.report.image_bytes =
                self.image.as_ref().map_or(0, |image| image.bytes().len() as u64);
            return Ok(advance(Event::Done(Step::Forsake))?);
        }
        self.meet(&points::SWITCH_FREEZE, Step::Freeze)?;
        let Some(mut room) = self.room.take() else {
            return self.failed(Step::Freeze, failed(0));
        };
        let schema = room.schema;
        let flags = if self.base.is_some() { freeze_flags::DELTA } else { 0 };
        let frozen = run(self.turn, self.live, Operation::Freeze, |payload| {
            payload.freeze(schema, &mut room.buffer, flags)
        })?;
        self.lap(phase::FREEZE);
        match frozen {
            Ok(used) => room.used = used,
            Err(error) => return self.failed(Step::Freeze, failed(error)),
        }
        advance(Event::Done(Step::Freeze))?;
        self.meet_with(&points::IMAGE_STORE, next, room.bytes_mut())?;
        self.report.image_bytes = self.base.as_deref().unwrap_or(&room).bytes().len() as u64;
        // Nothing is given up for an image that nobody could read, or for one that came too late.
        if !Image::parse(room.bytes()).is_ok_and(|image| image.schema() == schema) {
            return self.failed(next, Refusal::new(reason::IMAGE, 0, 0));
        }
        self.meet_with(&points::IMAGE_KEEP, next, room.bytes_mut())?;
        self.image = Some(room.into());
        match self.is_late() {
            true => self.failed(next, Refusal::new(reason::DEADLINE, self.plan.deadline_ns, 0)),
            false => Ok(()),
        }
    }

    fn is_late(&self) -> bool {
        self.live != 0 && sys::now_ns() > self.until_ns
    }

    /// The candidate adopts and becomes the one that serves, behind closed gates.
    pub(super) fn take_over(&mut self) -> Outcome {
        self.report.outcome = outcome::UNDONE;
        let (candidate, devices) = (self.candidate, self.report.devices);
        let epoch = {
            let mut state = STATE.lock();
            match self.base {
                Some(_) => state.reset_objects(),
                None => state.reset_bindings(),
            }
            // No two payloads have had the same one, not even one that did not adopt.
            state.last_epoch = state.last_epoch.saturating_add(1);
            state.last_epoch
        };
        let image = self.image.clone();
        let whole = self.base.as_ref().or(image.as_ref());
        self.report.image_bytes = whole.map_or(0, |image| image.bytes().len() as u64);
        let flags = match &self.base {
            Some(_) => adopt_flags::DELTA,
            None if self.forsaken => adopt_flags::CHECKPOINT,
            None => 0,
        };
        let error = match points::SWITCH_ADOPT.meet() {
            Ok(()) => run(self.turn, candidate, Operation::Adopt, |payload| {
                payload.adopt(epoch, devices, image.as_ref().map(|image| image.bytes()), flags)
            })?,
            Err(error) => error.to_errno(),
        };
        let unbound = {
            let state = STATE.lock();
            let mut devices = state.devices.iter();
            devices.find(|device| device.bound.is_none()).map(|device| device.disk.id())
        };
        let refusal = match (error, unbound) {
            (0, None) if self.is_late() => {
                Some(Refusal::new(reason::DEADLINE, self.plan.deadline_ns, 0))
            }
            (0, None) => None,
            (0, Some(id)) => Some(Refusal::new(reason::UNBOUND_DEVICE, 0, id.into())),
            (error, _) => Some(failed(error)),
        };
        if let Some(refusal) = refusal {
            if error == 0 {
                self.allow_more_time();
                // It has adopted, so it must let go again before the old one thaws.
                let abandon = Payload::abandon;
                let errors = back::inverse_of(self.turn, candidate, Operation::Abandon, abandon)?;
                self.count_inverse_errors(errors);
            }
            self.lap(phase::ADOPT);
            return self.failed(Step::Adopt, refusal);
        }
        advance(Event::Done(Step::Adopt))?;
        let mut state = STATE.lock();
        state.epoch = epoch;
        state.live = candidate;
        state.candidate = 0;
        // Nothing can take too long from here on: what follows is Atom's.
        state.progress.until_ns = u64::MAX;
        // It counts as the first checkpoint of the payload that has it now.
        let before = (state.checkpoints.take(), state.image.take());
        state.checkpoints = Checkpoints::first(self.base.take().or(image));
        let held_since_ns = take(&mut state.held_since_ns);
        if held_since_ns != 0 {
            state.progress.closed_ns = held_since_ns;
        }
        let clean = sys::all_tasks_live();
        let seat = state.payload_mut(candidate).map(|entry| {
            (entry.was_live, entry.clean) = (true, clean);
            entry.payload.seat(epoch)
        });
        (state.finishing, state.releasing) = (true, self.live);
        state.parked_before = state.soak.take().map_or(0, |soak| soak.parked);
        state.soak = self.soak(&state);
        let soaks = state.soak.is_some();
        drop(state);
        if soaks {
            advance(Event::Done(Step::Soak))?;
        }
        self.forsake_for_good();
        self.take_back_forsaken();
        if let Some(seat) = seat {
            barrier::fill_slots(seat);
        }
        points::SWITCH_OPEN.slow_down();
        self.lap(phase::ADOPT);
        if held_since_ns != 0 {
            self.set_phase(phase::HELD, self.report.started_ns.saturating_sub(held_since_ns));
        }
        // The very first payload finds no device whose gate was closed.
        if STATE.lock().progress.closed_ns != 0 {
            self.set_phase(phase::OPEN, back::reopen().saturating_sub(self.mark_ns));
            self.mark_ns = sys::now_ns();
            self.report.pause_ns = STATE.lock().progress.paused_ns;
        }
        self.hurry = None;
        drop(before);
        Ok(())
    }

    /// The terms on which the new payload soaks, if that is what the settings say.
    fn soak(&self, state: &State) -> Option<Soak> {
        let asked = self.plan.kind == kind::SWITCH && self.plan.cause == cause::ASKED;
        let forsaken = self.forsaken;
        let settings = &state.settings;
        (asked && settings.soak_ns != 0 && !forsaken).then(|| Soak {
            parked: self.live,
            until_ns: sys::now_ns().saturating_add(settings.soak_ns),
            stall_ns: settings.stall_ns,
            back_policy: settings.back_policy,
            back_deadline_ns: settings.back_deadline_ns,
            not_before_ns: 0,
        })
    }
}
