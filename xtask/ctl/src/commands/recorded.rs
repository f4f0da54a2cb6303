// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a verb does, with a record of it in the journal.

use super::output::Output;
use crate::journal::{Attempt, Recorded};
use crate::problem::{Exit, Result};

/// Does it, and writes how it has ended.
pub(super) fn recorded<R: Recorded>(
    output: &Output,
    attempt: Attempt,
    work: impl FnOnce() -> Result<R>,
) -> Result<R> {
    recorded_as(output, attempt, || {
        let done = work()?;
        let exit = done.verdict().exit;
        Ok((done, exit))
    })
    .map(|(done, _)| done)
}

/// The same where the document does not tell how the process exits.
pub(super) fn recorded_as<R: Recorded>(
    output: &Output,
    attempt: Attempt,
    work: impl FnOnce() -> Result<(R, Exit)>,
) -> Result<(R, Exit)> {
    let warnings = attempt.warnings().to_vec();
    let result = work();
    let ended = match &result {
        Ok((done, exit)) => attempt.end_as(done, *exit),
        Err(problem) => attempt.fail(problem),
    };
    for warning in warnings.iter().chain(ended.err().iter()) {
        output.warn(warning);
    }
    result
}
