// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What can be asked of the machine. What no machine would bear is a panic.

use super::*;

impl Node for FakeNode {
    type Critical = ();
    type Locked = ();
    type Claim = ();

    fn release(&self) -> Result<String> {
        Ok(KERNEL.to_owned())
    }

    fn status(&self) -> Result<Status> {
        let place = self.place();
        let abi = status().abi;
        let minor_max = if self.first.get() { 0 } else { abi.minor_max };
        Ok(Status {
            place: place.code(),
            abi: AbiRange { minor_max, ..abi },
            live: self.live.get(),
            held_ns: if place == Place::Held { 7_000_000 } else { 0 },
            parked: self.parked.get(),
            ..status()
        })
    }

    fn payloads(&self) -> Result<Vec<PayloadInfo>> {
        Ok(self.payloads.borrow().clone())
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>> {
        let devices = self.errors.borrow();
        let device =
            |(id, errors): (u32, &u64)| DeviceInfo { id, errors: *errors, ..blank::DEVICE };
        Ok((0..).zip(devices.iter()).map(device).collect())
    }

    fn reports(&self) -> Result<Vec<Report>> {
        Ok(self.reports.borrow().clone())
    }

    fn settings(&self, wanted: &Settings) -> Result<Settings> {
        assert!(!self.first.get(), "an Atom of ABI 1.0 has no settings");
        let settings = self.own_settings().changed_by(wanted).unwrap();
        if wanted.change != 0 {
            self.note(format!("soak for {} s", wanted.soak_ns / 1_000_000_000));
            if self.fails(Step::Settings) {
                return Err(refused("settings"));
            }
            *self.settings.borrow_mut() = Some(Settings { change: 0, ..settings });
            self.step_done();
        }
        Ok(settings)
    }

    fn switch(&self, payload: u32, drain: impl Into<Drain>) -> Result<Report> {
        let drain = drain.into();
        self.note(match drain.policy() {
            0 => "switch".to_owned(),
            _ => format!("switch ({drain})"),
        });
        assert_eq!(self.place(), Place::Live, "a switch from nobody");
        assert_ne!(payload, self.live.get(), "a switch to the live one");
        let old = self.live.get();
        assert!(drain.forsake || !self.is_dead(old), "a dead payload was asked");
        let mut report = self.report(kind::SWITCH);
        if self.fails(Step::Prepare) {
            report.outcome = outcome::REFUSED;
            report.refusal = Refusal::new(reason::OPERATION, 0, 12);
            return Ok(report);
        }
        if self.fails(Step::Call) {
            return Err(refused("the ioctl"));
        }
        if self.fails(Step::Hang) {
            report.outcome = outcome::UNDONE;
            report.refusal = Refusal::new(reason::OPERATION, 0, 110);
            report.cause = cause::DIED;
            self.set_state(|candidate| candidate.id == payload, payload_state::DEAD);
            self.keep(report);
            return Err(refused("the ioctl"));
        }
        report.phases_ns[phase::PREPARE] = 2_000_000;
        if self.drain(&drain, &mut report) && self.take_over(payload, &mut report) {
            report.schema = 2;
            let soak = self.own_settings().soak_ns;
            let soaks = soak != 0 && !drain.forsake;
            self.parked.set(if soaks { old } else { 0 });
            self.soak_end.set(self.now.get() + Duration::from_nanos(soak));
        }
        let report = self.keep(report);
        self.step_done();
        Ok(report)
    }

    fn abandon(&self, schema: u32, drain: impl Into<Drain>) -> Result<Report> {
        self.note(format!("abandon in schema {schema}"));
        let mut report = self.report(kind::ABANDON);
        if self.drain(&drain.into(), &mut report) {
            report.schema = schema;
            let live = self.live.replace(0);
            self.set_state(|payload| payload.id == live, payload_state::PARKED);
            self.place.set(Some(Place::Held));
            self.parked.set(0);
        }
        let report = self.keep(report);
        self.step_done();
        Ok(report)
    }

    fn adopt(&self, payload: u32) -> Result<Report> {
        self.note("adopt");
        assert_eq!(self.live.get(), 0, "an adopt beside a live payload");
        let mut report = self.report(kind::ADOPT);
        report.phases_ns[phase::HELD] = 5_000_000;
        if self.take_over(payload, &mut report) {
            report.pause_ns = 8_000_000;
        }
        let report = self.keep(report);
        self.step_done();
        Ok(report)
    }

    fn commit(&self, payload: u32) -> Result<()> {
        self.note("commit");
        if self.parked.get() == 0 || payload != self.live.get() {
            return Err(refused("commit"));
        }
        self.parked.set(0);
        self.step_done();
        Ok(())
    }

    fn wait(&self, limit: Duration) -> Result<bool> {
        let next = self.happenings.borrow().first().map(|(at, _)| *at);
        let left = next.map(|at| at.saturating_sub(self.now.get()));
        self.pass(left.unwrap_or(limit).min(limit));
        Ok(left.is_some_and(|left| left <= limit))
    }

    fn now(&self) -> Duration {
        self.now.get()
    }

    fn beyond(&self, schema: u32) -> Result<Vec<String>> {
        Ok(self.beyond.borrow().iter().filter(|_| schema < 4).cloned().collect())
    }

    fn read_canary(&self, device: &DeviceInfo, _: Duration) -> std::result::Result<(), String> {
        match self.fails(Step::Canary) {
            true => Err(format!("a read of atom{} failed", device.id)),
            false => Ok(()),
        }
    }

    fn insert(&self, image: &[u8]) -> Result<()> {
        let file = ModuleFile::parse(Path::new("memory"), image.to_vec()).unwrap();
        self.note(format!("insert {}", file.name));
        if self.fails(Step::Insert) {
            return Err(refused("insmod"));
        }
        assert!(!self.modules.borrow().contains(&file.name), "{} twice", file.name);
        let known = |p: &PayloadInfo| p.version.as_str() == file.version();
        assert!(!self.payloads.borrow().iter().any(known), "{} twice", file.version());
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
        self.step_done();
        Ok(())
    }

    fn remove(&self, module: &str) -> Result<()> {
        self.note(format!("remove {module}"));
        if self.fails(Step::Remove) {
            return Err(refused("rmmod"));
        }
        {
            let mut payloads = self.payloads.borrow_mut();
            let of_module = |p: &PayloadInfo| p.module.as_str() == module;
            let (live, parked) = (self.live.get(), self.parked.get());
            assert!(!payloads.iter().any(|p| of_module(p) && p.id == live), "the live one");
            assert!(!payloads.iter().any(|p| of_module(p) && p.id == parked), "in a soak");
            let dead = |p: &PayloadInfo| of_module(p) && p.state == payload_state::DEAD;
            assert!(!payloads.iter().any(dead), "a dead one");
            payloads.retain(|p| !of_module(p));
        }
        self.modules.borrow_mut().retain(|name| name != module);
        self.strangers.borrow_mut().retain(|name| name != module);
        self.step_done();
        Ok(())
    }

    fn is_loaded(&self, module: &str) -> Result<bool> {
        Ok(self.modules.borrow().iter().any(|name| name == module))
    }

    fn modules(&self) -> Result<Vec<Loaded>> {
        let holders = [self.loaded(), self.strangers.borrow().clone()].concat();
        Ok(vec![Loaded { name: "atom".to_owned(), references: None, holders, going: false }])
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

    fn lock_memory(&self) -> Result<()> {
        Ok(())
    }

    fn claim(&self) -> Result<()> {
        match self.fails(Step::Claim) {
            true => Err(refused("claim")),
            false => Ok(()),
        }
    }
}
