// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What cannot take over is refused, says why, and the live payload does not notice.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{ensure, Context as _, Result};
use atom_abi::control::outcome;
use atom_abi::version::reason;
use atomctl::kmod;
use atomctl::node::Node;

use super::Context;
use crate::load::probe::Probe;
use crate::site::{Site, Spec, MODULES};
use crate::wait;

/// The exit code of a tool that refused before anything changed.
const REFUSED: i32 = 3;

pub fn what_cannot_take_over_is_refused(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let device = site.volume("data", Spec::ram(8))?;
    let probe = Probe::start(&device)?;
    let release = site.node().release()?;
    let good = fs::read(site.file("1.1.0"))?;

    let other_kernel = "/tmp/payload_1_1_0.ko";
    fs::write(other_kernel, with_other_release(&good, &release)?)?;
    refused(context, &site, other_kernel, &[&release, "6.6.6"])?;

    let short = "/tmp/short.ko";
    for bytes in [0, 10, 1000, good.len() / 2, good.len() - 1] {
        fs::write(short, &good[..bytes])?;
        refused(context, &site, short, &["short.ko"])?;
    }
    fs::write(short, b"#!/bin/sh\n")?;
    refused(context, &site, short, &["ELF"])?;
    refused(context, &site, "/tmp/missing.ko", &["missing.ko"])?;
    refused(context, &site, &format!("{MODULES}/atom.ko"), &["atom.ko", "payload"])?;
    context.step("the version that is live already");
    let output = Command::new("atomctl").args(["upgrade", &path(&site, "1.0.0")]).output()?;
    judge(&output, &["1.0.0", "live already"])?;
    unchanged(&site)?;
    for (variant, words) in [
        ("abi", &["ABI 99", "ABI 1"][..]),
        ("layout", &["layout"]),
        ("capability", &["capabilities", "bit 63"]),
        ("schema", &["schema"]),
    ] {
        refused(context, &site, &path(&site, variant), words)?;
    }

    context.step("without root");
    let output = Command::new("atomctl")
        .args(["upgrade", &path(&site, "1.1.0")])
        .uid(65534)
        .gid(65534)
        .output()?;
    judge(&output, &["root"])?;
    unchanged(&site)?;

    let reads = probe.reads();
    wait::until("a read", Duration::from_secs(30), || Ok(probe.reads() > reads))?;
    probe.stop()?;
    site.leave()
}

pub fn atom_itself_refuses_what_the_tool_would_not_load(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    site.volume("data", Spec::ram(8))?;
    for (variant, code) in
        [("abi", reason::ABI_MAJOR), ("layout", reason::LAYOUT), ("capability", reason::CAPABILITY)]
    {
        context.step(variant);
        let image = fs::read(site.file(variant))?;
        ensure!(kmod::insert(&image, "").is_err(), "{variant} was loaded");
        let status = site.node().status()?;
        ensure!(status.refusal.code == code, "{variant}: {}", status.refusal);
        unchanged(&site)?;
    }

    context.step("a switch to itself, and to nobody");
    let own = site.node().status()?.live;
    let report = site.node().switch(own, Duration::from_secs(1))?;
    ensure!(report.refusal.code == reason::SLOT_TAKEN, "{}", report.refusal);
    let report = site.node().switch(9999, Duration::from_secs(1))?;
    ensure!(report.refusal.code == reason::NO_PAYLOAD, "{}", report.refusal);

    context.step("a schema that nobody else writes");
    let strange = site.insert(&site.file("schema"))?;
    let report = site.node().switch(strange, Duration::from_secs(1))?;
    ensure!(report.refusal.code == reason::SCHEMA, "{}", report.refusal);
    unchanged_but_for(&site, 2)?;
    kmod::remove("payload_test_schema")?;
    unchanged(&site)?;
    site.leave()
}

pub fn a_stored_image_of_an_unknown_schema_is_refused_and_kept(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("1.1.0")?;
    let device = site.volume("data", Spec::ram(8))?;
    let mark = vec![0x5a; 4096];
    fs::write(&device, &mark)?;

    context.step("an image of schema 2");
    let report = site.node().abandon(2, Duration::from_secs(5))?;
    ensure!(report.outcome == outcome::DONE && report.schema == 2, "{report:?}");
    let old = site.insert(&site.file("1.0.0"))?;
    let report = site.node().adopt(old)?;
    ensure!(report.refusal.code == reason::SCHEMA, "{}", report.refusal);
    ensure!(report.outcome == outcome::REFUSED, "it was begun");
    kmod::remove("payload_1_0_0")?;

    context.step("its own payload still finds everything");
    let own = site.node().payloads()?.first().context("1.1.0 is loaded")?.id;
    site.adopt(own)?;
    ensure!(fs::read(&device)?.starts_with(&mark), "the data is gone");
    site.leave()
}

/// Upgrades with the tool as a person would, and wants it refused with these words and no effect.
fn refused(context: &Context, site: &Site, file: &str, words: &[&str]) -> Result<()> {
    context.step(file);
    for mode in [None, Some("--cold")] {
        let output = Command::new("atomctl").args(["upgrade", file]).args(mode).output()?;
        judge(&output, words).with_context(|| format!("upgrade {file} {mode:?}"))?;
        unchanged(site)?;
    }
    Ok(())
}

fn judge(output: &std::process::Output, words: &[&str]) -> Result<()> {
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(output.status.code() == Some(REFUSED), "{}: {said}", output.status);
    for word in words {
        ensure!(said.contains(word), "{word:?} is not in: {said}");
    }
    Ok(())
}

fn unchanged(site: &Site) -> Result<()> {
    unchanged_but_for(site, 1)
}

fn unchanged_but_for(site: &Site, payloads: u32) -> Result<()> {
    let status = site.node().status()?;
    ensure!(
        site.live()? == "1.0.0"
            && status.epoch == 1
            && status.payloads == payloads
            && status.held_ns == 0,
        "something has changed: {status:?}"
    );
    let modules = kmod::loaded()?.iter().filter(|m| m.name.starts_with("payload_")).count();
    ensure!(modules == payloads as usize, "{modules} payload modules are loaded");
    Ok(())
}

fn path(site: &Site, version: &str) -> String {
    site.file(version).display().to_string()
}

/// The same module, built for another kernel.
fn with_other_release(module: &[u8], release: &str) -> Result<Vec<u8>> {
    let tag = format!("vermagic={release}");
    let at = module.windows(tag.len()).position(|window| window == tag.as_bytes()).with_context(
        || format!("{} says nothing of its kernel", Path::new("payload").display()),
    )?;
    let mut other = module.to_vec();
    let start = at + "vermagic=".len();
    let mut name = "6.6.6".to_owned();
    while name.len() < release.len() {
        name.push('-');
    }
    other[start..start + release.len()].copy_from_slice(name.as_bytes());
    Ok(other)
}
