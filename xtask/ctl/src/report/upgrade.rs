// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The upgrade report.

use atom_abi::control::{cause, kind, phase, Report};
use serde::{Deserialize, Serialize};

use super::handoff::{is_forsaken, policy_name};
use super::{micros, Blocker, Mode, Outcome, Phases, SoakReport, Stage};
use crate::problem::Exit;

/// What the tool's own workload saw, when it drove one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Workload {
    /// Requests that were completed.
    pub ios: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Reads that did not return what was written.
    pub corruptions: u64,
    /// Longest time without a completion during the upgrade.
    pub longest_gap_us: u64,
    /// Longest time without a completion before it.
    pub baseline_longest_gap_us: u64,
}

/// What became of an upgrade, with the time of each phase.
///
/// In a cold upgrade the pause lasts from the abandon's first closed gate to the adopt's last open one.
/// `held` is the part of it in which no payload was at work but those that come and go: `rmmod`,
/// `insmod`, which the tool has timed, and the next payload's *prepare* lie within it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UpgradeReport {
    /// [`UpgradeReport::SCHEMA`].
    pub schema: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// Version that was live before.
    pub from: String,
    /// Version that was to be live; empty when the file does not tell.
    pub to: String,
    /// Warm or cold.
    pub mode: Mode,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it is not committed; null when it is.
    pub reason: Option<String>,
    /// When the first handoff began: nanoseconds of the kernel's monotonic clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_ns: Option<u64>,
    /// How long I/O was held.
    pub pause_us: u64,
    /// Time by phase, in the order in which they happened.
    pub phases_us: Phases,
    /// Devices that changed hands.
    pub devices: u32,
    /// Open handles meanwhile.
    pub opens: u32,
    /// Size of the image.
    pub image_bytes: u64,
    /// Preserved objects that changed hands.
    pub preserved: u32,
    /// Schema of the image, when one was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_schema: Option<u32>,
    /// What to do when the outcome needs somebody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// What went wrong beside the upgrade itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Requests that were owed at the deadline, all of them counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owed: Option<u32>,
    /// The first of these requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blockers: Vec<Blocker>,
    /// What the tool's own workload saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// Who wanted the last handoff: `asked`, or why Atom went back by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What was to happen at the deadline: `abort`, `reissue` or `fail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The old payload was not asked for anything.
    #[serde(default)]
    pub forsaken: bool,
    /// The drain, stage by stage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
    /// Requests that the old payload had not started, and that waited for the new one.
    #[serde(default)]
    pub requests_handed_back: u32,
    /// Requests that were taken back from the old payload.
    #[serde(default)]
    pub requests_taken_back: u32,
    /// Devices that the new payload changed.
    #[serde(default)]
    pub devices_changed: u32,
    /// What was seen after the switch, when it soaked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak: Option<SoakReport>,
}

impl UpgradeReport {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.upgrade-report/1";

    /// An upgrade of which nothing has happened yet.
    pub fn begin(kernel: &str, from: &str, to: &str, mode: Mode) -> Self {
        Self {
            schema: Self::SCHEMA.to_owned(),
            kernel: kernel.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            mode,
            outcome: Outcome::Refused,
            reason: None,
            began_ns: None,
            pause_us: 0,
            phases_us: Phases::default(),
            devices: 0,
            opens: 0,
            image_bytes: 0,
            preserved: 0,
            image_schema: None,
            remedy: None,
            warnings: Vec::new(),
            owed: None,
            blockers: Vec::new(),
            workload: None,
            cause: None,
            policy: None,
            forsaken: false,
            stages: Vec::new(),
            requests_handed_back: 0,
            requests_taken_back: 0,
            devices_changed: 0,
            soak: None,
        }
    }

    /// How the process ends with it. A payload that was found wanting and serves all the same needs somebody.
    pub fn exit(&self) -> Exit {
        let trouble = self.soak.as_ref().is_some_and(|soak| soak.trouble.is_some());
        match self.outcome {
            Outcome::Switched if trouble => Exit::Attention,
            outcome => outcome.exit(),
        }
    }

    /// The same with an outcome.
    pub fn end(mut self, outcome: Outcome, reason: Option<String>) -> Self {
        self.outcome = outcome;
        self.reason = reason;
        self
    }

    /// The same with something to do about it.
    pub fn advise(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same with what the tool's own workload saw.
    pub fn with_workload(mut self, workload: Workload) -> Self {
        self.workload = Some(workload);
        self
    }

    /// Takes over what Atom reported about a whole handoff or one half of it.
    pub fn absorb(&mut self, report: &Report) {
        let mut phases = Phases::of(report);
        if self.mode == Mode::Cold && report.kind == kind::ADOPT {
            // Both are part of the time without a payload, see `settle_held`.
            phases.remove(phase::NAMES[phase::PREPARE]);
            phases.remove(phase::NAMES[phase::HELD]);
        }
        if self.began_ns.is_none() && report.started_ns != 0 {
            self.began_ns = Some(report.started_ns);
        }
        self.phases_us.extend(&phases);
        // An adopt counts since the gate closed, so the later half has the whole pause.
        self.pause_us = self.pause_us.max(micros(report.pause_ns));
        self.devices = self.devices.max(report.devices);
        self.opens = self.opens.max(report.opens);
        self.image_bytes = self.image_bytes.max(report.image_bytes);
        self.preserved = self.preserved.max(report.preserved);
        if report.schema != 0 {
            self.image_schema = Some(report.schema);
        }
        self.cause = Some(cause::name_of(report.cause).to_owned());
        if report.kind != kind::ADOPT {
            self.policy = Some(policy_name(report));
            self.forsaken = is_forsaken(report);
            self.stages = Stage::all_of(report);
        }
        self.requests_handed_back = self.requests_handed_back.saturating_add(report.handed_back);
        self.requests_taken_back = self.requests_taken_back.saturating_add(report.revoked);
        self.devices_changed = self.devices_changed.max(report.changed);
        if report.owed != 0 {
            self.owed = Some(report.owed);
            self.blockers = Blocker::all_of(report);
        }
        if report.inverse_errors != 0 {
            self.warnings.push(format!(
                "an inverse step that must not fail reported {} errors: read the kernel log (dmesg)",
                report.inverse_errors
            ));
        }
    }

    /// Works out the time without a payload: what the other phases leave of the pause.
    pub fn settle_held(&mut self) {
        let known: u64 = [phase::CLOSE, phase::DRAIN, phase::FREEZE, phase::ADOPT, phase::OPEN]
            .iter()
            .filter_map(|index| self.phases_us.get(phase::NAMES[*index]))
            .sum();
        self.phases_us.set(phase::NAMES[phase::HELD], self.pause_us.saturating_sub(known));
    }
}

#[cfg(test)]
mod tests {
    use atom_abi::control::{stage, Blocker as Owed, Stage as OfAtom};
    use atom_abi::text::Text;
    use atom_abi::version::{reason, Refusal};

    use super::*;

    fn aborted() -> UpgradeReport {
        let mut report = Report::EMPTY;
        report.phases_ns[phase::PREPARE] = 4_000_000;
        report.phases_ns[phase::CLOSE] = 210_000;
        report.phases_ns[phase::DRAIN] = 500_000_000;
        report.pause_ns = 500_400_999;
        report.devices = 2;
        report.opens = 3;
        report.owed = 1;
        report.refusal = Refusal::new(reason::DEADLINE, 0, 1);
        report.blockers[0] = Owed {
            sector: 4096,
            age_ns: 612_000_000,
            bytes: 8192,
            device: 1,
            tag: 17,
            hctx: 2,
            op: atom_abi::request::op::WRITE,
            flags: 0,
        };
        report.reasons[0] = Text::new("kept by a command");
        report.stages[stage::DATA] = OfAtom { began: 2, left: 1, ns: 500_000_000 };
        let mut document = UpgradeReport::begin("7.2.12", "1.0.0", "1.1.0", Mode::Warm);
        document.absorb(&report);
        document.end(Outcome::Aborted, Some(report.refusal.to_string()))
    }

    #[test]
    fn the_upgrade_report_reads_as_documented() {
        let golden = r#"{
  "schema": "atom.upgrade-report/1",
  "kernel": "7.2.12",
  "from": "1.0.0",
  "to": "1.1.0",
  "mode": "warm",
  "outcome": "aborted",
  "reason": "1 requests were still owed at the deadline",
  "pause_us": 500400,
  "phases_us": {
    "prepare": 4000,
    "close": 210,
    "drain": 500000
  },
  "devices": 2,
  "opens": 3,
  "image_bytes": 0,
  "preserved": 0,
  "owed": 1,
  "blockers": [
    {
      "device": "atom1",
      "hctx": 2,
      "tag": 17,
      "op": "write",
      "sector": 4096,
      "bytes": 8192,
      "age_ms": 612,
      "reason": "kept by a command"
    }
  ],
  "cause": "asked",
  "policy": "abort",
  "forsaken": false,
  "stages": [
    {
      "name": "data",
      "began": 2,
      "left": 1,
      "us": 500000
    }
  ],
  "requests_handed_back": 0,
  "requests_taken_back": 0,
  "devices_changed": 0
}"#;
        assert_eq!(serde_json::to_string_pretty(&aborted()).unwrap(), golden);
    }

    #[test]
    fn a_report_reads_back_as_it_was_written_and_may_have_grown() {
        let document = aborted();
        let json = serde_json::to_string(&document).unwrap();
        let grown = json.replacen('{', r#"{"later":{"anything":1},"#, 1);
        let back: UpgradeReport = serde_json::from_str(&grown).unwrap();
        assert_eq!(back, document);
    }

    #[test]
    fn a_report_of_the_first_release_is_still_read() {
        let json = serde_json::json!({
            "schema": "atom.upgrade-report/1", "kernel": "7.2.12", "from": "1.0.0", "to": "1.1.0",
            "mode": "warm", "outcome": "committed", "reason": null, "pause_us": 1, "phases_us": {},
            "devices": 0, "opens": 0, "image_bytes": 0, "preserved": 0,
        });
        let read: UpgradeReport = serde_json::from_value(json).unwrap();
        assert_eq!((read.cause, read.requests_taken_back), (None, 0));
    }

    #[test]
    fn a_payload_with_trouble_that_serves_all_the_same_needs_somebody() {
        let mut report = UpgradeReport::begin("7.2.12", "1.0.0", "1.1.0", Mode::Warm)
            .end(Outcome::Switched, None);
        report.soak = Some(SoakReport::default());
        assert_eq!(report.exit().code(), 0);
        report.soak = Some(SoakReport { trouble: Some("errors".into()), ..SoakReport::default() });
        assert_eq!(report.exit().code(), 4);
        assert_eq!(report.end(Outcome::RolledBack, None).exit().code(), 1);
    }

    #[test]
    fn the_phases_of_a_cold_upgrade_add_up_to_its_pause() {
        let mut document = UpgradeReport::begin("7.2.12", "1.0.0", "1.1.0", Mode::Cold);
        let mut abandon = Report { kind: kind::ABANDON, ..Report::EMPTY };
        abandon.phases_ns[phase::PREPARE] = 50_000;
        abandon.phases_ns[phase::CLOSE] = 100_000;
        abandon.phases_ns[phase::FREEZE] = 200_000;
        abandon.pause_ns = 400_000;
        document.absorb(&abandon);
        let mut adopt = Report { kind: kind::ADOPT, ..Report::EMPTY };
        adopt.phases_ns[phase::PREPARE] = 70_000;
        adopt.phases_ns[phase::HELD] = 9_000_000;
        adopt.phases_ns[phase::ADOPT] = 300_000;
        adopt.phases_ns[phase::OPEN] = 10_000;
        adopt.pause_ns = 9_500_000;
        document.absorb(&adopt);
        document.settle_held();
        let phases: Vec<_> = document.phases_us.iter().collect();
        assert_eq!(
            phases,
            [
                ("prepare", 50),
                ("close", 100),
                ("freeze", 200),
                ("adopt", 300),
                ("open", 10),
                ("held", 8890),
            ]
        );
        assert_eq!(document.pause_us, 9500);
    }
}
