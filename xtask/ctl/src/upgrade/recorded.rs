// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Upgrades with a record in the journal.

use super::{run_to, Options, Site, Target, Terms};
use crate::journal::{Attempt, Kind, Origin};
use crate::node::Node;
use crate::problem::Result;
use crate::report::UpgradeReport;

/// Upgrades to `target` and writes to the journal that it begins and how it ends. What kept that from the disk is a
/// warning of the report.
pub fn run_recorded<N: Node>(
    node: &N,
    target: &Target,
    options: &Options,
    terms: &Terms,
    origin: Origin,
) -> Result<UpgradeReport> {
    let site = Site::survey(node)?;
    let from = site.live().map_or("", |live| live.version.as_str());
    let file = target.read(&options.places);
    let to = match &file {
        Ok(file) if !file.version().is_empty() => file.version().to_owned(),
        _ => target.to_string(),
    };
    let attempt = Attempt::begin_as(Kind::Upgrade, Some(options.mode), origin, from, &to);
    record(attempt, || run_to(node, file, options, terms))
}

/// Does something that has an upgrade report, and writes how it has ended.
pub fn record(
    attempt: Attempt,
    work: impl FnOnce() -> Result<UpgradeReport>,
) -> Result<UpgradeReport> {
    let warnings = attempt.warnings().to_vec();
    let mut report = match work() {
        Ok(report) => report,
        Err(problem) => {
            // The problem is what matters to whoever asked.
            let _ = attempt.fail(&problem);
            return Err(problem);
        }
    };
    report.warnings.extend(warnings);
    report.warnings.extend(attempt.end(&report).err());
    Ok(report)
}
