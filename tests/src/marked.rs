// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The machine that upgrades work on, with a mark where a switch begins and where it ends.
//!
//! The switch of a warm upgrade is one call; that of a cold one goes from the call of *abandon* to the end of *adopt*.

use std::time::Duration;

use atom_abi::control::{DeviceInfo, PayloadInfo, Report, Settings, Status};
use atomctl::drain::Drain;
use atomctl::kmod::Loaded;
use atomctl::node::{Local, Node};
use atomctl::problem::{Problem, Result};

use crate::power::{Marks, Moment};

/// A machine whose switches are marked.
#[derive(Debug)]
pub struct Marked<'a> {
    node: &'a Local,
    marks: &'a Marks,
}

impl<'a> Marked<'a> {
    /// Marks the switches of `node` on this line.
    pub fn new(node: &'a Local, marks: &'a Marks) -> Self {
        Self { node, marks }
    }

    fn mark(&self, moment: Moment) -> Result<()> {
        self.marks.mark(moment).map_err(|error| {
            let remedy = "look at the line for marks";
            Problem::refused("What goes on was not marked", format!("{error:#}"), remedy)
        })
    }
}

impl Node for Marked<'_> {
    type Critical = <Local as Node>::Critical;
    type Locked = <Local as Node>::Locked;
    type Claim = <Local as Node>::Claim;

    fn switch(&self, payload: u32, drain: impl Into<Drain>) -> Result<Report> {
        self.mark(Moment::Switch)?;
        let report = self.node.switch(payload, drain)?;
        self.mark(Moment::Upgrade)?;
        Ok(report)
    }

    fn abandon(&self, schema: u32, drain: impl Into<Drain>) -> Result<Report> {
        self.mark(Moment::Switch)?;
        self.node.abandon(schema, drain)
    }

    fn adopt(&self, payload: u32) -> Result<Report> {
        let report = self.node.adopt(payload)?;
        self.mark(Moment::Upgrade)?;
        Ok(report)
    }

    fn release(&self) -> Result<String> {
        self.node.release()
    }

    fn status(&self) -> Result<Status> {
        self.node.status()
    }

    fn payloads(&self) -> Result<Vec<PayloadInfo>> {
        self.node.payloads()
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>> {
        self.node.devices()
    }

    fn beyond(&self, schema: u32) -> Result<Vec<String>> {
        self.node.beyond(schema)
    }

    fn reports(&self) -> Result<Vec<Report>> {
        self.node.reports()
    }

    fn settings(&self, wanted: &Settings) -> Result<Settings> {
        self.node.settings(wanted)
    }

    fn commit(&self, payload: u32) -> Result<()> {
        self.node.commit(payload)
    }

    fn wait(&self, limit: Duration) -> Result<bool> {
        self.node.wait(limit)
    }

    fn now(&self) -> Duration {
        self.node.now()
    }

    fn read_canary(&self, device: &DeviceInfo, limit: Duration) -> std::result::Result<(), String> {
        self.node.read_canary(device, limit)
    }

    fn insert(&self, image: &[u8]) -> Result<()> {
        self.node.insert(image)
    }

    fn remove(&self, module: &str) -> Result<()> {
        self.node.remove(module)
    }

    fn is_loaded(&self, module: &str) -> Result<bool> {
        self.node.is_loaded(module)
    }

    fn modules(&self) -> Result<Vec<Loaded>> {
        self.node.modules()
    }

    fn build_id(&self, module: &str) -> Option<Vec<u8>> {
        self.node.build_id(module)
    }

    fn enter_critical(&self) -> Result<Self::Critical> {
        self.node.enter_critical()
    }

    fn lock_memory(&self) -> Result<Self::Locked> {
        self.node.lock_memory()
    }

    fn claim(&self) -> Result<Self::Claim> {
        self.node.claim()
    }
}
