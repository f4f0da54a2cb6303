// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl` as a person uses it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{ensure, Context as _, Result};
use serde_json::Value;

use super::Context;
use crate::load::fio::{Fio, Shape};
use crate::site::{Site, Spec};

const JOURNAL: &str = "/var/lib/atom/journal";
const SPOOL: &str = "/run/atom/spool";
/// How the record of an end begins.
const ENDED: &str = r#"{"record":"ended""#;

/// There and back between two payloads that both stay loaded.
pub fn a_parked_payload_is_switched_back_to(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let device = site.volume("data", Spec::ram(16).depth(8))?;
    let load = Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?;
    let new = site.file("1.1.0").display().to_string();
    let parked = atomctl(&["upgrade", "--keep-parked", &new])?;
    ensure!(text(&parked, "outcome")? == "switched", "{parked}");
    let (mut there, mut back) = (Vec::new(), Vec::new());
    for round in 0..20 {
        context.step(&format!("round {round}"));
        let report = atomctl(&["rollback"])?;
        ensure!(text(&report, "to")? == "1.0.0" && site.live()? == "1.0.0", "{report}");
        back.push(pause(&report)?);
        let report = atomctl(&["rollback"])?;
        ensure!(text(&report, "to")? == "1.1.0" && site.live()? == "1.1.0", "{report}");
        there.push(pause(&report)?);
    }
    context.fact("pause_us_up", super::upgrades::quantiles(&mut there));
    context.fact("pause_us_down", super::upgrades::quantiles(&mut back));
    let unloaded = atomctl(&["unload", "1.0.0"])?;
    ensure!(text(&unloaded, "schema")?.starts_with("atom.unload"), "{unloaded}");
    load.stop()?;
    site.leave()
}

/// Each verb prints one document, and the halves of a cold handoff work by hand.
pub fn every_verb_answers_with_one_document(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let create = ["volume", "create", "data", "--kind", "ram", "--size", "16M"];
    atomctl(&create)?;
    let twice = Command::new("atomctl").args(create).output()?;
    ensure!(!twice.status.success(), "a name was taken twice");
    for verb in [
        &["status"][..],
        &["list"],
        &["verify"],
        &["history"],
        &["history", "--atom"],
        &["volume", "list"],
    ] {
        context.step(&verb.join(" "));
        let document = atomctl(verb)?;
        ensure!(text(&document, "schema")?.starts_with("atom."), "{document}");
        // For people it says the same in words, with what serves or the device in it.
        let words = context.run(&[&["atomctl"][..], verb].concat())?;
        ensure!(!words.trim().is_empty() && !words.starts_with('{'), "{verb:?}: {words}");
    }
    planned_traced_and_told(context, &site)?;
    context.step("abandon and adopt by hand");
    atomctl(&["abandon"])?;
    ensure!(site.live()?.is_empty(), "somebody is live after an abandon");
    let status = context.run(&["atomctl", "status"])?;
    ensure!(status.contains("held"), "{status}");
    context.step("the journal has the abandon, though no disk may be written to");
    let last = last_attempt()?;
    ensure!(last["kind"] == "abandon" && last["outcome"] == "done", "{last}");
    let ends = || -> Result<usize> { Ok(fs::read_to_string(JOURNAL)?.matches(ENDED).count()) };
    let before = ends()?;
    ensure!(fs::read_to_string(SPOOL)?.matches(ENDED).count() == 1, "the end is not in memory");
    atomctl(&["adopt"])?;
    context.step("with I/O flowing again, both ends are on the disk");
    ensure!(ends()? == before + 2 && !Path::new(SPOOL).exists(), "{} ends", ends()?);
    let last = last_attempt()?;
    ensure!(last["kind"] == "adopt" && last["state"] == "ended", "{last}");
    ensure!(site.live()? == "1.0.0", "nobody has adopted");
    atomctl(&["volume", "destroy", "data"])?;
    let usage = Command::new("atomctl").args(["--json", "bogus"]).output()?;
    ensure!(usage.status.code() == Some(2), "wrong usage: {}", usage.status);
    site.leave()
}

/// A plan changes nothing and is kept; what the devices did is drawn; what failed is told until something succeeds.
fn planned_traced_and_told(context: &mut Context, site: &Site) -> Result<()> {
    context.step("a plan says what an upgrade does");
    let plan = atomctl(&["plan", "1.1.0"])?;
    ensure!(plan["ok"] == true && plan["to"] == "1.1.0", "{plan}");
    ensure!(plan["volumes"][0] == "data" && plan["expected_pause"].is_null(), "{plan}");
    ensure!(site.live()? == "1.0.0" && !site.knows("1.1.0")?, "the plan was carried out");
    context.step("an upgrade under load, with the devices looked at");
    let load = Fio::start("/dev/atom0", Shape { depth: 8, bytes: 4 << 20, verify: true })?;
    let report = atomctl(&["upgrade", "1.1.0", "--trace", "--origin", "fleet"])?;
    load.stop()?;
    ensure!(report["outcome"] == "committed" && report["warnings"].is_null(), "{report}");
    let page = context.run(&["atomctl", "report"])?;
    for part in ["1.0.0 → 1.1.0", "Requests in flight", "by fleet", "</html>"] {
        ensure!(page.contains(part), "{part:?} is not in the page: {page}");
    }
    context.step("the next plan knows the pause to expect");
    let plan = atomctl(&["plan", "1.0.0"])?;
    ensure!(plan["expected_pause"]["n"] == 1, "{plan}");
    ensure!(plan["expected_pause"]["median_us"] == report["pause_us"], "{plan}");
    context.step(
        "what is refused is planned as refused, and told by the status until something succeeds",
    );
    let refused = Command::new("atomctl").args(["--json", "plan", "1.1.0"]).output()?;
    ensure!(refused.status.code() == Some(3), "a plan to what is live: {}", refused.status);
    let refused = Command::new("atomctl").args(["--json", "upgrade", "1.1.0"]).output()?;
    ensure!(refused.status.code() == Some(3), "an upgrade to what is live: {}", refused.status);
    let status = atomctl(&["status"])?;
    ensure!(status["last_attempt"]["outcome"] == "refused", "{status}");
    let metrics = context.run(&["atomctl", "metrics"])?;
    for line in ["atom_up 1", "atom_last_upgrade_success 0", "atom_place{place=\"live\"} 1"] {
        ensure!(metrics.lines().any(|one| one == line), "{line:?} is not in {metrics}");
    }
    atomctl(&["upgrade", "1.0.0"])?;
    ensure!(atomctl(&["status"])?["last_attempt"].is_null(), "it is told still");
    Ok(())
}

fn last_attempt() -> Result<Value> {
    let journal = atomctl(&["history", "--last", "1"])?;
    journal["attempts"].get(0).cloned().with_context(|| format!("no attempt in {journal}"))
}

fn atomctl(args: &[&str]) -> Result<Value> {
    let output = Command::new("atomctl").arg("--json").args(args).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "atomctl {args:?}: {} {said}{complaint}", output.status);
    serde_json::from_str(&said).with_context(|| format!("atomctl {args:?} said {said}"))
}

fn text<'a>(document: &'a Value, field: &str) -> Result<&'a str> {
    document.get(field).and_then(Value::as_str).with_context(|| format!("no {field} in {document}"))
}

fn pause(report: &Value) -> Result<u64> {
    report.get("pause_us").and_then(Value::as_u64).with_context(|| format!("no pause in {report}"))
}
