// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The matrix of faults: many cells in each boot, a line for each in a file that a later run goes on with, and a table at the end.
//!
//! The modules list their failpoints themselves, so the first boot asks them, and the plan is made from what they say. A boot
//! ends with a cell that failed, or that left a dead payload behind as its fault wants it; the next one goes on behind it.

mod boot;
mod results;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Result};
use atom_tests::matrix::axes::Cell;
use atom_tests::matrix::plan::{self, Shard};
use atom_tests::matrix::report::Report;
use atom_tests::matrix::rules;

use self::boot::Machines;
use self::results::Results;
use super::{is_meant, Verdict};
use crate::sysroot::Sysroot;
use crate::vm::initramfs::Initramfs;
use crate::{places, revision};

/// Its name among the tests.
pub const NAME: &str = "the_pruned_matrix_of_faults";
/// The same for people.
pub const WHAT: &str = "Faults in every step of an upgrade against loads, ways and volumes, as a covering of pairs; see --matrix.";

/// The document with the table of the full one.
const DOCUMENT: &str = "docs/matrix.md";
/// That with the cells of it that have passed, with which another machine goes on.
const RECORD: &str = "docs/matrix-cells.txt";
/// What the table begins and ends with.
const HEAD: &str = "<!-- SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 -->\n";
const TAIL: &str = "\n\nWritten by `cargo xtask test --matrix full --resume --write`. What a cell is, and what must hold after it, is in \
    [tests/README.md](../tests/README.md#the-matrix).\n";
/// Cells of one boot: enough that booting does not count, and few enough that lanes end together.
const BATCH: usize = 100;
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

impl Extent {
    /// Where what ran is kept.
    fn folder(self) -> PathBuf {
        places::target().join("matrix").join(match self {
            Self::Pruned => "pruned",
            Self::Full => "full",
        })
    }
}

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    pub extent: Extent,
    pub shard: Option<Shard>,
    /// Only cells whose name contains one of these; none: all.
    pub filters: &'a [String],
    /// Cells that have a result are passed over.
    pub resume: bool,
    /// No boot begins after this time.
    pub within: Option<Duration>,
    /// Machines at a time.
    pub jobs: NonZeroUsize,
    /// Whether the table, and what has passed, go to the documents.
    pub write: bool,
}

impl Wish<'_> {
    /// What belongs to all tests.
    pub const USUAL: Self = Self {
        extent: Extent::Pruned,
        shard: None,
        filters: &[],
        resume: false,
        within: None,
        jobs: NonZeroUsize::MIN,
        write: false,
    };

    /// Whether it is not about a part of the cells, so that what ran before is out of date.
    fn begins_anew(&self) -> bool {
        !self.resume && self.filters.is_empty() && self.shard.is_none()
    }
}

/// Runs what is wanted, and writes the table.
pub fn run(sysroot: &Sysroot, initramfs: &Initramfs, wish: &Wish<'_>) -> Verdict {
    let begun = Instant::now();
    let result = carry_out(sysroot, initramfs, wish);
    let mut facts = serde_json::Map::new();
    let why = match result {
        Err(error) => Some(format!("{error:#}")),
        Ok(Done { report, now, table }) => {
            facts
                .insert("total".to_owned(), serde_json::to_value(report.total).unwrap_or_default());
            facts.insert("cells_now".to_owned(), now.into());
            facts.insert("table".to_owned(), table.display().to_string().into());
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

struct Done {
    report: Report,
    /// Cells of this run.
    now: usize,
    table: PathBuf,
}

fn carry_out(sysroot: &Sysroot, initramfs: &Initramfs, wish: &Wish<'_>) -> Result<Done> {
    let until = wish.within.map(|within| Instant::now() + within);
    let record = places::repository().join(RECORD);
    let recorded = (wish.extent == Extent::Full).then_some(record.as_path());
    let (folder, commit) = (wish.extent.folder(), revision::commit()?);
    let results = Results::open(folder, commit, recorded, wish.begins_anew())?;
    let machines = Machines::new(sysroot, initramfs, &results)?;
    let faults = machines.faults()?;
    let mut cells = match wish.extent {
        Extent::Pruned => plan::pruned(&faults),
        Extent::Full => plan::full(&faults),
    };
    cells.retain(|cell| wish.shard.is_none_or(|shard| shard.has(cell)));
    cells.retain(|cell| is_meant(wish.filters, &cell.to_string()));
    ensure!(!cells.is_empty(), "no cell that can be is called like that");
    let before = results.cells();
    if wish.resume {
        let known: std::collections::HashSet<&String> = before.iter().collect();
        cells.retain(|cell| !known.contains(&cell.to_string()));
    }
    eprintln!("{} cells to run", cells.len());
    let queue = Queue::new(plan::in_order(cells), until);
    thread::scope(|scope| {
        let lane = |number| {
            let (queue, machines, results, faults) = (&queue, &machines, &results, &faults);
            move || work(number, queue, machines).and(results.report(faults).map(drop))
        };
        let lanes: Vec<_> = (1..=wish.jobs.get()).map(|number| scope.spawn(lane(number))).collect();
        let ends =
            lanes.into_iter().map(|lane| lane.join().map_err(|_| anyhow!("a lane panicked"))?);
        ends.fold(Ok(()), Result::and)
    })?;
    let report = results.report(&faults)?;
    if wish.write {
        let text = [HEAD, report.markdown().trim_end(), TAIL].concat();
        places::write_whole(&places::repository().join(DOCUMENT), text.as_bytes())?;
        places::write_whole(&record, results.record(&faults)?.as_bytes())?;
    }
    let now = results.cells().len() - before.len();
    Ok(Done { report, now, table: results.table() })
}

/// One machine after the other, until there is nothing left to run.
fn work(lane: usize, queue: &Queue, machines: &Machines<'_>) -> Result<()> {
    let mut fruitless = 0;
    while let Some(cells) = queue.next() {
        let ran = machines.boot(lane, &cells)?;
        fruitless = if ran.is_empty() { fruitless + 1 } else { 0 };
        ensure!(
            fruitless < FRUITLESS,
            "{fruitless} boots in a row ran no cell: read {}",
            machines.log(lane).display()
        );
        let left = cells.into_iter().filter(|cell| !ran.contains(&cell.to_string()));
        queue.give_back(left.collect());
    }
    Ok(())
}

/// The cells that wait for a machine.
struct Queue {
    waiting: Mutex<VecDeque<Cell>>,
    until: Option<Instant>,
}

impl Queue {
    fn new(cells: Vec<Cell>, until: Option<Instant>) -> Self {
        Self { waiting: Mutex::new(cells.into()), until }
    }

    /// Those of the next boot; none when there are none, or there is no time left. One that ends its boot is the last.
    fn next(&self) -> Option<Vec<Cell>> {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cells = Vec::new();
        while let Some(cell) = waiting.pop_front() {
            let is_last = rules::ends_the_boot(&cell);
            cells.push(cell);
            if is_last || cells.len() == BATCH {
                break;
            }
        }
        (!cells.is_empty()).then_some(cells)
    }

    /// Those that did not run.
    fn give_back(&self, cells: Vec<Cell>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        cells.into_iter().rev().for_each(|cell| waiting.push_front(cell));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(count: usize, kind: &str) -> Vec<Cell> {
        let name = |at| format!("payload.adopt.p{at}:{kind}/idle/warm/up/ram");
        (0..count).map(|at| name(at).parse().unwrap()).collect()
    }

    #[test]
    fn boots_share_the_cells_and_end_with_one_that_ends_them() {
        let all = [cells(BATCH + 3, "error"), cells(3, "oops")].concat();
        let queue = Queue::new(all.clone(), None);
        let boots: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(boots.iter().map(Vec::len).collect::<Vec<_>>(), [BATCH, 4, 1, 1]);
        assert_eq!(boots.concat(), all);
    }

    #[test]
    fn what_a_boot_has_not_run_comes_next() {
        let queue = Queue::new(cells(4, "error"), None);
        let mut first = queue.next().unwrap();
        first.remove(0);
        queue.give_back(first.clone());
        assert_eq!(queue.next(), Some(first));
    }

    #[test]
    fn without_time_nothing_begins() {
        assert_eq!(Queue::new(cells(4, "error"), Some(Instant::now())).next(), None);
    }

    #[test]
    fn a_part_of_the_cells_leaves_the_results_of_the_others() {
        assert!(Wish::USUAL.begins_anew());
        let shard = "1/2".parse().ok();
        let filters = &["adopt".to_owned()];
        for part in [
            Wish { resume: true, ..Wish::USUAL },
            Wish { filters, ..Wish::USUAL },
            Wish { shard, ..Wish::USUAL },
        ] {
            assert!(!part.begins_anew());
        }
    }
}
