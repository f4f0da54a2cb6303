// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Errors that tell what happened, why, and what to do about it.

use std::fmt;

/// Whether anything had been changed when a [`Problem`] came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The work started and did not succeed.
    Failed,
    /// The work was refused before anything changed.
    Refused,
}

/// An error for people: the three things that somebody who meets it needs to know.
#[derive(Debug)]
pub struct Problem {
    kind: Kind,
    what: String,
    why: String,
    remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  why: {}\n  what to do: {}", self.what, self.why, self.remedy)
    }
}

impl std::error::Error for Problem {}

/// An error for work that started and did not succeed.
pub fn failed(
    what: impl Into<String>,
    why: impl Into<String>,
    remedy: impl Into<String>,
) -> anyhow::Error {
    new(Kind::Failed, what.into(), why.into(), remedy.into())
}

/// An error for work that was refused before anything changed.
pub fn refused(
    what: impl Into<String>,
    why: impl Into<String>,
    remedy: impl Into<String>,
) -> anyhow::Error {
    new(Kind::Refused, what.into(), why.into(), remedy.into())
}

fn new(kind: Kind, what: String, why: String, remedy: String) -> anyhow::Error {
    anyhow::Error::new(Problem { kind, what, why, remedy })
}

/// The exit code that stands for an error: 3 for a refusal, 1 for everything else.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Problem>() {
        Some(problem) if problem.kind == Kind::Refused => 3,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_refusal_exits_with_3_even_under_added_context() {
        let error = Err::<(), _>(refused("a", "b", "c")).context("more").unwrap_err();
        assert_eq!(exit_code(&error), 3);
    }

    #[test]
    fn a_failure_and_any_other_error_exit_with_1() {
        assert_eq!(exit_code(&failed("a", "b", "c")), 1);
        assert_eq!(exit_code(&anyhow::anyhow!("x")), 1);
    }
}
