// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a recovery is decided from, and what is decided.

use std::fmt;

use atom_abi::control::{kind, outcome, PayloadInfo, Report, Status};
use atom_abi::lifecycle::Place;

use crate::problem::Exit;

/// In which direction.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Wish {
    /// Back, and where that cannot be, forth.
    #[default]
    Least,
    /// Forth: what was begun is finished.
    Finish,
    /// Back: what was begun is undone.
    Undo,
}

/// What is known about a file that could be inserted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum KnownFile {
    /// Nobody has looked for it: it may lie on a disk that is held.
    NotLooked,
    /// There is none, for a reason.
    Missing(String),
    /// It was read.
    Found {
        /// The payload's version.
        version: String,
        /// The name of its module.
        module: String,
    },
}

/// The machine, as far as a recovery depends on it.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// The state of Atom.
    pub(super) status: Status,
    /// The registered payloads.
    pub(super) payloads: Vec<PayloadInfo>,
    /// Atom's reports, newest first.
    pub(super) reports: Vec<Report>,
    /// Loaded modules that use Atom.
    pub(super) users: Vec<String>,
    /// Nanoseconds for which Atom's settings make every switch soak.
    pub(super) soak_ns: u64,
    /// The file for the way back, or the one that was named.
    pub(super) file: KnownFile,
}

/// One step, with words for people in its `Display`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Ends the soak of a payload.
    Commit { id: u32, version: String },
    /// One switch, from a live payload that is not asked when it is dead.
    Switch { id: u32, version: String, forsake: bool },
    /// A registered payload takes over what Atom holds.
    Adopt { id: u32, version: String },
    /// The file is inserted.
    Insert { version: String },
    /// What was inserted takes over.
    AdoptInserted { version: String },
    /// A module is removed.
    Unload { module: String, what: String },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit { version, .. } => write!(f, "commit payload {version}"),
            Self::Switch { version, forsake: false, .. } => {
                write!(f, "switch to payload {version}")
            }
            Self::Switch { version, forsake: true, .. } => {
                write!(f, "switch to payload {version} without asking the dead one")
            }
            Self::Adopt { version, .. } => write!(f, "let payload {version} adopt the devices"),
            Self::Insert { version } => write!(f, "insert payload {version} from its file"),
            Self::AdoptInserted { version } => {
                write!(f, "let the inserted payload {version} adopt the devices")
            }
            Self::Unload { module, what } => write!(f, "unload module {module}, {what}"),
        }
    }
}

/// Why there is no way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Blocked {
    pub(super) exit: Exit,
    pub(super) why: String,
    pub(super) remedy: String,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    /// What was found, in a sentence.
    pub(super) found: String,
    /// The steps, in order.
    pub(super) steps: Vec<Step>,
    /// What is left on purpose, and what to do about it.
    pub(super) left: Vec<String>,
    /// Why there is no way; then there are no steps.
    pub(super) blocked: Option<Blocked>,
}

impl Plan {
    pub(super) fn found(what: impl Into<String>) -> Self {
        Self { found: what.into(), steps: Vec::new(), left: Vec::new(), blocked: None }
    }

    pub(super) fn blocked(
        mut self,
        exit: Exit,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        self.steps.clear();
        self.blocked = Some(Blocked { exit, why: why.into(), remedy: remedy.into() });
        self
    }

    /// True when a file has to be inserted.
    pub(super) fn needs_file(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Insert { .. }))
    }
}

impl Snapshot {
    pub(super) fn live(&self) -> Option<&PayloadInfo> {
        self.payload(self.status.live)
    }

    pub(super) fn payload(&self, id: u32) -> Option<&PayloadInfo> {
        self.payloads.iter().find(|payload| id != 0 && payload.id == id)
    }

    pub(super) fn in_state(&self, state: u32) -> impl Iterator<Item = &PayloadInfo> {
        let live = self.status.live;
        self.payloads.iter().filter(move |payload| payload.id != live && payload.state == state)
    }

    /// Atom has the devices.
    pub(super) fn nobody_serves(&self) -> bool {
        [Place::Held.code(), Place::Failing.code()].contains(&self.status.place)
    }

    /// The version that gave the devices to Atom.
    pub(super) fn came_from(&self) -> Option<&str> {
        self.abandoned().map(|report| report.from.as_str()).filter(|version| !version.is_empty())
    }

    /// The schema of the image that Atom holds, when it can be known.
    pub(super) fn schema(&self) -> Option<u32> {
        self.abandoned().map(|report| report.schema).filter(|schema| *schema != 0)
    }

    fn abandoned(&self) -> Option<&Report> {
        self.reports
            .iter()
            .find(|report| report.kind == kind::ABANDON && report.outcome == outcome::DONE)
    }
}
