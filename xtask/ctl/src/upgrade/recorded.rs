// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Upgrades with a record in the journal.

use std::thread;

use super::{run_to, Options, Site, Target, Terms};
use crate::journal::{self, Attempt, Kind, Origin};
use crate::node::Node;
use crate::problem::Result;
use crate::report::UpgradeReport;
use crate::trace::{self, Sampler, Trace, AFTER, BEFORE};

/// What is written down about an upgrade.
#[derive(Clone, Copy, Default, Debug)]
pub struct Recording {
    /// On whose behalf it is made.
    pub origin: Origin,
    /// The devices are looked at before, meanwhile and after, see [`crate::trace`].
    pub trace: bool,
}

impl From<Origin> for Recording {
    fn from(origin: Origin) -> Self {
        Self { origin, trace: false }
    }
}

/// Upgrades to `target` and writes to the journal that it begins and how it ends. What kept that from the disk is a
/// warning of the report.
pub fn run_recorded<N: Node>(
    node: &N,
    target: &Target,
    options: &Options,
    terms: &Terms,
    recording: impl Into<Recording>,
) -> Result<UpgradeReport> {
    let Recording { origin, trace } = recording.into();
    let site = Site::survey(node)?;
    let from = site.live().map_or("", |live| live.version.as_str());
    let file = target.read(&options.places);
    let to = match &file {
        Ok(file) if !file.version().is_empty() => file.version().to_owned(),
        _ => target.to_string(),
    };
    let attempt = Attempt::begin_as(Kind::Upgrade, Some(options.mode), origin, from, &to);
    let number = attempt.number();
    record(attempt, || {
        if trace {
            traced(number, || run_to(node, file, options, terms))
        } else {
            run_to(node, file, options, terms)
        }
    })
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

/// Looks at the devices meanwhile. That they could not be looked at is a warning.
fn traced(attempt: u64, work: impl FnOnce() -> Result<UpgradeReport>) -> Result<UpgradeReport> {
    let sampler = match Sampler::start() {
        Ok(sampler) => sampler,
        Err(error) => {
            let mut report = work()?;
            report.warnings.push(format!("the devices were not looked at: {error}"));
            return Ok(report);
        }
    };
    // What is usual has to be seen before anything changes, and again after it.
    thread::sleep(BEFORE);
    let mut report = work()?;
    thread::sleep(AFTER);
    let (schema, boot) = (Trace::SCHEMA.to_owned(), journal::boot());
    let seen = Trace { schema, attempt, boot, samples: sampler.end() };
    if let Err(error) = trace::write(&seen) {
        report.warnings.push(format!("what the devices did was not written down: {error}"));
    }
    Ok(report)
}
