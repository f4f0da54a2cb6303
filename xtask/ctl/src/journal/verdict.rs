// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The documents that end an attempt, in a few words.

use serde::Serialize;

use crate::problem::Exit;
use crate::report::{
    CommitDocument, ErrorDocument, HandoffDocument, LoadDocument, Recovery, UnloadDocument,
    UpgradeReport,
};

/// How something has ended, in the few words that the journal needs beside the document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// In a word.
    pub outcome: String,
    /// How the process ends.
    pub exit: Exit,
    /// Why it is not what was asked for.
    pub reason: Option<String>,
}

/// A document that ends an attempt.
pub trait Recorded: Serialize {
    /// How it has ended.
    fn verdict(&self) -> Verdict;
}

impl Verdict {
    fn done(outcome: &str) -> Self {
        Self { outcome: outcome.to_owned(), exit: Exit::Done, reason: None }
    }
}

impl Recorded for UpgradeReport {
    fn verdict(&self) -> Verdict {
        let outcome = self.outcome.to_string();
        Verdict { outcome, exit: self.exit(), reason: self.reason.clone() }
    }
}

impl Recorded for Recovery {
    fn verdict(&self) -> Verdict {
        let outcome = self.outcome.to_string();
        Verdict { outcome, exit: self.outcome.exit(), reason: self.reason.clone() }
    }
}

impl Recorded for HandoffDocument {
    /// Whether I/O is held after it is not told by the document, see [`super::Attempt::end_as`].
    fn verdict(&self) -> Verdict {
        let exit = match self.handoff.outcome.as_str() {
            "done" => Exit::Done,
            "refused" => Exit::Refused,
            _ => Exit::Undone,
        };
        let reason = self.handoff.reason.clone();
        Verdict { outcome: self.handoff.outcome.clone(), exit, reason }
    }
}

impl Recorded for LoadDocument {
    fn verdict(&self) -> Verdict {
        Verdict::done(if self.adopted.is_some() { "live" } else { "loaded" })
    }
}

impl Recorded for UnloadDocument {
    fn verdict(&self) -> Verdict {
        Verdict::done("unloaded")
    }
}

impl Recorded for CommitDocument {
    fn verdict(&self) -> Verdict {
        Verdict::done("committed")
    }
}

impl Recorded for ErrorDocument {
    fn verdict(&self) -> Verdict {
        Verdict {
            outcome: "failed".to_owned(),
            exit: Exit::of(self.exit_code),
            reason: Some(format!("{}: {}", self.what, self.why)),
        }
    }
}
