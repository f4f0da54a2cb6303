// SPDX-License-Identifier: GPL-2.0

//! The handoff: switch, abandon and adopt, driven by [`lifecycle::advance`].
//!
//! Each runs in the task that asked for it, under `CONTROL`, and writes a report. Between the gate's
//! closing and its opening nothing is allocated that could wait for I/O, no module is loaded, and one
//! grace period passes. A step that fails is taken back by the inverses that the lifecycle names.

use kernel::prelude::*;

use crate::abi::control::{kind, outcome, phase, Report};
use crate::abi::image::{Image, MAX_BYTES};
use crate::abi::lifecycle::{self, Event, Inverse, Place, Step};
use crate::abi::table::PrepareArgs;
use crate::abi::version::{common_schema, reason, Refusal};
use crate::barrier;
use crate::control::{ControlState, StoredImage};
use crate::state::Running;
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
    /// When the gates closed.
    closed_ns: u64,
    no_io: Option<NoIo>,
}

type Outcome = Result<(), Refusal>;

/// Warm: from the live payload to `target`, which serves when this succeeds. Sleeps.
pub(crate) fn switch(
    control: &mut ControlState,
    report: &mut Report,
    target: u32,
    schema: u32,
    deadline_ns: u64,
) {
    Handoff::begin(control, report, kind::SWITCH).run(|handoff| {
        handoff.expect(Place::Live)?;
        handoff.prepare(Some(target), schema)?;
        handoff.close_and_drain(deadline_ns)?;
        handoff.freeze()?;
        handoff.adopt()?;
        handoff.release();
        Ok(())
    });
}

/// First half of a cold handoff: Atom takes the devices and holds I/O. Sleeps.
pub(crate) fn abandon(
    control: &mut ControlState,
    report: &mut Report,
    schema: u32,
    deadline_ns: u64,
) {
    Handoff::begin(control, report, kind::ABANDON).run(|handoff| {
        handoff.expect(Place::Live)?;
        handoff.prepare(None, schema)?;
        handoff.close_and_drain(deadline_ns)?;
        handoff.freeze()?;
        handoff.abandon()
    });
}

/// Second half, or the first payload of all: `target` takes what Atom has. Sleeps.
pub(crate) fn adopt(control: &mut ControlState, report: &mut Report, target: u32) {
    Handoff::begin(control, report, kind::ADOPT).run(|handoff| {
        if STATE.lock().lifecycle.place == Place::Live {
            return Err(Refusal::new(reason::SLOT_TAKEN, 0, 0));
        }
        handoff.prepare(Some(target), 0)?;
        handoff.no_io = Some(NoIo::enter());
        handoff.adopt()?;
        handoff.release();
        Ok(())
    });
}

/// Removes what Atom holds. The module is going: no payload is loaded and no device is open. Sleeps.
pub(crate) fn tear_down() {
    let mut state = STATE.lock();
    let held = state.lifecycle.place == Place::Held;
    drop(state);
    if held {
        barrier::empty_slots();
        barrier::open();
    }
    state = STATE.lock();
    let devices = core::mem::replace(&mut state.devices, KVec::new());
    let stores = core::mem::replace(&mut state.stores, KVec::new());
    let payloads = core::mem::replace(&mut state.payloads, KVec::new());
    drop(state);
    drop((devices, stores, payloads));
    sys::CONTROL.lock().image = None;
}

impl<'a> Handoff<'a> {
    fn begin(control: &'a mut ControlState, report: &'a mut Report, kind: u32) -> Self {
        *report = Report::EMPTY;
        report.kind = kind;
        report.started_ns = sys::now_ns();
        let state = STATE.lock();
        report.sequence = state.handoffs.saturating_add(1);
        report.opens = state.opens();
        report.devices = state.devices.len() as u32;
        report.preserved = state.stores.len() as u32;
        if let Some(live) = state.live.and_then(|id| state.payload(id)) {
            report.from = live.payload.version();
        }
        drop(state);
        Self {
            mark_ns: report.started_ns,
            closed_ns: 0,
            no_io: None,
            candidate: None,
            control,
            report,
        }
    }

    fn run(mut self, steps: impl FnOnce(&mut Self) -> Outcome) {
        let result = steps(&mut self);
        self.no_io = None;
        let mut state = STATE.lock();
        self.report.epoch = state.epoch;
        match result {
            Ok(()) => self.report.outcome = outcome::DONE,
            Err(refusal) => self.report.refusal = refusal,
        }
        if state.live.is_some() {
            // The state is with the live payload; what was written, or was to be, is of no use.
            self.control.image = None;
        }
        if self.report.outcome != outcome::REFUSED {
            state.handoffs = self.report.sequence;
        }
        drop(state);
        match self.report.refusal.code {
            reason::NONE => pr_info!(
                "handoff {} from '{}' to '{}': {} us\n",
                self.report.sequence,
                self.report.from,
                self.report.to,
                self.report.pause_ns / 1000
            ),
            _ => pr_warn!(
                "handoff from '{}' to '{}' not carried out: {}\n",
                self.report.from,
                self.report.to,
                self.report.refusal
            ),
        }
        if self.report.outcome != outcome::REFUSED {
            self.control.reports.push(self.report);
        }
    }

    fn expect(&self, place: Place) -> Outcome {
        if STATE.lock().lifecycle == lifecycle::State::at(place) {
            Ok(())
        } else {
            Err(Refusal::new(reason::STATE, 0, 0))
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

    /// Takes a step that has succeeded.
    fn done(&mut self, step: Step) -> Outcome {
        let mut state = STATE.lock();
        match lifecycle::advance(state.lifecycle, Event::Done(step)) {
            Ok(transition) => {
                state.lifecycle = transition.to;
                Ok(())
            }
            Err(lifecycle::Illegal) => Err(Refusal::new(reason::STATE, 0, 0)),
        }
    }

    /// Goes back from a step that has failed, and hands the reason on.
    fn failed(&mut self, step: Step, refusal: Refusal) -> Outcome {
        let transition = {
            let state = STATE.lock();
            lifecycle::advance(state.lifecycle, Event::Failed(step))
        };
        let Ok(transition) = transition else {
            return Err(Refusal::new(reason::STATE, 0, 0));
        };
        for inverse in transition.undo {
            let error = match inverse {
                Inverse::Thaw => self.control.live.as_ref().map_or(0, Pinned::thaw),
                Inverse::Reopen => {
                    barrier::open();
                    self.lap(phase::OPEN);
                    self.report.pause_ns = self.mark_ns.saturating_sub(self.closed_ns);
                    self.no_io = None;
                    0
                }
                Inverse::Unprepare => {
                    let candidate = self.candidate.take();
                    candidate.map_or(0, |candidate| candidate.pinned.unprepare())
                }
            };
            self.count_inverse_error(error);
        }
        let mut state = STATE.lock();
        state.reset_bindings();
        state.lifecycle = transition.to;
        Err(refusal)
    }

    fn count_inverse_error(&mut self, error: i32) {
        let errors = &mut self.report.inverse_errors;
        *errors = errors.saturating_add(error.unsigned_abs());
    }

    /// Everything that can fail or be slow, while the live payload serves.
    fn prepare(&mut self, target: Option<u32>, schema: u32) -> Outcome {
        if let Some(id) = target {
            self.candidate = Some(self.find_candidate(id)?);
        }
        let bound = match self.control.live.as_ref() {
            Some(live) => {
                let schema = self.choose_schema(live, schema)?;
                let bytes = live.image_bytes(schema);
                self.control.image = Some(StoredImage::allocate(bytes, schema)?);
                self.report.schema = schema;
                bytes
            }
            None => self.check_stored_schema()?,
        };
        let Some(candidate) = self.candidate.as_ref() else {
            self.lap(phase::PREPARE);
            return Ok(());
        };
        let args = PrepareArgs {
            size: core::mem::size_of::<PrepareArgs>() as u32,
            devices: self.report.devices,
            image_bytes: bound,
        };
        match candidate.pinned.prepare(&args) {
            0 => {
                self.lap(phase::PREPARE);
                self.done(Step::Prepare)
            }
            error => self.failed(Step::Prepare, operation_failed(error)),
        }
    }

    fn find_candidate(&mut self, id: u32) -> Result<Candidate, Refusal> {
        let state = STATE.lock();
        let missing = Refusal::new(reason::NO_PAYLOAD, 0, id.into());
        let entry = state.payload(id).ok_or(missing)?;
        self.report.to = entry.payload.version();
        if state.live == Some(id) {
            return Err(Refusal::new(reason::SLOT_TAKEN, 0, id.into()));
        }
        let pinned = entry.payload.pin().ok_or(missing)?;
        Ok(Candidate { id, pinned })
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
        let reads = candidate.pinned.payload().schema();
        self.report.schema = image.schema;
        reads.reads(image.schema)?;
        Ok(image.bytes().len() as u64)
    }

    fn close_and_drain(&mut self, deadline_ns: u64) -> Outcome {
        self.no_io = Some(NoIo::enter());
        self.report.outcome = outcome::UNDONE;
        self.mark_ns = sys::now_ns();
        self.closed_ns = self.mark_ns;
        barrier::close();
        self.lap(phase::CLOSE);
        self.done(Step::Close)?;
        self.report.owed = barrier::drain(deadline_ns, &mut self.report.blockers);
        self.lap(phase::DRAIN);
        match self.report.owed {
            0 => self.done(Step::Drain),
            owed => {
                let refusal = Refusal::new(reason::DEADLINE, deadline_ns, owed.into());
                self.failed(Step::Drain, refusal)
            }
        }
    }

    fn freeze(&mut self) -> Outcome {
        let frozen = match (self.control.live.as_ref(), self.control.image.as_mut()) {
            (Some(live), Some(image)) => image.fill(|schema, buffer| live.freeze(schema, buffer)),
            _ => return self.failed(Step::Freeze, Refusal::new(reason::STATE, 0, 0)),
        };
        if let Err(error) = frozen {
            self.lap(phase::FREEZE);
            return self.failed(Step::Freeze, operation_failed(error));
        }
        self.done(Step::Freeze)?;
        let bytes = self.control.image.as_ref().map_or(&[][..], |i| i.bytes());
        self.report.image_bytes = bytes.len() as u64;
        // Nothing is given up for an image that nobody could read.
        let readable = Image::parse(bytes).is_ok_and(|image| image.schema() == self.report.schema);
        self.lap(phase::FREEZE);
        match (readable, self.candidate.is_some()) {
            (true, _) => Ok(()),
            (false, true) => self.failed(Step::Adopt, Refusal::new(reason::IMAGE, 0, 0)),
            (false, false) => self.failed(Step::Abandon, Refusal::new(reason::IMAGE, 0, 0)),
        }
    }

    fn adopt(&mut self) -> Outcome {
        self.report.outcome = outcome::UNDONE;
        let Some(candidate) = self.candidate.as_ref() else {
            return Err(Refusal::new(reason::STATE, 0, 0));
        };
        let epoch = {
            let mut state = STATE.lock();
            state.reset_bindings();
            state.running = Running::Adopt;
            state.epoch.saturating_add(1)
        };
        let image = self.control.image.as_ref().map(|image| image.bytes());
        self.report.image_bytes = image.map_or(0, <[u8]>::len) as u64;
        let error = candidate.pinned.adopt(epoch, self.report.devices, image);
        let unbound = {
            let mut state = STATE.lock();
            state.running = Running::Nothing;
            let mut devices = state.devices.iter();
            devices.find(|device| device.bound.is_none()).map(|device| device.disk.id())
        };
        let refusal = match (error, unbound) {
            (0, None) => return self.take_over(epoch),
            (0, Some(id)) => {
                // It has adopted, so it must let go again before the old one thaws.
                let error = candidate.pinned.abandon();
                self.count_inverse_error(error);
                Refusal::new(reason::UNBOUND_DEVICE, 0, id.into())
            }
            (error, _) => operation_failed(error),
        };
        self.lap(phase::ADOPT);
        self.failed(Step::Adopt, refusal)
    }

    /// The candidate has everything: it becomes the one that serves.
    fn take_over(&mut self, epoch: u64) -> Outcome {
        self.done(Step::Adopt)?;
        let Some(candidate) = self.candidate.take() else {
            return Err(Refusal::new(reason::STATE, 0, 0));
        };
        let held_since_ns = {
            let mut state = STATE.lock();
            state.epoch = epoch;
            state.live = Some(candidate.id);
            let mut entries = state.payloads.iter_mut();
            if let Some(entry) = entries.find(|entry| entry.id == candidate.id) {
                entry.was_live = true;
            }
            core::mem::replace(&mut state.held_since_ns, 0)
        };
        barrier::fill_slots(candidate.pinned.payload().slot(epoch));
        // What was live is let go in `release`, outside of the pause.
        self.control.parked = self.control.live.replace(candidate.pinned);
        self.lap(phase::ADOPT);
        let was_held = held_since_ns != 0;
        if was_held {
            self.closed_ns = held_since_ns;
            if let Some(held) = self.report.phases_ns.get_mut(phase::HELD) {
                *held = self.report.started_ns.saturating_sub(held_since_ns);
            }
        }
        if was_held || self.report.kind == kind::SWITCH {
            barrier::open();
            self.lap(phase::OPEN);
            self.report.pause_ns = self.mark_ns.saturating_sub(self.closed_ns);
        }
        self.no_io = None;
        Ok(())
    }

    /// After the pause: the old payload forgets, and what nobody claimed is released.
    fn release(&mut self) {
        if let Some(old) = self.control.parked.take() {
            let error = old.abandon();
            self.count_inverse_error(error);
        }
        self.control.image = None;
        loop {
            let unclaimed = {
                let mut state = STATE.lock();
                state.image_bytes = 0;
                let at = state.stores.iter().position(|store| !store.claimed);
                at.and_then(|at| state.stores.remove(at).ok())
            };
            if unclaimed.is_none() {
                break;
            }
        }
        self.lap(phase::RELEASE);
    }

    /// Atom takes over from the frozen payload and holds I/O.
    fn abandon(&mut self) -> Outcome {
        self.done(Step::Abandon)?;
        {
            let mut state = STATE.lock();
            state.live = None;
            state.held_since_ns = self.closed_ns;
            state.image_bytes = self.report.image_bytes;
        }
        barrier::empty_slots();
        if let Some(old) = self.control.live.take() {
            let error = old.abandon();
            self.count_inverse_error(error);
        }
        self.report.pause_ns = sys::now_ns().saturating_sub(self.closed_ns);
        Ok(())
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

    fn fill(
        &mut self,
        write: impl FnOnce(u32, &mut [u8]) -> Result<usize, i32>,
    ) -> Result<(), i32> {
        self.used = write(self.schema, &mut self.buffer)?;
        Ok(())
    }
}

fn operation_failed(errno: i32) -> Refusal {
    Refusal::new(reason::OPERATION, 0, errno.unsigned_abs().into())
}
