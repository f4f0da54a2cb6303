// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A machine in memory that behaves as Atom and the kernel do, and fails on demand.

use std::cell::{Cell, RefCell};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::path::Path;
use std::time::Duration;

use atom_abi::control::{
    cause, kind, outcome, payload_state, phase, policy, Blocker, DeviceInfo, PayloadInfo, Report,
    Settings, Status,
};
use atom_abi::lifecycle::Place;
use atom_abi::text::Text;
use atom_abi::version::{reason, AbiRange, Refusal};

use crate::blank;
use crate::drain::Drain;
use crate::kmod::Loaded;
use crate::module_file::test_file::{status, TestFile, KERNEL, SCHEMA};
use crate::module_file::ModuleFile;
use crate::node::Node;
use crate::problem::{Problem, Result};

mod calls;

/// Steps that can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Insert,
    Remove,
    Prepare,
    Drain,
    Adopt,
    Lock,
    Settings,
    Claim,
    Canary,
    /// The candidate hangs in an operation, and Atom goes back for the tool.
    Hang,
    /// The call that asks for a switch is not carried out at all.
    Call,
}

/// What happens while the tool waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Happening {
    /// A request of this device fails.
    Error(u32),
    /// A task dies in the live payload.
    Death,
    /// Atom goes back because a request is owed for too long.
    Stall,
    /// Somebody commits.
    Commit,
    /// Somebody switches back.
    Rollback,
    /// Somebody makes the payload abandon.
    Abandon,
}

/// A step that succeeds a few times and then fails a few times.
struct Failure {
    step: Step,
    first: u32,
    times: u32,
}

#[derive(Default)]
pub struct FakeNode {
    pub payloads: RefCell<Vec<PayloadInfo>>,
    pub modules: RefCell<Vec<String>>,
    pub calls: RefCell<Vec<String>>,
    pub build_ids: RefCell<Vec<(String, Vec<u8>)>>,
    pub settings: RefCell<Option<Settings>>,
    pub errors: RefCell<Vec<u64>>,
    pub reports: RefCell<Vec<Report>>,
    /// Modules that use Atom and are no payloads.
    pub strangers: RefCell<Vec<String>>,
    /// Volumes that need schema 4.
    pub beyond: RefCell<Vec<String>>,
    pub now: Cell<Duration>,
    /// An Atom of ABI 1.0.
    pub first: Cell<bool>,
    failures: RefCell<Vec<Failure>>,
    happenings: RefCell<Vec<(Duration, Happening)>>,
    live: Cell<u32>,
    place: Cell<Option<Place>>,
    parked: Cell<u32>,
    soak_end: Cell<Duration>,
    next_id: Cell<u32>,
    sequence: Cell<u64>,
    steps_to_live: Cell<Option<u32>>,
}

/// The tool has died.
struct Died;

impl FakeNode {
    /// With payload 1.0.0 live.
    pub fn with_live(file: &ModuleFile) -> Self {
        let node = Self::default();
        node.insert(&file.bytes).unwrap();
        node.payloads.borrow_mut()[0].state = payload_state::LIVE;
        node.live.set(1);
        node.place.set(Some(Place::Live));
        node.errors.borrow_mut().extend([0, 0]);
        node.calls.borrow_mut().clear();
        node
    }

    /// With these payloads, by version and state. The number of each is 1 more than its index; `live` and
    /// `parked` are such numbers, or 0. Payload `from` has abandoned.
    pub fn found(
        place: Place,
        payloads: &[(&str, u32)],
        live: u32,
        parked: u32,
        from: Option<&str>,
    ) -> Self {
        let node = Self::default();
        for (version, state) in payloads {
            let file = TestFile::payload(version).parse().unwrap();
            node.insert(&file.bytes).unwrap();
            node.set_state(|payload| payload.version.as_str() == *version, *state);
        }
        let kept = from.map(|from| Report {
            kind: kind::ABANDON,
            outcome: outcome::DONE,
            from: Text::new(from),
            schema: 2,
            ..Report::EMPTY
        });
        node.reports.borrow_mut().extend(kept);
        node.place.set(Some(place));
        node.live.set(live);
        node.parked.set(parked);
        node.soak_end.set(Duration::from_secs(60));
        node.calls.borrow_mut().clear();
        node
    }

    /// The tool dies after so many of the steps that change something. False: it came to its end.
    pub fn dies_after(&self, steps: u32, tool: impl FnOnce(&Self)) -> bool {
        self.steps_to_live.set(Some(steps));
        let end = catch_unwind(AssertUnwindSafe(|| tool(self)));
        self.steps_to_live.set(None);
        match end {
            Ok(()) => false,
            Err(why) if why.is::<Died>() => true,
            Err(why) => resume_unwind(why),
        }
    }

    /// A step that changes something is done.
    fn step_done(&self) {
        if let Some(left) = self.steps_to_live.get() {
            if left <= 1 {
                // Without the message of a panic: this one is wanted.
                resume_unwind(Box::new(Died));
            }
            self.steps_to_live.set(Some(left - 1));
        }
    }

    /// After `time` on its clock, something happens.
    pub fn schedule(&self, time: Duration, happening: Happening) {
        self.happenings.borrow_mut().push((time, happening));
        self.happenings.borrow_mut().sort_by_key(|(time, _)| *time);
    }

    /// A task dies in the payload of this version.
    pub fn kill(&self, version: &str) {
        self.set_state(|payload| payload.version.as_str() == version, payload_state::DEAD);
    }

    pub fn place(&self) -> Place {
        self.place.get().unwrap_or(Place::Vacant)
    }

    fn set_state(&self, which: impl Fn(&PayloadInfo) -> bool, state: u32) {
        let mut payloads = self.payloads.borrow_mut();
        payloads.iter_mut().filter(|payload| which(payload)).for_each(|p| p.state = state);
    }

    fn is_dead(&self, id: u32) -> bool {
        let payloads = self.payloads.borrow();
        payloads.iter().any(|p| p.id == id && p.state == payload_state::DEAD)
    }

    fn own_settings(&self) -> Settings {
        self.settings.borrow().unwrap_or(Settings::DEFAULT)
    }

    fn keep(&self, report: Report) -> Report {
        let mut report = report;
        if report.outcome != outcome::REFUSED {
            self.sequence.set(self.sequence.get() + 1);
            report.sequence = self.sequence.get();
            self.reports.borrow_mut().insert(0, report);
        }
        report
    }

    /// Atom, or somebody else than the tool, makes a switch.
    fn switch_without_the_tool(&self, cause: u32) {
        let back = self.parked.get();
        let mut report = Report { cause, ..self.report(kind::SWITCH) };
        self.take_over(back, &mut report);
        self.parked.set(0);
        self.keep(report);
    }

    fn happens(&self, happening: Happening) {
        match happening {
            Happening::Error(device) => self.errors.borrow_mut()[device as usize] += 1,
            Happening::Death => {
                let live = self.live.get();
                self.set_state(|payload| payload.id == live, payload_state::DEAD);
            }
            Happening::Stall => self.switch_without_the_tool(cause::STALL),
            Happening::Rollback => self.switch_without_the_tool(cause::ASKED),
            Happening::Commit => self.parked.set(0),
            Happening::Abandon => {
                let live = self.live.replace(0);
                self.set_state(|payload| payload.id == live, payload_state::PARKED);
                self.place.set(Some(Place::Held));
                self.parked.set(0);
            }
        }
    }

    /// Lets the clock run, with all that happens meanwhile.
    pub fn pass(&self, time: Duration) {
        let end = self.now.get() + time;
        loop {
            let due = self.happenings.borrow().first().copied().filter(|(at, _)| *at <= end);
            let Some((at, happening)) = due else {
                break;
            };
            self.happenings.borrow_mut().remove(0);
            self.now.set(at.max(self.now.get()));
            self.happens(happening);
        }
        self.now.set(end);
        if self.parked.get() != 0 && self.soak_end.get() <= end {
            self.switch_without_the_tool(cause::NO_COMMIT);
        }
    }

    /// Makes the next `times` times of this step fail.
    pub fn fail(&self, step: Step, times: u32) {
        self.succeed_then_fail(step, 0, times);
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.failures.borrow_mut().clear();
    }

    /// Makes this step succeed `first` times, and fail the next `times` times.
    pub fn succeed_then_fail(&self, step: Step, first: u32, times: u32) {
        self.failures.borrow_mut().push(Failure { step, first, times });
    }

    /// The version that serves; empty when none does.
    pub fn serving(&self) -> String {
        let payloads = self.payloads.borrow();
        let live = payloads.iter().find(|p| p.id == self.live.get());
        live.map_or_else(String::new, |p| p.version.as_str().to_owned())
    }

    pub fn loaded(&self) -> Vec<String> {
        self.modules.borrow().clone()
    }

    pub fn calls(&self) -> Vec<String> {
        self.calls.borrow().clone()
    }

    fn note(&self, call: impl Into<String>) {
        self.calls.borrow_mut().push(call.into());
    }

    fn fails(&self, step: Step) -> bool {
        let mut failures = self.failures.borrow_mut();
        match failures.iter_mut().find(|failure| failure.step == step && failure.times > 0) {
            Some(failure) if failure.first > 0 => {
                failure.first -= 1;
                false
            }
            Some(failure) => {
                failure.times -= 1;
                true
            }
            None => false,
        }
    }

    fn report(&self, kind: u32) -> Report {
        let mut report = Report { kind, outcome: outcome::DONE, ..Report::EMPTY };
        report.from = Text::new(&self.serving());
        report.devices = 2;
        report.opens = 3;
        report
    }

    fn drain(&self, drain: &Drain, report: &mut Report) -> bool {
        report.policy = drain.policy();
        report.phases_ns[phase::CLOSE] = 200_000;
        report.phases_ns[phase::DRAIN] = 1_000_000;
        report.pause_ns = 1_300_000;
        if self.fails(Step::Drain) {
            if drain.policy() & policy::AT_DEADLINE != policy::ABORT {
                report.revoked = 1;
            } else {
                report.outcome = outcome::UNDONE;
                report.refusal = Refusal::new(reason::DEADLINE, 0, 1);
                report.owed = 1;
                report.blockers[0] = Blocker { tag: 9, ..Blocker::NONE };
                return false;
            }
        }
        report.phases_ns[phase::FREEZE] = 100_000;
        report.image_bytes = 4096;
        true
    }

    fn take_over(&self, id: u32, report: &mut Report) -> bool {
        report.phases_ns[phase::ADOPT] = 300_000;
        let payloads = self.payloads.borrow().clone();
        report.to = payloads.iter().find(|p| p.id == id).map_or(Text::EMPTY, |p| p.version);
        if self.is_dead(id) || self.fails(Step::Adopt) {
            report.outcome = outcome::UNDONE;
            report.refusal = Refusal::new(reason::OPERATION, 0, 5);
            return false;
        }
        let old = self.live.replace(id);
        self.set_state(
            |payload| payload.id == old && payload.state != payload_state::DEAD,
            payload_state::PARKED,
        );
        self.set_state(|payload| payload.id == id, payload_state::LIVE);
        self.place.set(Some(Place::Live));
        report.phases_ns[phase::OPEN] = 10_000;
        true
    }
}

fn refused(what: &str) -> Problem {
    Problem::refused(format!("{what} failed"), "a test wanted it to", "nothing")
}
