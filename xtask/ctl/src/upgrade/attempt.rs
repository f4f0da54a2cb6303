// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! One handoff, also when Atom had to go back for the task that asked for it.

use atom_abi::control::{cause, Report};

use crate::node::Node;
use crate::problem::Result;

/// Makes a handoff. When the call itself failed because a payload was in an operation for too long, the report
/// of whoever went back says what became of it.
pub(super) fn attempt<N: Node>(
    node: &N,
    handoff: impl FnOnce(&N) -> Result<Report>,
) -> Result<Report> {
    let newest = |node: &N| node.reports().ok().and_then(|reports| reports.first().copied());
    let before = newest(node).map_or(0, |report| report.sequence);
    handoff(node).or_else(|problem| {
        newest(node)
            .filter(|report| report.sequence > before && report.cause == cause::DIED)
            .ok_or(problem)
    })
}
