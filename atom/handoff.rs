// SPDX-License-Identifier: GPL-2.0

//! The handoff: switch, abandon and adopt, driven by [`lifecycle::advance`].
//!
//! Each runs in the task that asked for it, under `CONTROL`, and writes a report. Between the gate's
//! closing and its opening nothing is allocated that could wait for I/O, no module is loaded, and one
//! grace period passes. A step that fails is taken back by the inverses that the lifecycle names.

use core::mem::{replace, size_of};

use kernel::prelude::*;

use crate::abi::control::{kind, outcome, phase, Handoff as Wish, Report};
use crate::abi::image::{Image, MAX_BYTES};
use crate::abi::lifecycle::{self, Event, Inverse, Place, Step, Transition};
use crate::abi::table::PrepareArgs;
use crate::abi::version::{common_schema, reason, Refusal};
use crate::barrier;
use crate::control::{ControlState, StoredImage};
use crate::state::{Running, State};
use crate::sys::{self, NoIo, Pinned, STATE};

/// A payload that is to take over.
struct Candidate {
    id: u32,
    pinned: Pinned,
}

/// A handoff under way.
struct Handoff<'a> {
    control: &'a mut ControlState,
    report: &'a mut Report,
    candidate: Option<Candidate>,
    /// When the present phase began.
    mark_ns: u64,
    /// When the gates closed; 0 while they are open.
    closed_ns: u64,
    /// When the drain, and the image after it, must be done.
    until_ns: u64,
    no_io: Option<NoIo>,
}

type Outcome = Result<(), Refusal>;

/// Carries out a handoff of one [`kind`]; what became of it stands in the report. Sleeps.
pub(crate) fn carry_out(kind: u32, control: &mut ControlState, wish: &mut Wish) {
    let mut handoff = Handoff::begin(kind, control, &mut wish.report);
    let result = match kind {
        kind::SWITCH => handoff.switch(wish.payload, wish.schema, wish.deadline_ns),
        kind::ABANDON => handoff.abandon(wish.schema, wish.deadline_ns),
        _ => handoff.adopt(wish.payload),
    };
    handoff.end(result);
}

/// Removes what Atom holds. The module is going: no payload is loaded and no device is open. Sleeps.
pub(crate) fn tear_down() {
    // Nobody is in the slots, so what the opened gates let through, if there is anything, fails.
    if STATE.lock().lifecycle.place == Place::Held {
        barrier::open();
    }
    let state = replace(&mut *STATE.lock(), State::new());
    state.devices.iter().for_each(|device| device.disk.remove());
    drop(state);
    sys::CONTROL.lock().image = None;
}

impl<'a> Handoff<'a> {
    fn begin(kind: u32, control: &'a mut ControlState, report: &'a mut Report) -> Self {
        let state = STATE.lock();
        let live = state.live.and_then(|id| state.payload(id));
        *report = Report {
            kind,
            started_ns: sys::now_ns(),
            opens: state.opens(),
            devices: state.devices.len() as u32,
            preserved: state.stores.len() as u32,
            from: live.map_or(Report::EMPTY.from, |live| live.payload.version()),
            ..Report::EMPTY
        };
        drop(state);
        let mark_ns = report.started_ns;
        Self { control, report, candidate: None, mark_ns, closed_ns: 0, until_ns: 0, no_io: None }
    }

    /// Warm: from the live payload to another one.
    fn switch(&mut self, target: u32, schema: u32, deadline_ns: u64) -> Outcome {
        self.begin_in(Place::Live)?;
        self.prepare(Some(target), schema)?;
        self.close_and_drain(deadline_ns)?;
        self.freeze(Step::Adopt)?;
        let old = self.take_over()?;
        self.release(old);
        Ok(())
    }

    /// First half of a cold handoff: Atom takes the devices and holds I/O.
    fn abandon(&mut self, schema: u32, deadline_ns: u64) -> Outcome {
        self.begin_in(Place::Live)?;
        self.prepare(None, schema)?;
        self.close_and_drain(deadline_ns)?;
        self.freeze(Step::Abandon)?;
        self.advance(Event::Done(Step::Abandon))?;
        barrier::empty_slots();
        {
            let mut state = STATE.lock();
            state.live = None;
            state.held_since_ns = self.closed_ns;
            state.image_bytes = self.report.image_bytes;
        }
        if let Some(old) = self.control.live.take() {
            self.count_inverse_error(old.abandon());
        }
        self.report.pause_ns = sys::now_ns().saturating_sub(self.closed_ns);
        Ok(())
    }

    /// Second half, or the first payload of all: a payload takes what Atom has.
    fn adopt(&mut self, target: u32) -> Outcome {
        // I/O may be held already, and what *prepare* allocates must not wait for it.
        self.no_io = Some(NoIo::enter());
        if STATE.lock().lifecycle.place == Place::Live {
            return Err(Refusal::new(reason::SLOT_TAKEN, 0, 0));
        }
        self.prepare(Some(target), 0)?;
        let old = self.take_over()?;
        self.release(old);
        Ok(())
    }

    fn end(mut self, result: Outcome) {
        self.no_io = None;
        if self.control.live.is_some() {
            // The state is with the live payload; what was written, or was to be, is of no use.
            self.control.image = None;
        }
        {
            let mut state = STATE.lock();
            self.report.epoch = state.epoch;
            if result.is_ok() {
                self.report.outcome = outcome::DONE;
            }
            if self.report.outcome != outcome::REFUSED {
                state.handoffs = state.handoffs.saturating_add(1);
                self.report.sequence = state.handoffs;
            }
        }
        let (from, to) = (self.report.from, self.report.to);
        match result {
            Ok(()) => {
                let pause_us = self.report.pause_ns / 1000;
                pr_info!("handoff from '{}' to '{}' in {} us\n", from, to, pause_us);
            }
            Err(refusal) => {
                self.report.refusal = refusal;
                pr_warn!("no handoff from '{}' to '{}': {}\n", from, to, refusal);
            }
        }
        if self.report.outcome != outcome::REFUSED {
            self.control.reports.push(self.report);
        }
    }

    fn begin_in(&self, place: Place) -> Outcome {
        match STATE.lock().lifecycle == lifecycle::State::at(place) {
            true => Ok(()),
            false => Err(Refusal::new(reason::STATE, 0, 0)),
        }
    }

    /// Ends a phase: its time is that since the last one ended.
    fn lap(&mut self, phase: usize) {
        let now = sys::now_ns();
        if let Some(slot) = self.report.phases_ns.get_mut(phase) {
            *slot = now.saturating_sub(self.mark_ns);
        }
        self.mark_ns = now;
    }

    fn advance(&self, event: Event) -> Result<Transition, Refusal> {
        let mut state = STATE.lock();
        let transition = lifecycle::advance(state.lifecycle, event)
            .map_err(|lifecycle::Illegal| Refusal::new(reason::STATE, 0, 0))?;
        state.lifecycle = transition.to;
        Ok(transition)
    }

    /// Goes back from a step that has failed, and hands the reason on.
    fn failed(&mut self, step: Step, refusal: Refusal) -> Outcome {
        for inverse in self.advance(Event::Failed(step))?.undo {
            match inverse {
                Inverse::Thaw => {
                    let error = self.control.live.as_ref().map_or(0, Pinned::thaw);
                    self.count_inverse_error(error);
                }
                Inverse::Reopen => self.reopen(),
                Inverse::Unprepare => {
                    let candidate = self.candidate.take();
                    let error = candidate.map_or(0, |candidate| candidate.pinned.unprepare());
                    self.count_inverse_error(error);
                }
            }
        }
        STATE.lock().reset_bindings();
        Err(refusal)
    }

    /// Opens the gates, which ends the pause.
    fn reopen(&mut self) {
        barrier::open();
        self.lap(phase::OPEN);
        self.report.pause_ns = self.mark_ns.saturating_sub(self.closed_ns);
        self.no_io = None;
    }

    fn count_inverse_error(&mut self, error: i32) {
        let errors = &mut self.report.inverse_errors;
        *errors = errors.saturating_add(error.unsigned_abs());
    }

    /// Everything that can fail or be slow, while the live payload serves or Atom holds.
    fn prepare(&mut self, target: Option<u32>, schema: u32) -> Outcome {
        if let Some(id) = target {
            self.candidate = Some(self.find_candidate(id)?);
        }
        let image_bytes = match self.control.live.as_ref() {
            Some(live) => {
                let schema = self.choose_schema(live, schema)?;
                let bytes = live.image_bytes(schema);
                self.control.image = Some(StoredImage::allocate(bytes, schema)?);
                self.report.schema = schema;
                bytes
            }
            None => self.check_stored_schema()?,
        };
        if let Some(candidate) = self.candidate.as_ref() {
            let args = PrepareArgs {
                size: size_of::<PrepareArgs>() as u32,
                devices: self.report.devices,
                image_bytes,
            };
            match candidate.pinned.prepare(&args) {
                0 => self.advance(Event::Done(Step::Prepare))?,
                error => return self.failed(Step::Prepare, operation_failed(error)),
            };
        }
        self.lap(phase::PREPARE);
        Ok(())
    }

    fn find_candidate(&mut self, id: u32) -> Result<Candidate, Refusal> {
        let state = STATE.lock();
        let missing = Refusal::new(reason::NO_PAYLOAD, 0, id.into());
        let entry = state.payload(id).ok_or(missing)?;
        self.report.to = entry.payload.version();
        if state.live == Some(id) {
            return Err(Refusal::new(reason::SLOT_TAKEN, 0, id.into()));
        }
        Ok(Candidate { id, pinned: entry.payload.pin().ok_or(missing)? })
    }

    fn choose_schema(&self, live: &Pinned, wanted: u32) -> Result<u32, Refusal> {
        let writes = live.payload().schema();
        let newest = match self.candidate.as_ref() {
            Some(candidate) => common_schema(&writes, &candidate.pinned.payload().schema())?,
            None => writes.write_max,
        };
        match wanted {
            0 => Ok(newest),
            wanted if (writes.write_min..=newest).contains(&wanted) => Ok(wanted),
            wanted => Err(Refusal::new(reason::UNWRITABLE, newest.into(), wanted.into())),
        }
    }

    /// Whether the candidate reads what is stored; returns the bytes of it.
    fn check_stored_schema(&mut self) -> Result<u64, Refusal> {
        let (Some(image), Some(candidate)) = (self.control.image.as_ref(), self.candidate.as_ref())
        else {
            return Ok(0);
        };
        self.report.schema = image.schema;
        candidate.pinned.payload().schema().reads(image.schema)?;
        Ok(image.bytes().len() as u64)
    }

    fn close_and_drain(&mut self, deadline_ns: u64) -> Outcome {
        self.no_io = Some(NoIo::enter());
        self.report.outcome = outcome::UNDONE;
        self.mark_ns = sys::now_ns();
        self.closed_ns = self.mark_ns;
        self.until_ns = self.closed_ns.saturating_add(deadline_ns);
        barrier::close();
        self.lap(phase::CLOSE);
        self.advance(Event::Done(Step::Close))?;
        self.report.owed = barrier::drain(self.until_ns, &mut self.report.blockers);
        self.lap(phase::DRAIN);
        match self.report.owed {
            0 => self.advance(Event::Done(Step::Drain)).map(drop),
            owed => {
                let refusal = Refusal::new(reason::DEADLINE, deadline_ns, owed.into());
                self.failed(Step::Drain, refusal)
            }
        }
    }

    /// Has the live payload write its image; `next` is the step that needs it.
    fn freeze(&mut self, next: Step) -> Outcome {
        let frozen = match (self.control.live.as_ref(), self.control.image.as_mut()) {
            (Some(live), Some(image)) => live.freeze(image.schema, &mut image.buffer),
            _ => Err(0),
        };
        self.lap(phase::FREEZE);
        match (frozen, self.control.image.as_mut()) {
            (Ok(used), Some(image)) => image.used = used,
            (Err(error), _) => return self.failed(Step::Freeze, operation_failed(error)),
            (Ok(_), None) => return self.failed(Step::Freeze, operation_failed(0)),
        }
        self.advance(Event::Done(Step::Freeze))?;
        let bytes = self.control.image.as_ref().map_or(&[][..], StoredImage::bytes);
        self.report.image_bytes = bytes.len() as u64;
        // Nothing is given up for an image that nobody could read, or for one that came too late.
        let schema = self.report.schema;
        if !Image::parse(bytes).is_ok_and(|image| image.schema() == schema) {
            return self.failed(next, Refusal::new(reason::IMAGE, 0, 0));
        }
        match sys::now_ns() > self.until_ns {
            true => self.failed(next, Refusal::new(reason::DEADLINE, 0, 0)),
            false => Ok(()),
        }
    }

    /// The candidate adopts and becomes the one that serves; returns the one that did.
    fn take_over(&mut self) -> Result<Option<Pinned>, Refusal> {
        self.report.outcome = outcome::UNDONE;
        let Some(candidate) = self.candidate.take() else {
            return Err(Refusal::new(reason::STATE, 0, 0));
        };
        let epoch = {
            let mut state = STATE.lock();
            state.reset_bindings();
            state.running = Running::Adopt;
            state.epoch.saturating_add(1)
        };
        let image = self.control.image.as_ref().map(StoredImage::bytes);
        self.report.image_bytes = image.map_or(0, <[u8]>::len) as u64;
        let error = candidate.pinned.adopt(epoch, self.report.devices, image);
        let unbound = {
            let mut state = STATE.lock();
            state.running = Running::Nothing;
            let mut devices = state.devices.iter();
            devices.find(|device| device.bound.is_none()).map(|device| device.disk.id())
        };
        let refusal = match (error, unbound) {
            (0, None) => None,
            (0, Some(id)) => {
                // It has adopted, so it must let go again before the old one thaws.
                self.count_inverse_error(candidate.pinned.abandon());
                Some(Refusal::new(reason::UNBOUND_DEVICE, 0, id.into()))
            }
            (error, _) => Some(operation_failed(error)),
        };
        if let Some(refusal) = refusal {
            self.lap(phase::ADOPT);
            self.candidate = Some(candidate);
            return self.failed(Step::Adopt, refusal).map(|()| None);
        }
        self.advance(Event::Done(Step::Adopt))?;
        let held_since_ns = {
            let mut state = STATE.lock();
            state.epoch = epoch;
            state.live = Some(candidate.id);
            let mut entries = state.payloads.iter_mut();
            if let Some(entry) = entries.find(|entry| entry.id == candidate.id) {
                entry.was_live = true;
            }
            replace(&mut state.held_since_ns, 0)
        };
        barrier::fill_slots(candidate.pinned.payload().slot(epoch));
        let old = self.control.live.replace(candidate.pinned);
        self.lap(phase::ADOPT);
        if held_since_ns != 0 {
            self.closed_ns = held_since_ns;
            if let Some(held) = self.report.phases_ns.get_mut(phase::HELD) {
                *held = self.report.started_ns.saturating_sub(held_since_ns);
            }
        }
        // The very first payload finds no device whose gate was closed.
        if self.closed_ns != 0 {
            self.reopen();
        }
        Ok(old)
    }

    /// After the pause: the old payload forgets, and what nobody claimed is released.
    fn release(&mut self, old: Option<Pinned>) {
        self.no_io = None;
        if let Some(old) = old {
            self.count_inverse_error(old.abandon());
        }
        STATE.lock().image_bytes = 0;
        loop {
            let unclaimed = {
                let mut state = STATE.lock();
                let at = state.stores.iter().position(|store| !store.claimed);
                at.and_then(|at| state.stores.remove(at).ok())
            };
            // A large store takes long to free; that happens behind the lock.
            if unclaimed.is_none() {
                break;
            }
        }
        self.lap(phase::RELEASE);
    }
}

impl StoredImage {
    fn allocate(bytes: u64, schema: u32) -> Result<Self, Refusal> {
        let no_memory = Refusal::new(reason::NO_MEMORY, MAX_BYTES as u64, bytes);
        let length = usize::try_from(bytes).map_err(|_| no_memory)?;
        if length > MAX_BYTES {
            return Err(no_memory);
        }
        let buffer = KVVec::from_elem(0, length, GFP_KERNEL).map_err(|_| no_memory)?;
        Ok(Self { buffer, used: 0, schema })
    }
}

fn operation_failed(errno: i32) -> Refusal {
    Refusal::new(reason::OPERATION, 0, errno.unsigned_abs().into())
}
