// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The file with a line for each cell that ran, and the tables over all of them.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use atom_tests::matrix::axes::Fault;
use atom_tests::matrix::record;
use atom_tests::matrix::report::{Ran, Report};

use crate::places;

const LINES: &str = "results.jsonl";
/// The lines before a run that began from nothing.
const LINES_BEFORE: &str = "results-before.jsonl";

/// What ran so far. Several threads may add to it.
pub struct Results {
    folder: PathBuf,
    /// The tree that the cells run on.
    commit: String,
    known: Mutex<Known>,
}

struct Known {
    lines: File,
    ran: Vec<Ran>,
}

impl Results {
    /// Opens those in a folder, behind those that are `recorded` elsewhere; `anew`: what is there is put aside, and nothing is recorded.
    pub fn open(
        folder: PathBuf,
        commit: String,
        recorded: Option<&Path>,
        anew: bool,
    ) -> Result<Self> {
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let path = folder.join(LINES);
        if anew && path.exists() {
            fs::rename(&path, folder.join(LINES_BEFORE))
                .with_context(|| format!("cannot put {} aside", path.display()))?;
        }
        let mut ran = match recorded.filter(|path| !anew && path.exists()) {
            Some(path) => read_record(path)?,
            None => Vec::new(),
        };
        ran.extend(read(&path)?);
        let lines = OpenOptions::new().create(true).append(true).open(&path);
        let mut lines = lines.with_context(|| format!("cannot write {}", path.display()))?;
        if fs::read(&path)?.last().is_some_and(|last| *last != b'\n') {
            // Of a run that was killed while it wrote.
            lines.write_all(b"\n")?;
        }
        Ok(Self { folder, commit, known: Mutex::new(Known { lines, ran }) })
    }

    /// Where everything about it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The table.
    pub fn table(&self) -> PathBuf {
        self.folder.join("report.md")
    }

    /// The cells that ran, in the order in which they did.
    pub fn cells(&self) -> Vec<String> {
        self.known().ran.iter().map(|one| one.cell.clone()).collect()
    }

    /// Adds a cell that has run.
    pub fn add(&self, mut one: Ran) -> Result<()> {
        one.commit = Some(self.commit.clone());
        let line = serde_json::to_string(&one)? + "\n";
        let mut known = self.known();
        // In one piece, so that a run that is interrupted leaves whole lines.
        let written = known.lines.write_all(line.as_bytes());
        known.ran.push(one);
        written.with_context(|| format!("cannot write {}", self.folder.join(LINES).display()))
    }

    /// Writes the tables over all that can run with these failpoints.
    pub fn report(&self, faults: &[Fault]) -> Result<Report> {
        let report = Report::new(faults, &self.known().ran);
        places::write_whole(&self.table(), report.markdown().as_bytes())?;
        let document = serde_json::to_string_pretty(&report)?;
        places::write_whole(&self.folder.join("report.json"), document.as_bytes())?;
        Ok(report)
    }

    /// Those that have passed, as a text for [`Results::open`] on another day.
    pub fn record(&self, faults: &[Fault]) -> Result<String> {
        record::write(faults, &self.known().ran)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cells that have passed before what is in the folder.
fn read_record(path: &Path) -> Result<Vec<Ran>> {
    let text = fs::read_to_string(path);
    let ran = text.map_err(anyhow::Error::from).and_then(|text| record::read(&text));
    ran.with_context(|| format!("cannot read {}", path.display()))
}

/// The lines of the runs before.
fn read(path: &Path) -> Result<Vec<Ran>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    // The last line may have been cut short.
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that goes with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let folder = format!("atom-matrix-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(folder))
        }

        fn open(&self, anew: bool) -> Results {
            Results::open(self.0.clone(), "abc".to_owned(), Some(&self.record()), anew).unwrap()
        }

        fn record(&self) -> PathBuf {
            self.0.join("record.txt")
        }

        fn lines(&self, name: &str) -> Vec<Ran> {
            read(&self.0.join(name)).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn ran(cell: &str) -> Ran {
        Ran::of(cell.to_owned(), None)
    }

    #[test]
    fn a_run_goes_on_with_the_lines_before_it_and_one_from_nothing_puts_them_aside() {
        let folder = Scratch::new("goes-on");
        folder.open(true).add(ran("one")).unwrap();
        let second = folder.open(false);
        assert_eq!(second.cells(), ["one"]);
        second.add(ran("two")).unwrap();
        // Of somebody who was killed.
        let mut lines = OpenOptions::new().append(true).open(folder.0.join(LINES)).unwrap();
        lines.write_all(b"{\"schema\":").unwrap();
        folder.open(false).add(ran("three")).unwrap();
        assert_eq!(folder.open(false).cells(), ["one", "two", "three"]);
        assert!(folder.open(true).cells().is_empty());
        assert_eq!(folder.lines(LINES_BEFORE).len(), 3);
    }

    #[test]
    fn what_is_recorded_in_the_tree_counts_as_run_unless_a_run_begins_from_nothing() {
        let faults = [Fault::new("payload.adopt.begin", "error")];
        let cell = "payload.adopt.begin:error/idle/warm/up/ram";
        let folder = Scratch::new("recorded");
        let first = folder.open(true);
        first.add(Ran { passed: true, met: true, ..ran(cell) }).unwrap();
        fs::write(folder.record(), first.record(&faults).unwrap()).unwrap();
        fs::remove_file(folder.0.join(LINES)).unwrap();
        let second = folder.open(false);
        assert_eq!(second.cells(), [cell]);
        assert_eq!(second.report(&faults).unwrap().total.passed, 1);
        // A later time counts more.
        second.add(ran(cell)).unwrap();
        assert_eq!(folder.open(false).report(&faults).unwrap().total.failed, 1);
        assert!(folder.open(true).cells().is_empty());
        fs::write(folder.record(), "nonsense").unwrap();
        let why = Results::open(folder.0.clone(), String::new(), Some(&folder.record()), false);
        assert!(why.is_err_and(|error| format!("{error:#}").contains("record.txt")));
    }

    #[test]
    fn each_line_says_on_which_tree_its_cell_ran() {
        let folder = Scratch::new("commit");
        folder.open(true).add(ran("one")).unwrap();
        assert_eq!(folder.lines(LINES)[0].commit.as_deref(), Some("abc"));
    }
}
