// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The JSON documents, for whoever prints them and for whoever reads them back.
//!
//! Every document names its schema and version in `schema`. A version only gains fields; whoever reads
//! one ignores the fields that it does not know.

mod applied;
mod boot;
mod event;
mod foresight;
mod handoff;
mod journal;
#[cfg(test)]
mod json_page;
mod listing;
mod outcome;
mod phases;
mod policy;
mod recovery;
mod soak;
mod stages;
mod state;
mod under_way;
mod upgrade;
mod volume;

pub use applied::{ApplyDocument, ApplyEntry, ApplyOutcome, ApplyResult};
pub use boot::{BootDocument, StopDocument};
pub use event::{Event, State, Told, What};
pub use foresight::{ExpectedPause, UpgradePlan};
pub use handoff::{
    failure_of, Blocker, Handoff, HandoffDocument, History, LoadDocument, UnloadDocument,
};
pub use journal::{AttemptEntry, AttemptState, JournalDocument, LastAttempt};
pub use listing::{hex, schema_range, Entry, EntryState, Listing, Schemas};
pub use outcome::{Mode, Outcome};
pub use phases::Phases;
pub use policy::{CommitDocument, HoldPolicy, PolicyDocument, SoakPolicy};
pub use recovery::{Recovery, RecoveryOutcome};
pub use soak::SoakReport;
pub use stages::Stage;
pub use state::{
    ErrorDocument, LivePayload, RefusedPayload, StatusDevice, StatusDocument, Verdict, Verification,
};
pub use under_way::{DrainUnderWay, SoakUnderWay};
pub use upgrade::{UpgradeReport, Workload};
pub use volume::{
    ConnectionReport, FailureReport, LatencyReport, NameDocument, TargetReport, TermsReport,
    VolumeDocument, VolumeEntry, Volumes, Work,
};

/// Whole microseconds.
pub(crate) fn micros(ns: u64) -> u64 {
    ns / 1000
}
