// SPDX-License-Identifier: GPL-2.0

//! The drain: until the live payload owes nothing, and at the deadline what the policy says.

use core::sync::atomic::Ordering;

use super::Handoff;
use crate::abi::control::{phase, policy, stage, Stage};
use crate::abi::lifecycle::{Event, Step};
use crate::abi::version::{reason, Refusal};
use crate::back::advance;
use crate::barrier;
use crate::operation::{run, Outcome, Stop};
use crate::points;
use crate::state::{Operation, State};
use crate::sys::{self, Payload, STATE};
/// What operations are given at least after a deadline has passed and the handoff goes on.
const LEAST_TIME_NS: u64 = 1_000_000_000;

impl Handoff<'_> {
    /// Waits until the live payload owes nothing, stage by stage; at the deadline the policy decides.
    pub(super) fn drain(&mut self) -> Outcome {
        self.meet(&points::DRAIN_WAIT, Step::Drain)?;
        let (running, mut alive) = barrier::settle(self.until_ns);
        if running == 0 && alive {
            self.hand_back()?;
        }
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

    /// Has the live payload hand back what it has not started, so that it is not waited for: it waits at the gates. No
    /// dispatch runs. What it keeps the drain waits for.
    fn hand_back(&mut self) -> Outcome {
        let hands_back = |state: &State| {
            state.payload(self.live).is_some_and(|entry| entry.payload.hands_back())
        };
        if self.forsaken || !hands_back(&STATE.lock()) {
            return Ok(());
        }
        if points::DRAIN_HAND_BACK.meet().is_err() || barrier::owed().total() == 0 {
            return Ok(());
        }
        let before = sys::HANDED_BACK.load(Ordering::Relaxed);
        run(self.turn, self.live, Operation::HandBack, Payload::hand_back)?;
        let after = sys::HANDED_BACK.load(Ordering::Relaxed);
        self.report.handed_back = after.wrapping_sub(before);
        Ok(())
    }

    /// Takes back what a payload owes that was not asked: once it is irrevocable that it serves no more, and before the
    /// gates open. Until then what it owes is its own, in case the handoff is undone.
    pub(super) fn take_back_forsaken(&mut self) {
        if self.forsaken && self.report.owed != 0 {
            self.report.revoked = barrier::take_back(self.plan.policy & policy::AT_DEADLINE);
        }
    }

    /// A payload that was not asked to abandon never has: nothing of it is called any more, and its module stays.
    pub(super) fn forsake_for_good(&self) {
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
    pub(super) fn allow_more_time(&mut self) {
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
}
