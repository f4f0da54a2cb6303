// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask soak`: upgrades by the thousand in one boot, and whether anything grows.
//!
//! The guest stays in the background and the run goes on in it by itself, so this command may be killed and started
//! again: it only looks, and judges at the end.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{ensure, Context, Result};
use atom_tests::kernel_log;
use atom_tests::random::{self, Random};
use atom_tests::scenarios::Tools;
use atom_tests::soak::mix::DISKS_MIB;
use atom_tests::soak::record::{self, Block, Event, Wanted};
use atom_tests::soak::report::{Report, Verdict};

use crate::problem::{failed, refused};
use crate::sysroot::{Sysroot, Target};
use crate::vm::background::{self, Background};
use crate::vm::initramfs::SEED;
use crate::vm::link::Stream;
use crate::vm::{accel, VmConfig};
use crate::{places, product, revision};

/// From so many upgrades on the result goes into the documents of the tree.
const LONG: u64 = 10_000;
/// The page with it.
const PAGE: &str = "docs/soak.md";
/// Where its kernel's log is when the guest is gone: as it was asked for, or what the console has of it.
const KERNEL_LOGS: [&str; 2] = ["soak/kernel.log", "vm/soak/console.log"];
/// What the run is to be, in the guest.
const WANTED: &str = "/run/soak-wanted.json";
/// How long one look may take; the guest answers within ten seconds, unless its processors are busy.
const LOOK: Duration = Duration::from_secs(60);
/// Looks without a line after which the run is taken to hang: ten minutes. A block takes about one.
const SILENT_LOOKS: u32 = 60;
const PROCESSORS: u32 = 2;

/// Upgrades without a break in one boot, under verified load, and says whether anything grows.
#[derive(clap::Args)]
pub struct Args {
    /// How many upgrades.
    #[arg(long, default_value_t = LONG)]
    upgrades: u64,
    /// Go on with the run that is under way, or judge the last one again when it has ended.
    #[arg(long, conflicts_with = "stop")]
    resume: bool,
    /// End the run that is under way, and its guest.
    #[arg(long)]
    stop: bool,
}

pub fn run(args: &Args, target: &Target) -> Result<ExitCode> {
    if args.stop {
        let how = if background::SOAK.stop()? { "stopped" } else { "there is none to stop" };
        println!("{how}");
        return Ok(ExitCode::SUCCESS);
    }
    let runs = background::SOAK.runs();
    if args.resume && !runs {
        let Some(events) = ended()? else {
            return Err(refused(
                "there is no run to go on with",
                "its guest does not run, and it has not come to its end",
                "begin one with `cargo xtask soak`",
            ));
        };
        let log = KERNEL_LOGS.iter().find_map(|log| fs::read(places::target().join(log)).ok());
        return show(&judge(&events, &String::from_utf8_lossy(&log.unwrap_or_default()))?);
    }
    if !args.resume && runs {
        return Err(refused(
            "a run is under way already",
            "its guest runs in the background",
            "go on with it: `cargo xtask soak --resume`, or end it: `cargo xtask soak --stop`",
        ));
    }
    let sysroot = Sysroot::open(target)?;
    let background = if args.resume { take(&sysroot)? } else { begin(&sysroot, args.upgrades)? };
    let events = follow(&background)?;
    let report = judge(&events, &background.vm.kernel_log()?)?;
    // Whatever becomes of the guest, the result is there.
    background.vm.poweroff()?;
    show(&report)
}

fn show(report: &Report) -> Result<ExitCode> {
    print!("{}", report.markdown());
    Ok(match report.verdict {
        Verdict::Passed => ExitCode::SUCCESS,
        Verdict::Running | Verdict::Failed => ExitCode::FAILURE,
    })
}

/// The record of a run that has come to its end, and whose guest is gone.
fn ended() -> Result<Option<Vec<Event>>> {
    let Ok(text) = fs::read_to_string(folder().join("record.jsonl")) else { return Ok(None) };
    let events: Option<Vec<Event>> = text.lines().map(record::decode).collect();
    let events = events.context("the record of the last run is damaged")?;
    Ok(Some(events).filter(|events| matches!(events.last(), Some(Event::Ended(_)))))
}

fn begin(sysroot: &Sysroot, upgrades: u64) -> Result<Background> {
    let machine = format!(
        "a guest with {PROCESSORS} processors, {}",
        if accel::find(sysroot)?.kvm { "KVM" } else { "TCG" }
    );
    let wanted = Wanted { upgrades, seed: seed()?, commit: revision::commit()?, machine };
    let background = take(sysroot)?;
    let text = serde_json::to_vec(&wanted)?;
    background.vm.put(WANTED, 0o644, &text)?;
    background.vm.read(&["/init", "soak", "begin", WANTED], LOOK)?;
    eprintln!(
        "seed {}; the run goes on by itself: `cargo xtask soak --resume` looks at it again",
        wanted.seed
    );
    Ok(background)
}

fn take(sysroot: &Sysroot) -> Result<Background> {
    background::SOAK.take(sysroot, || {
        let config = VmConfig {
            memory_mib: 2048,
            vcpus: PROCESSORS,
            disks_mib: DISKS_MIB.to_vec(),
            tools: Tools::Large,
            ..VmConfig::named("soak")
        };
        Ok((product::guest(sysroot)?, config))
    })
}

/// Looks until the run is over, and returns its record from the beginning on.
fn follow(background: &Background) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    let mut record = String::new();
    let mut silent = 0;
    let mut rate = Rate::default();
    loop {
        let known = events.len().to_string();
        let mut fresh = Vec::new();
        let mut said = String::new();
        let code =
            background.vm.exec(&["/init", "soak", "look", &known], LOOK, |stream, line| {
                match stream {
                    Stream::Stdout => fresh.push(line.to_owned()),
                    Stream::Stderr => said.push_str(line),
                }
            })?;
        ensure!(code == 0, "the run cannot be looked at: {said}");
        silent = if fresh.is_empty() { silent + 1 } else { 0 };
        if silent > SILENT_LOOKS {
            return Err(failed(
                "the run hangs",
                "nothing of it was heard for ten minutes",
                "its guest still runs: read target/vm/soak/console.log; `cargo xtask soak --stop` ends it",
            ));
        }
        for line in &fresh {
            let event = record::decode(line).with_context(|| format!("no line of ours: {line}"))?;
            record.push_str(line);
            record.push('\n');
            events.push(event);
        }
        if !fresh.is_empty() {
            places::write_whole(&folder().join("record.jsonl"), record.as_bytes())?;
        }
        match events.last() {
            Some(Event::Ended(_)) => return Ok(events),
            Some(Event::Block(block)) if !fresh.is_empty() => rate.show(&events, block),
            _ => {}
        }
    }
}

/// How fast it goes.
#[derive(Default)]
struct Rate {
    shown: u64,
}

impl Rate {
    /// Tells how far a run is, for each hundredth part of it.
    fn show(&mut self, events: &[Event], block: &Block) {
        let Some(Event::Begun(begun)) = events.first() else { return };
        let all = begun.wanted.upgrades;
        let part = block.upgrades * 100 / all.max(1);
        if part == self.shown {
            return;
        }
        self.shown = part;
        eprintln!("{}", progress(block.upgrades, all, block.seconds));
    }
}

fn progress(done: u64, all: u64, seconds: f64) -> String {
    let rate = done as f64 / seconds.max(0.001);
    let left = all.saturating_sub(done) as f64 / rate.max(0.001);
    format!("{done} of {all} upgrades, {rate:.1} each second, {:.0} min left", left / 60.0)
}

/// Judges the run, and writes the result where it belongs.
fn judge(events: &[Event], log: &str) -> Result<Report> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut report = Report::of(events, &now).context("the run ended before it began")?;
    let path = folder().join("kernel.log");
    places::write_whole(&path, log.as_bytes())?;
    // The run has judged what came meanwhile; this has the boot and the end as well.
    for finding in kernel_log::scan(log, &[] as &[&str]).iter().take(20) {
        report.why.push(format!("the kernel complains: {} ({})", finding.text, finding.meaning));
        report.verdict = Verdict::Failed;
    }
    let json = serde_json::to_string_pretty(&report)?;
    places::write_whole(&folder().join("report.json"), json.as_bytes())?;
    let page = page(&report);
    places::write_whole(&folder().join("report.md"), page.as_bytes())?;
    if report.begun.wanted.upgrades >= LONG && report.verdict == Verdict::Passed {
        places::write_whole(&places::repository().join(PAGE), page.as_bytes())?;
    }
    Ok(report)
}

fn page(report: &Report) -> String {
    format!(
        "<!-- SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 -->\n# The long soak\n\n\
         What `cargo xtask soak --upgrades {}` wrote: upgrades in one boot under verified load, and what the kernel had after \
         each block of them. What is counted, and by how much it may rise, is in `tests/src/soak/sample.rs`; the rule that \
         judges is `tests/src/soak/growth.rs`.\n\n{}",
        report.begun.wanted.upgrades,
        report.markdown()
    )
}

fn folder() -> PathBuf {
    places::target().join("soak")
}

/// The seed that the person at the keyboard wants, or one that nobody has chosen.
fn seed() -> Result<u64> {
    match std::env::var(SEED) {
        Ok(text) => text.parse().with_context(|| format!("{SEED}: {text:?}")),
        Err(_) => Ok(Random::new(random::seed()?).number() >> 32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_has_count_rate_and_the_time_that_is_left() {
        let text = progress(2500, 10_000, 1000.0);
        assert_eq!(text, "2500 of 10000 upgrades, 2.5 each second, 50 min left");
        assert!(progress(0, 10, 0.0).starts_with("0 of 10 upgrades"));
    }
}
