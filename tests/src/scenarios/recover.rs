// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A tool that dies half-way: whatever it has left behind, `atomctl recover` finishes or undoes it, and nobody on the
//! devices notices more than a pause.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atom_abi::control::{setting, Settings};
use atom_abi::lifecycle::Place;
use atomctl::kmod;
use atomctl::node::Node;
use serde_json::Value;

use super::Context;
use crate::load::fio::{Fio, Shape};
use crate::site::{Site, Spec, MODULES};
use crate::wait;

pub(super) const TEST_MODULES: &str = "/lib/atom/test";
const DEADLINE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// What a tool that has died leaves behind.
struct Death {
    what: &'static str,
    leave: fn(&Site) -> Result<()>,
    /// The payload that serves after `--undo` and after `--finish`.
    after: [&'static str; 2],
}

const DEATHS: &[Death] = &[
    Death {
        what: "after the new module was inserted",
        leave: |site| site.insert(&site.file("1.1.0")).map(drop),
        after: ["1.0.0", "1.0.0"],
    },
    Death { what: "after the abandon", leave: abandon, after: ["1.0.0", "1.0.0"] },
    Death {
        what: "after the old module was removed",
        leave: |site| {
            abandon(site)?;
            Ok(kmod::remove("payload_1_0_0")?)
        },
        after: ["1.0.0", "1.0.0"],
    },
    Death {
        what: "after the new module was inserted, before it adopted",
        leave: |site| {
            abandon(site)?;
            kmod::remove("payload_1_0_0")?;
            site.insert(&site.file("1.1.0")).map(drop)
        },
        after: ["1.0.0", "1.1.0"],
    },
    Death {
        what: "during the soak",
        leave: |site| {
            let file = site.file("1.1.0").display().to_string();
            let mut tool = start(&["upgrade", "--soak", "600s", &file])?;
            wait::until("the payload soaks", PATIENCE, || {
                Ok(site.node().status()?.soak_left_ns != 0)
            })?;
            tool.kill()?;
            tool.wait().map(drop).context("the tool does not end")
        },
        after: ["1.0.0", "1.1.0"],
    },
];

pub fn whatever_a_dead_tool_leaves_is_undone_or_finished(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let device = site.volume("data", Spec::ram(16))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    for Death { what, leave, after } in DEATHS {
        for (direction, wanted) in [("--undo", after[0]), ("--finish", after[1])] {
            context.step(&format!("{what}: {direction}"));
            leave(&site)?;
            let planned = recover(&[direction, "--plan"])?;
            recover(&[direction])?;
            ensure!(site.live()? == wanted, "{what}: {} serves: {planned}", site.live()?);
            let status = site.node().status()?;
            ensure!(
                status.place == Place::Live.code() && status.soak_left_ns == 0,
                "{what}: {status:?}"
            );
            context.step(&format!("{what}: again, and there is nothing to do"));
            recover(&[direction])?;
            ensure!(site.live()? == wanted, "{what}: {} serves", site.live()?);
            tidy(&site)?;
        }
    }
    load.stop()?;
    site.leave()
}

pub fn a_tool_that_is_killed_at_any_moment_leaves_what_can_be_recovered(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let device = site.volume("data", Spec::ram(16))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    let file = site.file("1.1.0").display().to_string();
    let mut served = [0u32; 2];
    let mut ends = BTreeMap::new();
    let mut known = last_number(&atomctl(&["history"], 0)?);
    for round in 0..30u64 {
        let cold = round % 2 == 1;
        let args = if cold { vec!["upgrade", "--cold", &file] } else { vec!["upgrade", &file] };
        let events = site.node().status()?.events;
        let mut tool = start(&args)?;
        // The moment is that of an event, and some turns of the scheduler after it.
        if round % 3 != 0 {
            let _ = wait::until("something happens", Duration::from_secs(5), || {
                Ok(site.node().status()?.events > events || tool.try_wait()?.is_some())
            });
        }
        for _ in 0..round * 7 % 50 {
            std::thread::yield_now();
        }
        let _ = tool.kill();
        tool.wait()?;
        context.step(&format!("round {round}: recover"));
        recover(&["--undo"])?;
        let live = site.live()?;
        ensure!(live == "1.0.0" || live == "1.1.0", "round {round}: {live:?} serves");
        served[usize::from(live == "1.1.0")] += 1;
        ensure!(site.node().status()?.held_ns == 0, "round {round}: I/O is held");
        context.step(&format!("round {round}: the journal"));
        let journal = atomctl(&["history"], 0)?;
        let end = true_end(&journal, known, &live).with_context(|| format!("round {round}"))?;
        *ends.entry(end).or_insert(0u32) += 1;
        known = last_number(&journal);
        tidy(&site)?;
    }
    ensure!(ends.keys().any(|end| end.starts_with("settled")), "no tool was killed: {ends:?}");
    context.fact("ends_in_the_journal", &ends);
    context.fact("served_after_1_0_0_and_1_1_0", served);
    load.stop()?;
    site.leave()
}

/// What the journal says of the one upgrade behind attempt `known`, as `state: outcome`. An error when that is not what has
/// happened: after it `live` serves.
pub(super) fn true_end(journal: &Value, known: u64, live: &str) -> Result<String> {
    ensure!(journal["damaged"] == 0, "{journal}");
    let attempts = journal["attempts"].as_array().context("no attempts")?;
    let fresh = |one: &&Value| one["attempt"].as_u64() > Some(known) && one["kind"] == "upgrade";
    let upgrades: Vec<&Value> = attempts.iter().filter(fresh).collect();
    ensure!(upgrades.len() <= 1, "{upgrades:?}");
    let Some(upgrade) = upgrades.first() else {
        // It was killed before it had begun.
        ensure!(live == "1.0.0", "{live} serves, and nothing was attempted");
        return Ok("nothing".to_owned());
    };
    let text = |field: &str| upgrade[field].as_str().unwrap_or_default();
    let (state, outcome) = (text("state"), text("outcome"));
    let wanted = match outcome {
        "finished" | "committed" | "switched" => "1.1.0",
        _ => "1.0.0",
    };
    ensure!(matches!(state, "settled" | "ended") && live == wanted, "{live} serves: {upgrade}");
    ensure!(text("from") == "1.0.0" && text("to") == "1.1.0", "{upgrade}");
    Ok(format!("{state}: {outcome}"))
}

pub(super) fn last_number(journal: &Value) -> u64 {
    let attempts = journal["attempts"].as_array();
    attempts.into_iter().flatten().filter_map(|one| one["attempt"].as_u64()).max().unwrap_or(0)
}

pub fn the_tool_watches_the_soak_and_goes_back(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let device = site.volume("data", Spec::ram(16))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    let new = site.file("1.1.0").display().to_string();

    context.step("a soak in which nothing is wrong ends with a commit");
    let report = atomctl(&["upgrade", "--soak", "2s", &new], 0)?;
    ensure!(report["outcome"] == "committed", "{report}");
    ensure!(site.live()? == "1.1.0" && kmod::find("payload_1_0_0")?.is_none(), "not committed");
    load.stop()?;

    context.step("one in which a request stalls ends with the old payload");
    let stuck = site.file("stuck").display().to_string();
    let tool = start(&["upgrade", "--soak", "60s", "--stall", "1s", "--no-canary", &stuck])?;
    wait::until("the payload soaks", PATIENCE, || Ok(site.node().status()?.soak_left_ns != 0))?;
    atomctl::volume::hold(site.node().control(), atom_abi::request::op::READ, 1)?;
    let path = device.clone();
    let reader = std::thread::spawn(move || crate::queue::read_block(&path, 0));
    let output = tool.wait_with_output()?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["outcome"] == "rolled-back", "{report}");
    ensure!(output.status.code() == Some(1), "{}: {report}", output.status);
    ensure!(site.live()? == "1.1.0", "{} serves", site.live()?);
    // The read that stalled was handed to the old payload and has ended.
    reader.join().map_err(|_| anyhow::anyhow!("the reader died"))??;
    context.fact("reason_of_a_stall", &report["reason"]);
    ensure!(kmod::find("payload_test_stuck")?.is_none(), "the stuck payload is still loaded");

    // Statuses of queue_rq, for ever.
    let faults = "fault_step=12 fault_kind=1 fault_value=10 fault_times=0";
    for (what, args) in [
        ("the canary cannot be read", &["--soak", "60s"][..]),
        // The device has errors by now, so it is watched for an equal time before.
        ("requests fail", &["--soak", "8s", "--no-canary", "--max-errors", "3"]),
    ] {
        context.step(&format!("one in which {what}"));
        let fault = site.file("fault").display().to_string();
        site.insert_with(&site.file("fault"), faults)?;
        let tool = start(&[&["upgrade"][..], args, &[&fault]].concat())?;
        wait::until("the payload soaks", PATIENCE, || Ok(site.node().status()?.parked != 0))?;
        for _ in 0..5 {
            // They fail until the old payload is back.
            let _ = crate::queue::read_block(&device, 1);
        }
        let output = tool.wait_with_output()?;
        let report: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(report["outcome"] == "rolled-back", "{what}: {report}");
        ensure!(site.live()? == "1.1.0", "{what}: {} serves", site.live()?);
        crate::queue::read_block(&device, 1)?;
        context.fact(what, &report["reason"]);
        if kmod::find("payload_test_fault")?.is_some() {
            kmod::remove("payload_test_fault")?;
        }
    }
    tidy(&site)?;
    site.leave()
}

fn abandon(site: &Site) -> Result<()> {
    let report = site.node().abandon(1, DEADLINE)?;
    ensure!(report.outcome == atom_abi::control::outcome::DONE, "{}", report.refusal);
    Ok(())
}

pub(super) fn recover(args: &[&str]) -> Result<Value> {
    atomctl(&[&["recover"][..], args].concat(), 0)
}

/// Makes 1.0.0 the payload that serves, and the only one. A tool that died during a soak has left its terms, which are
/// the operator's to change.
pub(super) fn tidy(site: &Site) -> Result<()> {
    site.node().settings(&Settings { change: setting::SOAK, ..Settings::DEFAULT })?;
    let others = |site: &Site| -> Result<()> {
        let live = site.node().status()?.live;
        for payload in site.node().payloads()? {
            if payload.id != live {
                kmod::remove(payload.module.as_str())?;
            }
        }
        Ok(())
    };
    others(site)?;
    if site.live()? == "1.1.0" && site.knows("1.0.0").is_ok_and(|knows| !knows) {
        site.upgrade("1.0.0", atomctl::report::Mode::Warm)?;
    }
    Ok(())
}

fn start(args: &[&str]) -> Result<Child> {
    Command::new("atomctl")
        .args(["--json", "--dir", MODULES, "--dir", TEST_MODULES])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start atomctl")
}

pub(super) fn atomctl(args: &[&str], code: i32) -> Result<Value> {
    let output = Command::new("atomctl")
        .args(["--json", "--dir", MODULES, "--dir", TEST_MODULES])
        .args(args)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(code),
        "atomctl {args:?}: {} {said}{complaint}",
        output.status
    );
    serde_json::from_str(&said).with_context(|| format!("atomctl {args:?} said {said}"))
}
