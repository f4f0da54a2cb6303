// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A tool that dies at each of its failpoints, one after the other: `atomctl recover` brings the machine to rest, nobody on
//! the devices notices, and the journal is true.
//!
//! In an ordinary run a point is met on the first of the verbs that come to it; with `--slow` on each.
//!
//! Nothing is named here but what cannot be met in this place: the points are those that the tool lists.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atom_abi::control::outcome;
use atom_abi::lifecycle::Place;
use atomctl::kmod;
use atomctl::node::Node;

use super::recover::{atomctl, last_number, recover, tidy, true_end, TEST_MODULES};
use super::Context;
use crate::load::fio::{Fio, Shape};
use crate::site::{Site, Spec, MODULES};

const TOOL: &str = "atomctl-failpoints";
const VARIABLE: &str = "ATOMCTL_FAILPOINTS";
const DEADLINE: Duration = Duration::from_secs(5);
const SIGKILL: i32 = 9;
/// What a writer that died leaves at the end of a file.
const TORN: &[u8] = b"torn";
const JOURNALS: [&str; 2] = ["/run/atom/spool", "/var/lib/atom/journal"];

/// Met when a journal of a MiB becomes another one, which the tests of the journal look at.
const ELSEWHERE: [&str; 3] = ["journal.rename", "package.announce", "package.upgrade"];

/// What the tool is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verb {
    Warm,
    Cold,
    Soak,
    /// Back to a payload that is parked.
    Rollback,
    /// After a tool that died with nobody adopted.
    Recover,
}

const VERBS: [Verb; 5] = [Verb::Warm, Verb::Cold, Verb::Soak, Verb::Rollback, Verb::Recover];

pub fn a_tool_that_dies_at_any_of_its_points_leaves_what_can_be_recovered(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let device = site.volume("data", Spec::ram(16))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    let listed = run("list", &[])?;
    ensure!(listed.status.success(), "{TOOL} does not list its points");
    let points: Vec<String> =
        String::from_utf8(listed.stdout)?.lines().map(str::to_owned).collect();
    let mut unmet: BTreeSet<&str> = points.iter().map(String::as_str).collect();
    let mut deaths = 0;
    for point in &points {
        // The journal is the same in all of them.
        let verbs = if point.starts_with("upgrade.") { &VERBS[..] } else { &VERBS[..1] };
        for verb in verbs {
            context.step(&format!("{verb:?}: {point}"));
            let died = die(&site, *verb, point).with_context(|| format!("{verb:?}: {point}"))?;
            if died {
                unmet.remove(point.as_str());
                deaths += 1;
                if !context.is_slow() {
                    break;
                }
            }
        }
    }
    ensure!(unmet == BTreeSet::from(ELSEWHERE), "nobody came to {unmet:?}");
    context.fact("points", points.len());
    context.fact("deaths", deaths);
    load.stop()?;
    site.leave()
}

pub fn a_journal_that_fails_costs_a_warning_and_nothing_else(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let device = site.volume("data", Spec::ram(16))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    let new = site.file("1.1.0").display().to_string();
    for point in ["journal.append", "journal.sync", "spool.append", "spool.lock"] {
        context.step(point);
        let output = run(&format!("{point}=error:EIO"), &["upgrade", &new])?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{point}: {}: {said}", output.status);
        let report: serde_json::Value = serde_json::from_str(&said)?;
        ensure!(report["outcome"] == "committed", "{point}: {report}");
        let warned = report["warnings"].as_array().is_some_and(|warnings| !warnings.is_empty());
        ensure!(warned, "{point}: nobody was told: {report}");
        recover(&["--undo"])?;
        tidy(&site)?;
    }
    load.stop()?;
    site.leave()
}

/// The tool dies at a point, and the machine is brought to rest. False: it did not come there.
fn die(site: &Site, verb: Verb, point: &str) -> Result<bool> {
    let file = site.file("1.1.0").display().to_string();
    let known = last_number(&atomctl(&["history"], 0)?);
    let args: Vec<&str> = match verb {
        Verb::Warm => vec!["upgrade", &file],
        Verb::Cold => vec!["upgrade", "--cold", &file],
        Verb::Soak => vec!["upgrade", "--soak", "1s", &file],
        Verb::Rollback => {
            atomctl(&["upgrade", "--keep-parked", &file], 0)?;
            vec!["rollback"]
        }
        Verb::Recover => {
            let report = site.node().abandon(1, DEADLINE)?;
            ensure!(report.outcome == outcome::DONE, "abandon: {}", report.refusal);
            kmod::remove("payload_1_0_0")?;
            vec!["recover", "--undo"]
        }
    };
    if point.ends_with(".truncate") {
        for journal in JOURNALS {
            OpenOptions::new().append(true).create(true).open(journal)?.write_all(TORN)?;
        }
    }
    let output = run(&format!("{point}=kill"), &args)?;
    let died = output.status.signal() == Some(SIGKILL);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(died || output.status.success(), "{}: {said}", output.status);
    // What has finished needs nobody.
    recover(&["--undo"])?;
    let (live, status) = (site.live()?, site.node().status()?);
    ensure!(live == "1.0.0" || live == "1.1.0", "{live:?} serves");
    ensure!(status.place == Place::Live.code() && status.held_ns == 0, "{status:?}");
    let journal = atomctl(&["history"], 0)?;
    ensure!(journal["damaged"] == 0, "{journal}");
    match verb {
        Verb::Warm | Verb::Cold | Verb::Soak => {
            true_end(&journal, known, &live)?;
        }
        Verb::Rollback | Verb::Recover => {
            let attempts = journal["attempts"].as_array().context("no attempts")?;
            let open = attempts.iter().find(|one| {
                let state = one["state"].as_str();
                one["attempt"].as_u64() > Some(known) && !matches!(state, Some("ended" | "settled"))
            });
            ensure!(open.is_none(), "an attempt has no end: {open:?}");
        }
    }
    tidy(site)?;
    Ok(died)
}

fn run(points: &str, args: &[&str]) -> Result<Output> {
    Command::new(TOOL)
        .args(["--json", "--dir", MODULES, "--dir", TEST_MODULES])
        .args(if args.is_empty() { &["status"] } else { args })
        .env(VARIABLE, points)
        .output()
        .with_context(|| format!("cannot start {TOOL}"))
}
