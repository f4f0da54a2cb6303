// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Single handoffs, as Atom reports them.

use atom_abi::control::{self, cause, kind, outcome, policy, Report, BLOCKERS_NAMED};
use atom_abi::request::op;
use atom_abi::text::Text;
use atom_abi::version::reason;
use serde::{Deserialize, Serialize};

use super::{micros, Phases, Stage};
use crate::drain::AtDeadline;

/// A request that the payload still owed at the deadline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Blocker {
    /// Its device, such as `atom0`.
    pub device: String,
    /// The hardware queue.
    pub hctx: u16,
    /// The tag within the hardware queue.
    pub tag: u32,
    /// What it asks for.
    pub op: String,
    /// First sector of 512 bytes.
    pub sector: u64,
    /// Length.
    pub bytes: u32,
    /// How long ago it was started.
    pub age_ms: u64,
    /// Why the payload had not ended it, in its own words, when it knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Blocker {
    /// The requests that a report names.
    pub fn all_of(report: &Report) -> Vec<Self> {
        let named = usize::try_from(report.owed).unwrap_or(usize::MAX).min(BLOCKERS_NAMED);
        report
            .blockers
            .iter()
            .zip(&report.reasons)
            .take(named)
            .map(|(blocker, reason)| Self::of(blocker, reason))
            .collect()
    }

    fn of(blocker: &control::Blocker, reason: &Text) -> Self {
        Self {
            device: format!("atom{}", blocker.device),
            hctx: blocker.hctx,
            tag: blocker.tag,
            op: op::name(blocker.op).to_owned(),
            sector: blocker.sector,
            bytes: blocker.bytes,
            age_ms: blocker.age_ns / 1_000_000,
            reason: (!reason.is_empty()).then(|| reason.as_str().to_owned()),
        }
    }
}

/// Why a handoff was not carried out; none when it was.
pub fn failure_of(report: &Report) -> Option<String> {
    (report.outcome != outcome::DONE || report.refusal.code != reason::NONE)
        .then(|| report.refusal.to_string())
}

/// The name of what was to happen at the deadline.
pub fn policy_name(report: &Report) -> String {
    AtDeadline::of_code(report.policy).map_or("unknown", AtDeadline::name).to_owned()
}

/// Whether the live payload was not asked for anything.
pub fn is_forsaken(report: &Report) -> bool {
    report.policy & policy::FORSAKE != 0
}

/// One handoff.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Handoff {
    /// Counts handoffs from 1.
    pub sequence: u64,
    /// `switch`, `abandon`, `adopt` or `expire`.
    pub kind: String,
    /// `done`, `refused` or `undone`.
    pub outcome: String,
    /// Why it was refused or undone.
    pub reason: Option<String>,
    /// Version that was live before; empty when none was.
    pub from: String,
    /// Version that was to be live; empty for an abandon.
    pub to: String,
    /// The generation that serves after it.
    pub epoch: u64,
    /// When it began, on the kernel's monotonic clock.
    pub started_us: u64,
    /// How long I/O was held.
    pub pause_us: u64,
    /// Time by phase.
    pub phases_us: Phases,
    /// Devices that changed hands.
    pub devices: u32,
    /// Open handles meanwhile.
    pub opens: u32,
    /// Size of the image.
    pub image_bytes: u64,
    /// Schema of the image.
    pub image_schema: u32,
    /// Preserved objects that changed hands.
    pub preserved: u32,
    /// Sum of the errors of inverses: 0, or the payload has a fault.
    pub inverse_errors: u32,
    /// Requests that were owed at the deadline; the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blockers: Vec<Blocker>,
    /// Who wanted it: `asked`, `stall`, `no-commit`, `nobody` or `died`.
    #[serde(default)]
    pub cause: String,
    /// What was to happen at the deadline: `abort`, `reissue` or `fail`.
    #[serde(default)]
    pub policy: String,
    /// The live payload was not asked for anything.
    #[serde(default)]
    pub forsaken: bool,
    /// The drain, stage by stage.
    #[serde(default)]
    pub stages: Vec<Stage>,
    /// Requests that the live payload had not started, and that waited for the next one.
    #[serde(default)]
    pub requests_handed_back: u32,
    /// Requests that were taken back from the live payload.
    #[serde(default)]
    pub requests_taken_back: u32,
    /// Devices that the next payload changed.
    #[serde(default)]
    pub devices_changed: u32,
}

impl Handoff {
    /// A handoff that Atom has reported.
    pub fn of(report: &Report) -> Self {
        Self {
            sequence: report.sequence,
            kind: kind_name(report.kind).to_owned(),
            outcome: outcome_name(report.outcome).to_owned(),
            reason: failure_of(report),
            from: report.from.as_str().to_owned(),
            to: report.to.as_str().to_owned(),
            epoch: report.epoch,
            started_us: micros(report.started_ns),
            pause_us: micros(report.pause_ns),
            phases_us: Phases::of(report),
            devices: report.devices,
            opens: report.opens,
            image_bytes: report.image_bytes,
            image_schema: report.schema,
            preserved: report.preserved,
            inverse_errors: report.inverse_errors,
            blockers: Blocker::all_of(report),
            cause: cause::name_of(report.cause).to_owned(),
            policy: policy_name(report),
            forsaken: is_forsaken(report),
            stages: Stage::all_of(report),
            requests_handed_back: report.handed_back,
            requests_taken_back: report.revoked,
            devices_changed: report.changed,
        }
    }

    /// True when it was carried out.
    pub fn is_done(&self) -> bool {
        self.outcome == outcome_name(outcome::DONE)
    }
}

fn kind_name(kind: u32) -> &'static str {
    match kind {
        kind::SWITCH => "switch",
        kind::ABANDON => "abandon",
        kind::ADOPT => "adopt",
        kind::EXPIRE => "expire",
        _ => "unknown",
    }
}

fn outcome_name(outcome: u32) -> &'static str {
    match outcome {
        outcome::DONE => "done",
        outcome::REFUSED => "refused",
        outcome::UNDONE => "undone",
        _ => "unknown",
    }
}

/// What `abandon` and `adopt` print.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HandoffDocument {
    /// [`HandoffDocument::SCHEMA`].
    pub schema: String,
    /// The handoff.
    #[serde(flatten)]
    pub handoff: Handoff,
}

impl HandoffDocument {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.handoff/1";

    /// The document of one handoff.
    pub fn new(handoff: Handoff) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), handoff }
    }
}

/// What `history` prints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct History {
    /// [`History::SCHEMA`].
    pub schema: String,
    /// The handoffs that Atom keeps, newest first.
    pub handoffs: Vec<Handoff>,
}

impl History {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.history/1";

    /// The document of the reports that Atom keeps.
    pub fn new(reports: &[Report]) -> Self {
        Self {
            schema: Self::SCHEMA.to_owned(),
            handoffs: reports.iter().map(Handoff::of).collect(),
        }
    }
}

/// What `load` prints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LoadDocument {
    /// [`LoadDocument::SCHEMA`].
    pub schema: String,
    /// The module that was inserted.
    pub module: String,
    /// Its version.
    pub version: String,
    /// How it took over, when nothing was live.
    pub adopted: Option<Handoff>,
}

impl LoadDocument {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.load/1";
}

/// What `unload` prints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UnloadDocument {
    /// [`UnloadDocument::SCHEMA`].
    pub schema: String,
    /// The module that was removed.
    pub module: String,
    /// Its version.
    pub version: String,
}

impl UnloadDocument {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.unload/1";
}
