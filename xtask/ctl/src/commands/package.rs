// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl package`: what the scripts of packages call. It speaks on the standard error, where package managers show it
//! and the machine's log has it.

use std::fs::OpenOptions;
use std::io::{stderr, Write};

use super::output::Output;
use crate::node::kernel_release;
use crate::package::{self, Outcome, Package, Payload, Process, Reason};
use crate::problem::{Exit, Result};
use crate::quantity::show_micros;
use crate::report::{Outcome as Ended, UpgradeReport};

/// The kernel's log, and how its lines begin: the facility of user programs, and how urgent it is.
const KERNEL_LOG: &str = "/dev/kmsg";
const INFO: &str = "<14>";
const WARNING: &str = "<12>";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    event: Event,
}

#[derive(Debug, clap::Subcommand)]
enum Event {
    /// Before the files of a payload's package are installed.
    Coming(Which),
    /// After the transaction that has installed it. Always succeeds.
    Installed {
        #[command(flatten)]
        which: Which,
        /// The operator has named this version: it is upgraded to also when it is older.
        #[arg(long)]
        named: bool,
    },
    /// Before its files are removed; fails when they must not be.
    Removing {
        #[command(flatten)]
        which: Which,
        /// Another package of the same name takes its place.
        #[arg(long)]
        replaced: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The version of the payload.
    version: String,
    /// The kernel that it is for; the running one if not given.
    #[arg(long, value_name = "RELEASE")]
    kernel: Option<String>,
    /// The process of the package manager, which packages of one transaction have in common.
    #[arg(long, value_name = "PID")]
    transaction: Option<u32>,
}

impl Which {
    fn package(self) -> Result<Package> {
        let kernel = match self.kernel {
            Some(kernel) => kernel,
            None => kernel_release()?,
        };
        Ok(Package {
            payload: Payload { kernel, version: self.version },
            manager: self.transaction.and_then(Process::of),
        })
    }
}

pub(super) fn run(output: &Output, args: Args) -> Result<Exit> {
    match args.event {
        Event::Coming(which) => {
            if let Err(problem) = which.package().and_then(|package| package::coming(&package)) {
                say(WARNING, &problem.in_one_line());
            }
        }
        Event::Installed { which, named } => {
            let version = which.version.clone();
            match which.package().and_then(|package| package::installed(&package, named)) {
                Ok(outcome) => told(&version, &outcome),
                // The package is installed all the same: its transaction has not failed.
                Err(problem) => {
                    say(
                        WARNING,
                        &format!("payload {version} is installed and not live: {}", problem.why),
                    );
                    output.explain(&problem);
                }
            }
        }
        Event::Removing { which, replaced } => {
            let package = which.package()?;
            if let Some(problem) = package::removing(&package, replaced)? {
                say(WARNING, &problem.in_one_line());
            }
        }
    }
    Ok(Exit::Done)
}

fn told(version: &str, outcome: &Outcome) {
    match outcome {
        Outcome::Upgraded(report) => {
            let urgency = if report.exit() == Exit::Done { INFO } else { WARNING };
            say(urgency, &upgraded(report));
        }
        Outcome::NotNow(Reason::Live) => whisper(&format!("payload {version} is live already")),
        Outcome::NotNow(reason) => {
            let text = format!(
                "payload {version} is installed; the node does not upgrade to it now: {reason}"
            );
            if reason.needs_attention() {
                say(WARNING, &text);
            } else {
                whisper(&text);
            }
        }
    }
}

/// What became of an upgrade, in one line.
fn upgraded(report: &UpgradeReport) -> String {
    let UpgradeReport { from, to, outcome, .. } = report;
    let pause = show_micros(report.pause_us);
    match outcome {
        Ended::Committed => {
            format!("payload {to} is live, {from} before; I/O was held for {pause}")
        }
        Ended::Switched => {
            format!("payload {to} is live, {from} is still loaded; I/O was held for {pause}")
        }
        Ended::Held => format!(
            "the upgrade from {from} to {to} has left I/O held: atomctl recover{}",
            because(report)
        ),
        Ended::RolledBack | Ended::Aborted | Ended::Refused => {
            let remedy = report.remedy.as_ref().map(|text| format!("; {text}")).unwrap_or_default();
            format!(
                "payload {to} is installed; the upgrade to it was {outcome}, and {from} serves{}{remedy}",
                because(report)
            )
        }
    }
}

fn because(report: &UpgradeReport) -> String {
    report.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
}

/// Tells whoever runs the package manager.
fn whisper(text: &str) {
    let _ = writeln!(stderr(), "atom: {text}");
}

/// Tells whoever runs the package manager, and the machine's log.
fn say(urgency: &str, text: &str) {
    whisper(text);
    if let Ok(mut log) = OpenOptions::new().write(true).open(KERNEL_LOG) {
        // Where it cannot be logged, it was told.
        let _ =
            log.write_all(format!("{urgency}atomctl: {}\n", text.replace('\n', " ")).as_bytes());
    }
}

/// The files of packages stay as packages have them; only what runs is written down.
pub(super) fn drives(args: &Args) -> bool {
    matches!(args.event, Event::Installed { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Mode;

    fn report(outcome: Ended, reason: Option<&str>) -> UpgradeReport {
        UpgradeReport {
            pause_us: 5480,
            ..UpgradeReport::begin("7.2.12", "2.0.0", "2.1.0", Mode::Warm)
        }
        .end(outcome, reason.map(str::to_owned))
    }

    #[test]
    fn one_line_says_what_serves_after_it() {
        assert_eq!(
            upgraded(&report(Ended::Committed, None)),
            "payload 2.1.0 is live, 2.0.0 before; I/O was held for 5.48 ms"
        );
        let back = upgraded(&report(Ended::RolledBack, Some("it stalled")));
        assert!(
            back.contains("rolled-back") && back.contains("2.0.0 serves: it stalled"),
            "{back}"
        );
        assert!(upgraded(&report(Ended::Held, Some("x"))).contains("atomctl recover"));
    }
}
