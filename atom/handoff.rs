// SPDX-License-Identifier: GPL-2.0

//! The handoff: switch, abandon and adopt, driven by the lifecycle of the ABI.
//!
//! Each runs in the task that asked for it, which has the turn, and writes a report. Between the gate's
//! closing and its opening nothing is allocated that could wait for I/O, no module is loaded, and one
//! grace period passes. A step that fails is taken back by the inverses that the lifecycle names.

use core::mem::{replace, take};

use kernel::prelude::*;
use kernel::sync::{Arc, UniqueArc};

use crate::abi::control::{
    cause, kind, outcome, phase, policy, stage, Handoff as Wish, Report, Stage,
};
use crate::abi::image::Image;
use crate::abi::lifecycle::{Event, Place, Step};
use crate::abi::table::{adopt_flags, freeze_flags};
use crate::abi::version::{common_schema, reason, Refusal};
use crate::ahead::{Left, Pair};
use crate::back::{self, advance};
use crate::barrier;
use crate::checkpoints::Checkpoints;
use crate::failpoint::Failpoint;
use crate::operation::{failed, run, Outcome, Stop};
use crate::points;
use crate::state::{Operation, Progress, Soak, State, StoredImage};
use crate::sys::{self, NoIo, Payload, Urgent, STATE, WATCH};
use crate::turn::Turn;

/// The longest that one call of *suspend* may wait.
const SUSPEND_WAIT_NS: u64 = 50_000_000;
/// What operations are given at least after a deadline has passed and the handoff goes on.
const LEAST_TIME_NS: u64 = 1_000_000_000;
/// The longest that the change of a device waits for its requests.
pub(crate) const CHANGE_WAIT_NS: u64 = 5_000_000_000;

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) kind: u32,
    pub(crate) target: u32,
    pub(crate) schema: u32,
    pub(crate) policy: u32,
    pub(crate) deadline_ns: u64,
    pub(crate) cause: u32,
}

impl Plan {
    /// What somebody asks for at the control device.
    pub(crate) fn asked(kind: u32, wish: &Wish) -> Self {
        Self {
            kind,
            target: wish.payload,
            schema: wish.schema,
            policy: wish.policy,
            deadline_ns: wish.deadline_ns,
            cause: cause::ASKED,
        }
    }
}

/// A handoff under way.
struct Handoff<'a> {
    turn: &'a Turn,
    plan: Plan,
    report: KBox<Report>,
    live: u32,
    candidate: u32,
    /// The live payload is not asked for anything.
    forsaken: bool,
    /// When the present phase began.
    mark_ns: u64,
    /// When the drain, and the image after it, must be done.
    until_ns: u64,
    /// Room for the image, and then the image.
    room: Option<UniqueArc<StoredImage>>,
    image: Option<Arc<StoredImage>>,
    /// The image that there is: of nobody's payload, or of one that is not asked.
    stored: Option<Arc<StoredImage>>,
    /// The copy that the candidate has read while I/O was served: only what differs is frozen.
    base: Option<Arc<StoredImage>>,
    hurry: Option<Hurry>,
}

/// While it exists, the task neither waits for I/O nor for ordinary tasks: I/O is held.
struct Hurry {
    _no_io: NoIo,
    _urgent: Option<Urgent>,
}

impl Hurry {
    fn enter() -> Self {
        Self { _no_io: NoIo::enter(), _urgent: Urgent::enter() }
    }
}

/// Carries out a handoff; what became of it stands in the report. Sleeps. `EOWNERDEAD` when the task lost its
/// turn meanwhile: the report of whoever went back is with the others.
pub(crate) fn carry_out(turn: &Turn, plan: Plan) -> Result<KBox<Report>> {
    let mut handoff = Handoff::begin(turn, plan)?;
    let result = match plan.kind {
        kind::SWITCH => handoff.switch(),
        kind::ABANDON => handoff.abandon(),
        _ => handoff.adopt(),
    };
    handoff.end(result)
}

/// Removes what Atom holds. The module is going: no payload is loaded and no device is open. Sleeps.
pub(crate) fn tear_down() {
    // Nobody is in the slots, so what the opened gates let through, if there is anything, fails.
    if STATE.lock().lifecycle.place == Place::Held {
        barrier::open();
    }
    let (devices, preserved, payloads) = {
        let mut state = STATE.lock();
        state.image = None;
        state.checkpoints = Checkpoints::NONE;
        // Nothing drops `STATE`, so the memory of what it lists goes here, also that of the empty list of payloads.
        (take(&mut state.devices), take(&mut state.preserved), take(&mut state.payloads))
    };
    devices.iter().for_each(|device| device.disk.remove());
    drop((preserved, payloads));
}

/// Tells everybody what became of a handoff.
pub(crate) fn announce(report: &Report) {
    let event = match report.kind {
        kind::SWITCH => "switch",
        kind::ABANDON => "abandon",
        kind::ADOPT => "adopt",
        _ => "expire",
    };
    let outcome = match report.outcome {
        outcome::DONE => "done",
        outcome::UNDONE => "undone",
        _ => "refused",
    };
    sys::announce(&[
        fmt!("ATOM_EVENT={event}"),
        fmt!("ATOM_OUTCOME={outcome}"),
        fmt!("ATOM_CAUSE={}", cause::name_of(report.cause)),
        fmt!("ATOM_FROM={}", report.from),
        fmt!("ATOM_TO={}", report.to),
        fmt!("ATOM_SEQUENCE={}", report.sequence),
    ]);
}

impl<'a> Handoff<'a> {
    // Not in the frame of those that call a payload, because a report is large.
    #[inline(never)]
    fn begin(turn: &'a Turn, plan: Plan) -> Result<Self> {
        let mut report = {
            // I/O may be held already.
            let _no_io = NoIo::enter();
            points::SWITCH_BEGIN.meet()?;
            KBox::new(Report::EMPTY, GFP_KERNEL)?
        };
        let mut state = STATE.lock();
        let started_ns = sys::now_ns();
        (report.kind, report.cause, report.policy) = (plan.kind, plan.cause, plan.policy);
        report.started_ns = started_ns;
        report.opens = state.opens();
        report.devices = state.devices.len() as u32;
        report.preserved = state.preserved.len() as u32;
        report.from = state.version(state.live);
        state.progress = Progress { kind: plan.kind, started_ns, ..Progress::NONE };
        let live = state.live;
        let forsaken = live != 0 && (plan.policy & policy::FORSAKE != 0 || state.is_dead(live));
        drop(state);
        Ok(Self {
            turn,
            plan,
            report,
            live,
            candidate: 0,
            forsaken,
            mark_ns: started_ns,
            until_ns: u64::MAX,
            room: None,
            image: None,
            stored: None,
            base: None,
            hurry: None,
        })
    }

    /// Warm: from the live payload to another one.
    fn switch(&mut self) -> Outcome {
        self.begin_in(Place::Live)?;
        self.find_candidate()?;
        self.prepare()?;
        self.copy_ahead()?;
        self.suspend()?;
        self.close(Step::Close)?;
        self.drain()?;
        self.freeze(Step::Adopt)?;
        self.take_over()?;
        self.serve()
    }

    /// First half of a cold handoff: Atom takes the devices and holds I/O.
    fn abandon(&mut self) -> Outcome {
        self.begin_in(Place::Live)?;
        self.prepare()?;
        self.suspend()?;
        self.close(Step::Close)?;
        self.drain()?;
        self.freeze(Step::Abandon)?;
        advance(Event::Done(Step::Abandon))?;
        barrier::empty_slots();
        points::SWITCH_ABANDON.slow_down();
        self.take_back_forsaken();
        // It is irrevocable; the gates stay closed, and the payload may hang.
        self.allow_more_time();
        let checkpoint = {
            let mut state = STATE.lock();
            state.live = 0;
            (state.finishing, state.releasing) = (true, self.live);
            state.parked_before = state.soak.take().map_or(0, |soak| soak.parked);
            state.held_since_ns = state.progress.closed_ns;
            state.hold_acted = false;
            state.fallback_error = 0;
            state.image = self.image.take();
            state.checkpoints.take()
        };
        drop(checkpoint);
        self.forsake_for_good();
        let errors = back::let_go(self.turn)?;
        self.count_inverse_errors(errors);
        self.report.pause_ns = sys::now_ns().saturating_sub(STATE.lock().progress.closed_ns);
        Ok(())
    }

    /// Second half, or the first payload of all: a payload takes what Atom has.
    fn adopt(&mut self) -> Outcome {
        // I/O may be held already, and what *prepare* allocates must not wait for it.
        self.hurry = Some(Hurry::enter());
        let place = STATE.lock().lifecycle.place;
        if place == Place::Live {
            return Err(Refusal::new(reason::SLOT_TAKEN, 0, 0).into());
        }
        self.find_candidate()?;
        if place != Place::Vacant {
            self.allow_more_time();
        }
        self.prepare()?;
        if place == Place::Failing {
            self.close(Step::Close)?;
            STATE.lock().hold_acted = false;
        }
        if place != Place::Vacant {
            self.allow_more_time();
        }
        self.image = self.stored.take();
        self.take_over()?;
        self.serve()
    }

    #[inline(never)]
    fn end(mut self, result: Outcome) -> Result<KBox<Report>> {
        self.hurry = None;
        let refusal = match result {
            Ok(()) => None,
            Err(Stop::Refused(refusal)) => Some(refusal),
            Err(Stop::Lost) => return Err(Error::from_errno(sys::OWNER_DEAD)),
        };
        self.report.refusal = refusal.unwrap_or(Refusal::NONE);
        if refusal.is_none() {
            self.report.outcome = outcome::DONE;
        }
        let mut state = STATE.lock();
        state.progress = Progress::NONE;
        if self.report.outcome == outcome::REFUSED {
            // Nothing was begun that the lifecycle would know of.
            let candidate = take(&mut state.candidate);
            state.unpin(candidate);
            self.report.epoch = state.epoch;
            return Ok(self.report);
        }
        state.keep(&mut self.report);
        drop(state);
        let (from, to) = (self.report.from, self.report.to);
        match refusal {
            None => {
                let pause_us = self.report.pause_ns / 1000;
                pr_info!("handoff from '{}' to '{}' in {} us\n", from, to, pause_us);
            }
            Some(refusal) => pr_warn!("no handoff from '{}' to '{}': {}\n", from, to, refusal),
        }
        announce(&self.report);
        WATCH.wake();
        Ok(self.report)
    }

    fn begin_in(&self, place: Place) -> Outcome {
        let state = STATE.lock();
        match state.lifecycle.at_rest() && state.lifecycle.place == place {
            true => Ok(()),
            false => Err(Refusal::new(reason::STATE, 0, 0).into()),
        }
    }

    /// Ends a phase: its time is that since the last one ended.
    fn lap(&mut self, phase: usize) {
        let now = sys::now_ns();
        self.set_phase(phase, now.saturating_sub(self.mark_ns));
        self.mark_ns = now;
    }

    fn set_phase(&mut self, phase: usize, ns: u64) {
        if let Some(slot) = self.report.phases_ns.get_mut(phase) {
            *slot = ns;
        }
    }

    /// Goes back from a step that has failed, and hands the reason on.
    fn failed<T>(&mut self, step: Step, refusal: Refusal) -> Outcome<T> {
        advance(Event::Failed(step))?;
        // The owed requests, the image and the candidate are as they were; the phase ends here.
        let began_ns = sys::now_ns();
        let errors = back::undo(self.turn)?;
        self.count_inverse_errors(errors);
        let paused_ns = STATE.lock().progress.paused_ns;
        if paused_ns != 0 {
            self.report.pause_ns = paused_ns;
            self.set_phase(phase::OPEN, sys::now_ns().saturating_sub(began_ns));
        }
        self.hurry = None;
        Err(refusal.into())
    }

    /// Comes to a failpoint; what it injects is a failure of the step.
    fn meet(&mut self, point: &Failpoint, step: Step) -> Outcome {
        self.meet_with(point, step, &mut [])
    }

    /// The same with data that it can spoil.
    fn meet_with(&mut self, point: &Failpoint, step: Step, data: &mut [u8]) -> Outcome {
        match point.meet_with(data) {
            Ok(()) => Ok(()),
            Err(error) => self.failed(step, failed(error.to_errno())),
        }
    }

    fn count_inverse_errors(&mut self, errors: u32) {
        self.report.inverse_errors = self.report.inverse_errors.saturating_add(errors);
    }

    fn find_candidate(&mut self) -> Outcome {
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
    fn prepare(&mut self) -> Outcome {
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
    fn copy_ahead(&mut self) -> Outcome {
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
    fn suspend(&mut self) -> Outcome {
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

    fn set_stage(&mut self, stage: usize, result: Stage) {
        if let Some(place) = self.report.stages.get_mut(stage) {
            *place = result;
        }
    }

    /// Closes the gates of all devices. The pause begins.
    fn close(&mut self, step: Step) -> Outcome {
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

    /// Waits until the live payload owes nothing, stage by stage; at the deadline the policy decides.
    fn drain(&mut self) -> Outcome {
        self.meet(&points::DRAIN_WAIT, Step::Drain)?;
        let (running, mut alive) = barrier::settle(self.until_ns);
        let owed = barrier::owed();
        for stage in [stage::DATA, stage::FLUSHES] {
            let mut result = Stage::NONE;
            if owed.of(stage) != 0 {
                alive &= barrier::drain(stage, owed.of(stage), self.until_ns, &mut result);
            }
            self.set_stage(stage, result);
        }
        // Nothing can come any more, so what is owed now is all that is left. A dispatch that has not returned
        // is owed, even if its request has ended.
        if owed.total() != 0 || running != 0 {
            self.report.owed = barrier::owed().total().max(running);
        }
        if self.report.owed != 0 {
            let named = barrier::name_owed(&mut self.report.blockers);
            let at_deadline = self.plan.policy & policy::AT_DEADLINE;
            if at_deadline == policy::ABORT || !alive {
                let refusal =
                    Refusal::new(reason::DEADLINE, self.plan.deadline_ns, self.report.owed.into());
                self.lap(phase::DRAIN);
                let stop = self.failed(Step::Drain, refusal);
                // I/O is served again; what they are asked for may have ended meanwhile.
                if let Err(Stop::Refused(_)) = stop {
                    self.ask_for_reasons(named)?;
                }
                return stop;
            }
            if at_deadline != policy::LEAVE && self.may_owe_the_dead() {
                self.lap(phase::DRAIN);
                let refusal = Refusal::new(reason::TASK_DIED, self.report.owed.into(), 0);
                return self.failed(Step::Drain, refusal);
            }
            self.allow_more_time();
            if !self.forsaken {
                self.ask_for_reasons(named)?;
            }
            if !self.forsaken {
                // A dispatch that runs has a request in its hands, of which no promise can be made.
                let (running, _) = barrier::settle(0);
                if running != 0 {
                    self.lap(phase::DRAIN);
                    let refusal =
                        Refusal::new(reason::DEADLINE, self.plan.deadline_ns, running.into());
                    return self.failed(Step::Drain, refusal);
                }
                self.get_promise()?;
            }
            if !self.forsaken {
                self.report.revoked = barrier::take_back(at_deadline);
            }
            self.allow_more_time();
        }
        self.lap(phase::DRAIN);
        Ok(advance(Event::Done(Step::Drain))?)
    }

    /// Takes back what a payload owes that was not asked: once it is irrevocable that it serves no more, and before the
    /// gates open. Until then what it owes is its own, in case the handoff is undone.
    fn take_back_forsaken(&mut self) {
        if self.forsaken && self.report.owed != 0 {
            self.report.revoked = barrier::take_back(self.plan.policy & policy::AT_DEADLINE);
        }
    }

    /// A payload that was not asked to abandon never has: nothing of it is called any more, and its module stays.
    fn forsake_for_good(&self) {
        if let Some(entry) = STATE.lock().payload_mut(self.live).filter(|_| self.forsaken) {
            (entry.dead, entry.forsaken) = (true, true);
        }
    }

    /// Whether a request may be one of a task that an oops has killed in *queue_rq*.
    fn may_owe_the_dead(&self) -> bool {
        let died = STATE.lock().payload(self.live).is_some_and(|entry| entry.died);
        !died && !sys::all_tasks_live()
    }

    /// What is left of the handoff has the same time again.
    fn allow_more_time(&mut self) {
        self.until_ns = sys::now_ns().saturating_add(self.plan.deadline_ns.max(LEAST_TIME_NS));
        STATE.lock().progress.until_ns = self.until_ns;
    }

    /// The payload's own words about the first requests that it owes.
    fn ask_for_reasons(&mut self, named: usize) -> Outcome {
        let blockers = self.report.blockers;
        for (blocker, reason) in blockers.iter().zip(self.report.reasons.iter_mut()).take(named) {
            let Some(cookie) = barrier::cookie_of(blocker.device).filter(|_| !self.forsaken) else {
                continue;
            };
            *reason = run(self.turn, self.live, Operation::Explain, |payload| {
                payload.explain(cookie, blocker)
            })?;
        }
        Ok(())
    }

    /// Has the live payload let go of its requests.
    fn get_promise(&mut self) -> Outcome {
        self.meet(&points::DRAIN_REVOKE, Step::Drain)?;
        let owed = self.report.owed.into();
        let promises =
            |state: &State| state.payload(self.live).is_some_and(|entry| entry.payload.promises());
        let error = match promises(&STATE.lock()) {
            true => None,
            false => Some(0),
        };
        let error = match error {
            Some(error) => error,
            None => match run(self.turn, self.live, Operation::Revoke, Payload::revoke)? {
                0 => return Ok(()),
                error => error.unsigned_abs(),
            },
        };
        self.lap(phase::DRAIN);
        self.failed(Step::Drain, Refusal::new(reason::NO_PROMISE, owed, error.into()))
    }

    /// Has the live payload write its image, or takes its checkpoint; `next` is the step that needs it.
    fn freeze(&mut self, next: Step) -> Outcome {
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
    fn take_over(&mut self) -> Outcome {
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

    /// After the pause: devices change, the payload begins its background work, the old one forgets, and what
    /// nobody claimed is released.
    fn serve(&mut self) -> Outcome {
        let unchanged = self.change_devices();
        let errors = back::resume(self.turn, self.candidate, unchanged)?;
        self.count_inverse_errors(errors);
        let errors = back::let_go(self.turn)?;
        self.count_inverse_errors(errors);
        self.lap(phase::RELEASE);
        Ok(())
    }

    /// Makes of the devices what the payload asked for. Returns how many could not be changed.
    fn change_devices(&mut self) -> u32 {
        let mut unchanged: u32 = 0;
        for at in 0..self.report.devices as usize {
            let wanted = {
                let mut state = STATE.lock();
                let device = state.devices.get_mut(at);
                device.and_then(|device| {
                    let wanted = device.wanted.take()?;
                    // Somebody may have opened it since it was asked for.
                    let open = device.disk.opens().count() != 0;
                    let fits = device.spec.check_change(&wanted, open).map_err(|_| EBUSY);
                    Some((device.disk.clone(), device.spec.changed_to(&wanted), fits))
                })
            };
            let Some((disk, spec, fits)) = wanted else {
                continue;
            };
            match fits.and_then(|()| disk.change(&spec, CHANGE_WAIT_NS)) {
                Ok(()) => {
                    self.report.changed = self.report.changed.saturating_add(1);
                    if let Some(device) = STATE.lock().devices.get_mut(at) {
                        device.spec = spec;
                    }
                }
                Err(error) => {
                    pr_err!("atom{} stays as it was: {}\n", disk.id(), error.to_errno());
                    unchanged = unchanged.saturating_add(1);
                }
            }
        }
        unchanged
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
