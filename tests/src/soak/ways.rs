// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! One attempt of each kind, and what must have come of it.

use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atom_abi::control::outcome;
use atom_abi::version::reason;
use atomctl::kmod;
use atomctl::node::Node;
use atomctl::report::{Mode, Outcome, UpgradeReport};
use atomctl::upgrade::{self, Options, Soak, Terms};

use super::mix::Mix;
use super::plan::Kind;
use crate::site::Site;

/// Refused by the check of the file: it wants what this Atom has not.
const FOREIGN: &str = "capability";
/// Speaks of volumes over targets, and does what its parameters say.
const FAULTY: &str = "fault-client";
/// It fails *adopt* with `EIO`, each time.
const FAILS_ADOPT: &str = "fault_step=7 fault_kind=1 fault_value=5";
/// The deadline that a server which stands still lets pass.
const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(30);
/// How a payload is watched that soaks: long enough for canary reads, and short among thousands.
const SOAK: Soak = Soak {
    time: Duration::from_millis(100),
    stall: Duration::from_secs(20),
    max_errors: 0,
    canary: true,
};

/// Carries out an attempt on its way to version `to`, and returns how long I/O was held by an upgrade.
pub(super) fn carry_out(site: &Site, mix: &mut Mix, kind: Kind, to: &str) -> Result<Option<u64>> {
    match kind {
        Kind::Warm => Ok(Some(site.upgrade(to, Mode::Warm)?.pause_us)),
        Kind::Cold => Ok(Some(site.upgrade(to, Mode::Cold)?.pause_us)),
        Kind::Soaked => soaked(site, to).map(Some),
        Kind::RolledBack => rolled_back(site, mix, to).map(Some),
        Kind::Refused => refused(site).map(|()| None),
        Kind::Undone => undone(site).map(|()| None),
        Kind::Aborted => aborted(site, mix, to).map(|()| None),
    }
}

fn soaked(site: &Site, to: &str) -> Result<u64> {
    let terms = Terms { soak: Some(SOAK), ..Terms::default() };
    let report = run(site, &site.file(to), &site.options(Mode::Warm)?, &terms)?;
    let watched = report.soak.as_ref().context("it did not soak")?;
    ensure!(
        report.outcome == Outcome::Committed && watched.trouble.is_none(),
        "the soak: {report:?}"
    );
    ensure!(watched.canary_reads > 0 && watched.errors.is_empty(), "the soak: {report:?}");
    Ok(report.pause_us)
}

/// The new one serves for some I/O; then the old one serves again.
fn rolled_back(site: &Site, mix: &mut Mix, to: &str) -> Result<u64> {
    let options = Options { keep_parked: true, ..site.options(Mode::Warm)? };
    let report = run(site, &site.file(to), &options, &Terms::default())?;
    ensure!(report.outcome == Outcome::Switched, "the way there: {report:?}");
    mix.next_generation();
    mix.flows()?;
    let (status, payloads) = (site.node().status()?, site.node().payloads()?);
    let reports = site.node().reports()?;
    let new = payloads.iter().find(|one| one.id == status.live).context("none is live")?;
    let parked = upgrade::choose_parked(&payloads, &reports, None)?;
    let seen = upgrade::Site::survey(site.node())?;
    let back = upgrade::switch_back(site.node(), &seen, parked, LONG)?;
    ensure!(back.outcome == Outcome::Switched, "the way back: {back:?}");
    kmod::remove(new.module.as_str())?;
    Ok(report.pause_us.max(back.pause_us))
}

fn refused(site: &Site) -> Result<()> {
    let report = run(site, &site.file(FOREIGN), &site.options(Mode::Warm)?, &Terms::default())?;
    ensure!(report.outcome == Outcome::Refused && report.pause_us == 0, "{report:?}");
    Ok(())
}

fn undone(site: &Site) -> Result<()> {
    let id = site.insert_with(&site.file(FAULTY), FAILS_ADOPT)?;
    let report = site.node().switch(id, LONG)?;
    ensure!(
        report.outcome == outcome::UNDONE && report.refusal.code == reason::OPERATION,
        "{report:?}"
    );
    let payloads = site.node().payloads()?;
    let payload = payloads.iter().find(|payload| payload.id == id).context("it is gone")?;
    Ok(kmod::remove(payload.module.as_str())?)
}

fn aborted(site: &Site, mix: &Mix, to: &str) -> Result<()> {
    mix.freeze_server()?;
    let options = Options { deadline: SHORT, ..site.options(Mode::Warm)? };
    let report = run(site, &site.file(to), &options, &Terms::default());
    mix.thaw_server()?;
    let report = report?;
    ensure!(
        report.outcome == Outcome::Aborted && report.owed.is_some_and(|owed| owed > 0),
        "{report:?}"
    );
    Ok(())
}

fn run(site: &Site, file: &Path, options: &Options, terms: &Terms) -> Result<UpgradeReport> {
    let report = upgrade::run_on(site.node(), file, options, terms)?;
    ensure!(report.warnings.is_empty(), "{report:?}");
    Ok(report)
}
