// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The matrix of faults: many cells in each boot, a line for each in a file that a later run goes on with, and a table at the end.
//!
//! The modules list their failpoints themselves, so the first boot asks them, and the plan is made from what they say. A boot
//! ends with a cell that failed, or that left a dead payload behind as its fault wants it; the next one goes on behind it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use atom_tests::matrix::axes::{Cell, Fault};
use atom_tests::matrix::plan::{self, Shard};
use atom_tests::matrix::report::{Ran, Report};
use atom_tests::matrix::rules;
use atom_tests::scenarios::Tools;

use super::Verdict;
use crate::places;
use crate::sysroot::Sysroot;
use crate::vm::initramfs::Initramfs;
use crate::vm::link::Stream;
use crate::vm::{Vm, VmConfig};

/// Its name among the tests.
pub const NAME: &str = "the_pruned_matrix_of_faults";
/// The same for people.
pub const WHAT: &str = "Faults in every step of an upgrade against loads, ways and volumes, as a covering of pairs; see --matrix.";

/// The machine: two disks for volumes over disks.
const MACHINE: &str = "matrix";
const DISKS_MIB: [u64; 2] = [16, 16];
const MEMORY_MIB: u32 = 1536;
/// Where a guest reads its cells.
const CELLS: &str = "/run/atom-matrix";
/// How long a boot may take for each of its cells; the guest gives up earlier.
const LONGEST: Duration = Duration::from_secs(180);
/// Boots in a row without a result, after which it is given up.
const FRUITLESS: u32 = 2;

/// Which cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Extent {
    /// A covering of pairs.
    Pruned,
    /// All.
    Full,
}

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    pub extent: Extent,
    pub shard: Option<Shard>,
    /// Only cells whose name contains this.
    pub filter: Option<&'a str>,
    /// Cells that have a result are passed over.
    pub resume: bool,
}

impl Wish<'_> {
    /// What belongs to all tests.
    pub const USUAL: Self =
        Self { extent: Extent::Pruned, shard: None, filter: None, resume: false };
}

/// Runs what is wanted, and writes the table.
pub fn run(sysroot: &Sysroot, initramfs: &Initramfs, wish: &Wish<'_>) -> Verdict {
    let begun = Instant::now();
    let result = carry_out(sysroot, initramfs, wish);
    let mut facts = serde_json::Map::new();
    let why = match result {
        Err(error) => Some(format!("{error:#}")),
        Ok((report, ran)) => {
            facts
                .insert("total".to_owned(), serde_json::to_value(report.total).unwrap_or_default());
            facts.insert("cells_now".to_owned(), ran.into());
            facts.insert(
                "table".to_owned(),
                folder().join("report.md").display().to_string().into(),
            );
            let failed = report
                .failures
                .iter()
                .map(|one| format!("{}: {}", one.cell, one.why.as_deref().unwrap_or_default()));
            let failed: Vec<String> = failed.collect();
            (!failed.is_empty()).then(|| failed.join("\n"))
        }
    };
    Verdict {
        name: NAME.to_owned(),
        passed: why.is_none(),
        seconds: begun.elapsed().as_secs_f64(),
        why,
        facts,
    }
}

fn folder() -> PathBuf {
    places::target().join("matrix")
}

fn carry_out(sysroot: &Sysroot, initramfs: &Initramfs, wish: &Wish<'_>) -> Result<(Report, usize)> {
    fs::create_dir_all(folder())?;
    let results = folder().join("results.jsonl");
    let mut all = if wish.resume { read(&results)? } else { Vec::new() };
    if !wish.resume && results.exists() {
        fs::remove_file(&results)?;
    }
    let faults = faults(sysroot, initramfs)?;
    let mut cells = match wish.extent {
        Extent::Pruned => plan::pruned(&faults),
        Extent::Full => plan::full(&faults),
    };
    cells.retain(|cell| wish.shard.is_none_or(|shard| shard.has(cell)));
    cells.retain(|cell| wish.filter.is_none_or(|part| cell.to_string().contains(part)));
    ensure!(!cells.is_empty(), "no cell that can be is called like that");
    let known: Vec<&str> = all.iter().map(|one| one.cell.as_str()).collect();
    cells.retain(|cell| !known.contains(&cell.to_string().as_str()));
    let mut cells = plan::in_order(cells);
    let count = cells.len();
    eprintln!("{count} cells to run");
    let mut fruitless = 0;
    while !cells.is_empty() {
        let ran = boot(sysroot, initramfs, &cells, &results, all.len())?;
        fruitless = if ran.is_empty() { fruitless + 1 } else { 0 };
        ensure!(
            fruitless < FRUITLESS,
            "{fruitless} boots in a row ran no cell: read {}",
            log().display()
        );
        cells.retain(|cell| !ran.iter().any(|one| one.cell == cell.to_string()));
        all.extend(ran);
        // Also of a run that somebody ends before its time.
        write(&Report::new(&faults, &all))?;
    }
    let report = Report::new(&faults, &all);
    write(&report)?;
    Ok((report, count))
}

fn log() -> PathBuf {
    folder().join("steps.log")
}

fn write(report: &Report) -> Result<()> {
    fs::write(folder().join("report.md"), report.markdown())?;
    Ok(fs::write(folder().join("report.json"), serde_json::to_string_pretty(report)?)?)
}

/// The lines of the runs before.
fn read(results: &Path) -> Result<Vec<Ran>> {
    if !results.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(results)?;
    // The last line may have been cut short.
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// What the modules of this tree can fail with.
fn faults(sysroot: &Sysroot, initramfs: &Initramfs) -> Result<Vec<Fault>> {
    let vm = power_on(sysroot, initramfs)?;
    let text = vm.read(&["/init", "matrix", "points"], LONGEST)?;
    vm.poweroff()?;
    serde_json::from_str(&text).context("the list of failpoints cannot be read")
}

fn power_on(sysroot: &Sysroot, initramfs: &Initramfs) -> Result<Vm> {
    let config = VmConfig {
        memory_mib: MEMORY_MIB,
        disks_mib: DISKS_MIB.to_vec(),
        tools: Tools::Large,
        ..VmConfig::named(MACHINE)
    };
    Vm::boot(sysroot, initramfs, &config)
}

/// One boot: as many of the cells as it can. Returns what ran. When something failed, the console is kept under `number`.
fn boot(
    sysroot: &Sysroot,
    initramfs: &Initramfs,
    cells: &[Cell],
    results: &Path,
    number: usize,
) -> Result<Vec<Ran>> {
    let vm = power_on(sysroot, initramfs)?;
    let text: String = cells.iter().map(|cell| format!("{cell}\n")).collect();
    vm.put(CELLS, 0o644, text.as_bytes())?;
    let mut file = OpenOptions::new().create(true).append(true).open(results)?;
    let mut steps = OpenOptions::new().create(true).append(true).open(log())?;
    let mut ran: Vec<Ran> = Vec::new();
    let mut written = Ok(());
    let cutter = vm.cutter()?;
    let mut is_over = false;
    let limit = LONGEST * u32::try_from(cells.len())?.min(200);
    let ended = vm.exec(&["/init", "matrix", CELLS], limit, |stream, line| match stream {
        Stream::Stdout => {
            let Ok(one) = serde_json::from_str::<Ran>(line) else { return };
            let word = if one.passed { "pass" } else { "FAIL" };
            let met = if one.met { "" } else { ", not met" };
            eprintln!("{word}  {} ({:.1} s{met})", one.cell, one.seconds);
            if written.is_ok() {
                written = writeln!(file, "{line}");
            }
            is_over = !one.passed || one.cell.parse().is_ok_and(|cell| rules::ends_the_boot(&cell));
            ran.push(one);
            if is_over {
                // It may hold I/O that nobody will ever serve, and with it the process that waits for that.
                cutter.cut();
            }
        }
        Stream::Stderr => {
            // They help to understand a failure, and nothing else needs them.
            let _ = writeln!(steps, "{line}");
        }
    });
    written.with_context(|| format!("cannot write {}", results.display()))?;
    if ran.iter().any(|one| !one.passed) || ended.is_err() && !is_over {
        let console = folder().join(format!("console-{number}.log"));
        fs::copy(vm.dir().join("console.log"), console)?;
    }
    // A cell that took the whole guest with it.
    if let (Err(error), false) = (&ended, is_over) {
        if let Some(cell) = cells.get(ran.len()) {
            let lost = Ran {
                schema: Ran::SCHEMA.to_owned(),
                cell: cell.to_string(),
                passed: false,
                met: false,
                outcome: None,
                pause_us: None,
                why: Some(format!("the guest fell silent: {error:#}")),
                seconds: 0.0,
            };
            writeln!(file, "{}", serde_json::to_string(&lost)?)?;
            ran.push(lost);
        }
    }
    Ok(ran)
}
