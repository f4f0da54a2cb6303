// SPDX-License-Identifier: GPL-2.0

//! The last reports. Pure.

use crate::abi::control::{Report, REPORTS_KEPT};

/// The last reports, newest first; one without a sequence number is no report.
pub(crate) struct Reports {
    kept: [Report; REPORTS_KEPT],
}

impl Reports {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self { kept: [Report::EMPTY; REPORTS_KEPT] }
    }

    /// Keeps a report and forgets the oldest.
    pub(crate) fn push(&mut self, report: &Report) {
        self.kept.rotate_right(1);
        self.kept[0] = *report;
    }

    /// The report at a position, 0 for the newest.
    pub(crate) fn get(&self, index: u32) -> Option<&Report> {
        self.kept.get(index as usize).filter(|report| report.sequence != 0)
    }
}
