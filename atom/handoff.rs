// SPDX-License-Identifier: GPL-2.0

//! The handoff: switch, abandon and adopt, driven by the lifecycle of the ABI.
//!
//! Each runs in the task that asked for it, which has the turn, and writes a report. Between the gate's
//! closing and its opening nothing is allocated that could wait for I/O, no module is loaded, and one
//! grace period passes. A step that fails is taken back by the inverses that the lifecycle names.
//!
//! Here is the order of the steps, and the report; in `handoff/` the steps themselves, in the order of the files' names
//! `before`, `drain`, `takeover` and `after`.

mod after;
mod before;
mod drain;
mod takeover;

use core::mem::take;

use kernel::prelude::*;
use kernel::sync::{Arc, UniqueArc};

use crate::abi::control::{cause, kind, outcome, phase, policy, Handoff as Wish, Report, Stage};
use crate::abi::lifecycle::{Event, Place, Step};
use crate::abi::version::{reason, Refusal};
use crate::back::{self, advance};
use crate::barrier;
use crate::checkpoints::Checkpoints;
use crate::failpoint::Failpoint;
use crate::operation::{failed, Outcome, Stop};
use crate::points;
use crate::state::{Progress, StoredImage};
use crate::sys::{self, NoIo, Urgent, STATE, WATCH};
use crate::turn::Turn;

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

    fn set_stage(&mut self, stage: usize, result: Stage) {
        if let Some(place) = self.report.stages.get_mut(stage) {
            *place = result;
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
}
