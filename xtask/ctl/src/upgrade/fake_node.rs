// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A machine in memory that behaves as Atom and the kernel do, and fails on demand.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::time::Duration;

use atom_abi::control::{
    kind, outcome, payload_state, phase, Blocker, PayloadInfo, Report, Status,
};
use atom_abi::lifecycle::Place;
use atom_abi::text::Text;
use atom_abi::version::{reason, Refusal};

use crate::module_file::test_file::{status, KERNEL, SCHEMA};
use crate::module_file::ModuleFile;
use crate::node::Node;
use crate::problem::{Problem, Result};

/// Steps that can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Insert,
    Remove,
    Prepare,
    Drain,
    Adopt,
    Lock,
}

#[derive(Default)]
pub struct FakeNode {
    pub payloads: RefCell<Vec<PayloadInfo>>,
    pub modules: RefCell<Vec<String>>,
    pub calls: RefCell<Vec<String>>,
    pub build_ids: RefCell<Vec<(String, Vec<u8>)>>,
    failures: RefCell<Vec<(Step, u32)>>,
    held: Cell<bool>,
    next_id: Cell<u32>,
}

impl FakeNode {
    /// With payload 1.0.0 live.
    pub fn with_live(file: &ModuleFile) -> Self {
        let node = Self::default();
        node.insert(&file.bytes).unwrap();
        node.payloads.borrow_mut()[0].state = payload_state::LIVE;
        node.calls.borrow_mut().clear();
        node
    }

    /// Makes the next `times` times of this step fail.
    pub fn fail(&self, step: Step, times: u32) {
        self.failures.borrow_mut().push((step, times));
    }

    /// The version that serves; empty while Atom holds I/O.
    pub fn serving(&self) -> String {
        let payloads = self.payloads.borrow();
        let live = payloads.iter().find(|p| p.state == payload_state::LIVE);
        live.map_or_else(String::new, |p| p.version.as_str().to_owned())
    }

    pub fn modules(&self) -> Vec<String> {
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
        match failures.iter_mut().find(|(s, n)| *s == step && *n > 0) {
            Some((_, times)) => {
                *times -= 1;
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

    fn drain(&self, report: &mut Report) -> bool {
        report.phases_ns[phase::CLOSE] = 200_000;
        report.phases_ns[phase::DRAIN] = 1_000_000;
        report.pause_ns = 1_300_000;
        if self.fails(Step::Drain) {
            report.outcome = outcome::UNDONE;
            report.refusal = Refusal::new(reason::DEADLINE, 0, 1);
            report.owed = 1;
            report.blockers[0] = Blocker { tag: 9, ..Blocker::NONE };
            return false;
        }
        report.phases_ns[phase::FREEZE] = 100_000;
        report.image_bytes = 4096;
        report.schema = 2;
        true
    }

    fn take_over(&self, id: u32, report: &mut Report) -> bool {
        report.phases_ns[phase::ADOPT] = 300_000;
        if self.fails(Step::Adopt) {
            report.outcome = outcome::UNDONE;
            report.refusal = Refusal::new(reason::OPERATION, 0, 5);
            return false;
        }
        for payload in self.payloads.borrow_mut().iter_mut() {
            if payload.id == id {
                payload.state = payload_state::LIVE;
            } else if payload.state == payload_state::LIVE {
                payload.state = payload_state::PARKED;
            }
        }
        report.phases_ns[phase::OPEN] = 10_000;
        true
    }
}

fn refused(what: &str) -> Problem {
    Problem::refused(format!("{what} failed"), "a test wanted it to", "nothing")
}

impl Node for FakeNode {
    type Critical = ();

    fn release(&self) -> Result<String> {
        Ok(KERNEL.to_owned())
    }

    fn status(&self) -> Result<Status> {
        let payloads = self.payloads.borrow();
        let live = payloads.iter().find(|p| p.state == payload_state::LIVE);
        let place = match live {
            Some(_) => Place::Live,
            None if self.held.get() => Place::Held,
            None => Place::Vacant,
        };
        Ok(Status {
            place: place.code(),
            live: live.map_or(0, |p| p.id),
            held_ns: if place == Place::Held { 7_000_000 } else { 0 },
            ..status()
        })
    }

    fn payloads(&self) -> Result<Vec<PayloadInfo>> {
        Ok(self.payloads.borrow().clone())
    }

    fn switch(&self, payload: u32, _: Duration) -> Result<Report> {
        self.note("switch");
        let mut report = self.report(kind::SWITCH);
        if self.fails(Step::Prepare) {
            report.outcome = outcome::REFUSED;
            report.refusal = Refusal::new(reason::OPERATION, 0, 12);
            return Ok(report);
        }
        report.phases_ns[phase::PREPARE] = 2_000_000;
        if self.drain(&mut report) {
            self.take_over(payload, &mut report);
        }
        Ok(report)
    }

    fn abandon(&self, schema: u32, _: Duration) -> Result<Report> {
        self.note(format!("abandon in schema {schema}"));
        let mut report = self.report(kind::ABANDON);
        if self.drain(&mut report) {
            for payload in self.payloads.borrow_mut().iter_mut() {
                payload.state = payload_state::PARKED;
            }
            self.held.set(true);
        }
        Ok(report)
    }

    fn adopt(&self, payload: u32) -> Result<Report> {
        self.note("adopt");
        let mut report = self.report(kind::ADOPT);
        report.phases_ns[phase::HELD] = 5_000_000;
        if self.take_over(payload, &mut report) {
            report.pause_ns = 8_000_000;
            self.held.set(false);
        }
        Ok(report)
    }

    fn insert(&self, image: &[u8]) -> Result<()> {
        let file = ModuleFile::parse(Path::new("memory"), image.to_vec()).unwrap();
        self.note(format!("insert {}", file.name));
        if self.fails(Step::Insert) {
            return Err(refused("insmod"));
        }
        assert!(!self.modules.borrow().contains(&file.name), "{} twice", file.name);
        self.modules.borrow_mut().push(file.name.clone());
        self.next_id.set(self.next_id.get() + 1);
        self.payloads.borrow_mut().push(PayloadInfo {
            id: self.next_id.get(),
            state: payload_state::LOADED,
            schema: file.stamp.map_or(SCHEMA, |stamp| stamp.schema),
            version: Text::new(file.version()),
            module: Text::new(&file.name),
            ..crate::module_file::test_file::live()
        });
        Ok(())
    }

    fn remove(&self, module: &str) -> Result<()> {
        self.note(format!("remove {module}"));
        if self.fails(Step::Remove) {
            return Err(refused("rmmod"));
        }
        let mut payloads = self.payloads.borrow_mut();
        let of_module = |p: &PayloadInfo| p.module.as_str() == module;
        assert!(!payloads.iter().any(|p| of_module(p) && p.state == payload_state::LIVE));
        payloads.retain(|p| !of_module(p));
        self.modules.borrow_mut().retain(|name| name != module);
        Ok(())
    }

    fn is_loaded(&self, module: &str) -> Result<bool> {
        Ok(self.modules.borrow().iter().any(|name| name == module))
    }

    fn build_id(&self, module: &str) -> Option<Vec<u8>> {
        let ids = self.build_ids.borrow();
        ids.iter().find(|(name, _)| name == module).map(|(_, id)| id.clone())
    }

    fn enter_critical(&self) -> Result<()> {
        if self.fails(Step::Lock) {
            return Err(refused("mlockall"));
        }
        Ok(())
    }
}
