// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Errors that tell what happened, why, and what to do, and how the process exits with them.

use thiserror::Error;

/// How a command ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// It did what was asked for.
    Done,
    /// It failed and was undone: what served before serves now.
    Undone,
    /// It was asked for in a way that nobody can carry out.
    Usage,
    /// It was refused before anything had changed.
    Refused,
    /// I/O is held, or the state is unknown: somebody has to look.
    Attention,
}

impl Exit {
    /// The end with this exit code. Any code that is not used needs somebody.
    pub fn of(code: u8) -> Self {
        const ALL: [Exit; 4] = [Exit::Done, Exit::Undone, Exit::Usage, Exit::Refused];
        ALL.into_iter().find(|exit| exit.code() == code).unwrap_or(Self::Attention)
    }

    /// The exit code of the process.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Undone => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Attention => 4,
        }
    }
}

/// An error for people: the three things that somebody who meets it needs to know.
#[derive(Debug, Error)]
#[error("{what}\n  why: {why}\n  what to do: {remedy}")]
pub struct Problem {
    /// How the command ends because of it.
    pub exit: Exit,
    /// What happened.
    pub what: String,
    /// Why it happened.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
}

/// What everything in this library returns.
pub type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    /// Refused before anything had changed.
    pub fn refused(
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Exit::Refused, what, why, remedy)
    }

    /// Failed, and what served before serves now.
    pub fn undone(
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Exit::Undone, what, why, remedy)
    }

    /// Asked for in a way that nobody can carry out.
    pub fn usage(
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Exit::Usage, what, why, remedy)
    }

    /// I/O is held, or the state is unknown.
    pub fn attention(
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(Exit::Attention, what, why, remedy)
    }

    /// The same problem with another end.
    pub fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// What happened and why, in one line.
    pub fn in_one_line(&self) -> String {
        format!("{}: {}", self.what, self.why)
    }

    fn new(
        exit: Exit,
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { exit, what: what.into(), why: why.into(), remedy: remedy.into() }
    }
}
