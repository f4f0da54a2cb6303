// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! One boot: as many cells as it can.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use atom_tests::matrix::axes::{Cell, Fault};
use atom_tests::matrix::report::Ran;
use atom_tests::matrix::rules;
use atom_tests::scenarios::Tools;

use super::results::Results;
use crate::sysroot::Sysroot;
use crate::vm::initramfs::Initramfs;
use crate::vm::link::Stream;
use crate::vm::saved::Saved;
use crate::vm::{Vm, VmConfig};

/// The name of the machine that the others go on from, and the beginning of theirs.
const MACHINE: &str = "matrix";
/// Two disks for volumes over disks.
const DISKS_MIB: [u64; 2] = [16, 16];
const MEMORY_MIB: u32 = 1536;
/// Where a guest reads its cells.
const CELLS: &str = "/run/atom-matrix";
/// How long a boot may take for each of its cells; the guest gives up earlier.
const LONGEST: Duration = Duration::from_secs(180);

/// Machines of a kind. Nothing of a cell is left to chance, so they go on from one that has booted.
pub struct Machines<'a> {
    sysroot: &'a Sysroot,
    saved: Saved,
    results: &'a Results,
    /// Consoles that were kept.
    consoles: AtomicU32,
}

impl<'a> Machines<'a> {
    /// Boots the one.
    pub fn new(sysroot: &'a Sysroot, initramfs: &Initramfs, results: &'a Results) -> Result<Self> {
        let config = VmConfig {
            memory_mib: MEMORY_MIB,
            disks_mib: DISKS_MIB.to_vec(),
            tools: Tools::Large,
            ..VmConfig::named(MACHINE)
        };
        let saved = Saved::save(Vm::boot(sysroot, initramfs, &config)?, &config)?;
        Ok(Self { sysroot, saved, results, consoles: AtomicU32::new(0) })
    }

    /// What the modules of this tree can fail with.
    pub fn faults(&self) -> Result<Vec<Fault>> {
        let vm = self.power_on(1)?;
        let text = vm.read(&["/init", "matrix", "points"], LONGEST)?;
        vm.poweroff()?;
        serde_json::from_str(&text).context("the list of failpoints cannot be read")
    }

    /// The steps of all cells of the `lane`-th machine.
    pub fn log(&self, lane: usize) -> PathBuf {
        self.results.folder().join(format!("steps-{lane}.log"))
    }

    /// A machine of its own for each lane.
    fn power_on(&self, lane: usize) -> Result<Vm> {
        self.saved.go_on(self.sysroot, &format!("{MACHINE}-{lane}"))
    }

    /// Runs cells until one fails, or leaves the machine as its fault wants it. Returns which ran; when something failed, the
    /// console is kept.
    pub fn boot(&self, lane: usize, cells: &[Cell]) -> Result<Vec<String>> {
        let vm = self.power_on(lane)?;
        let text: String = cells.iter().map(|cell| format!("{cell}\n")).collect();
        vm.put(CELLS, 0o644, text.as_bytes())?;
        let mut steps = OpenOptions::new().create(true).append(true).open(self.log(lane))?;
        let mut names = Vec::new();
        let mut added = Ok(());
        let mut has_failed = false;
        let mut is_over = false;
        let cutter = vm.cutter()?;
        let limit = LONGEST * u32::try_from(cells.len())?.min(200);
        let ended = vm.exec(&["/init", "matrix", CELLS], limit, |stream, line| match stream {
            Stream::Stdout => {
                let Ok(one) = serde_json::from_str::<Ran>(line) else { return };
                let word = if one.passed { "pass" } else { "FAIL" };
                let met = if one.met { "" } else { ", not met" };
                eprintln!("{word}  {} ({:.1} s{met})", one.cell, one.seconds);
                has_failed |= !one.passed;
                is_over =
                    !one.passed || one.cell.parse().is_ok_and(|cell| rules::ends_the_boot(&cell));
                names.push(one.cell.clone());
                if added.is_ok() {
                    added = self.results.add(one);
                }
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
        added?;
        // A cell that took the whole guest with it.
        if let (Err(error), false) = (&ended, is_over) {
            has_failed = true;
            if let Some(cell) = cells.get(names.len()) {
                let why = format!("the guest fell silent: {error:#}");
                eprintln!("FAIL  {cell}: {why}");
                names.push(cell.to_string());
                self.results.add(Ran::of(cell.to_string(), Some(why)))?;
            }
        }
        if has_failed {
            let number = self.consoles.fetch_add(1, Ordering::SeqCst);
            let console = self.results.folder().join(format!("console-{number}.log"));
            fs::copy(vm.dir().join("console.log"), console)?;
        }
        Ok(names)
    }
}
