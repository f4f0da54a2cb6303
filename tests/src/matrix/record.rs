// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The cells that have passed, as a text that is kept in the tree: the whole matrix takes longer than one sitting on one machine.
//!
//! A line for each fault, way and direction has a group for each load, and in it a letter for each volume: that of the commit on which the
//! cell has passed and its fault has struck. All others are to be run again, whatever became of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{bail, ensure, Context as _, Result};

use super::axes::{Cell, Fault, Load, Volume};
use super::plan;
use super::report::Ran;

const HEAD: &str = "\
# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
# The cells of the full matrix that have passed, each by the letter of its commit; a dot is one that has not, or that cannot be.
# Written and read by `cargo xtask test --matrix full --resume --write`.
";
/// What the letters stand for, and what the places of a line stand for.
const COMMIT: &str = "commit";
const LOADS: &str = "loads";
const VOLUMES: &str = "volumes";
const NONE: char = '.';

/// Writes those that have passed, of the cells that these failpoints make possible. Of a cell that ran twice the last time counts.
pub fn write(faults: &[Fault], ran: &[Ran]) -> Result<String> {
    let last: HashMap<&str, &Ran> = ran.iter().map(|one| (one.cell.as_str(), one)).collect();
    let mut passed: BTreeMap<String, BTreeMap<(Load, Volume), &str>> = BTreeMap::new();
    let mut commits = BTreeSet::new();
    for cell in plan::full(faults) {
        let Some(one) = last.get(cell.to_string().as_str()) else { continue };
        let Some(commit) = one.commit.as_deref().filter(|_| one.passed && one.met) else {
            continue;
        };
        commits.insert(commit);
        passed.entry(row(&cell)).or_default().insert((cell.load, cell.volume), commit);
    }
    let letters: Vec<char> = ('a'..='z').chain('A'..='Z').collect();
    ensure!(
        commits.len() <= letters.len(),
        "cells ran on {} commits, which is too many to tell them apart by a letter",
        commits.len()
    );
    let letters: BTreeMap<&str, char> = commits.into_iter().zip(letters).collect();
    let mut text = HEAD.to_owned();
    let mut header = |name: &str, words: &[&str]| {
        text.push_str(&format!("{name} {}\n", words.join(" ")));
    };
    header(LOADS, &Load::ALL.iter().map(|load| load.name()).collect::<Vec<_>>());
    header(VOLUMES, &Volume::ALL.iter().map(|volume| volume.name()).collect::<Vec<_>>());
    for (commit, letter) in &letters {
        header(COMMIT, &[&letter.to_string(), commit]);
    }
    for (row, cells) in passed {
        text.push_str(&row);
        for load in Load::ALL {
            let letter = |volume: &Volume| {
                cells.get(&(*load, *volume)).and_then(|commit| letters.get(commit)).unwrap_or(&NONE)
            };
            text.push(' ');
            text.extend(Volume::ALL.iter().map(letter));
        }
        text.push('\n');
    }
    Ok(text)
}

/// Reads what [`write`] has written.
pub fn read(text: &str) -> Result<Vec<Ran>> {
    let mut loads: Vec<Load> = Vec::new();
    let mut volumes: Vec<Volume> = Vec::new();
    let mut commits: HashMap<char, &str> = HashMap::new();
    let mut all = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let read = match words[..] {
            [LOADS, ref words @ ..] => parsed(words).map(|words| loads = words),
            [VOLUMES, ref words @ ..] => parsed(words).map(|words| volumes = words),
            [COMMIT, letter, commit] => letter.parse().context("no letter").map(|letter| {
                commits.insert(letter, commit);
            }),
            [row, ref groups @ ..] => {
                cells(row, groups, &loads, &volumes, &commits).map(|cells| all.extend(cells))
            }
            [] => Ok(()),
        };
        read.with_context(|| format!("line {}: {line:?}", at + 1))?;
    }
    Ok(all)
}

fn parsed<T: std::str::FromStr<Err = anyhow::Error>>(words: &[&str]) -> Result<Vec<T>> {
    words.iter().map(|word| word.parse()).collect()
}

/// The cells of a line.
fn cells(
    row: &str,
    groups: &[&str],
    loads: &[Load],
    volumes: &[Volume],
    commits: &HashMap<char, &str>,
) -> Result<Vec<Ran>> {
    ensure!(!loads.is_empty() && !volumes.is_empty(), "loads and volumes are not known yet");
    ensure!(groups.len() == loads.len(), "{} loads, and not {}", groups.len(), loads.len());
    let mut cells = Vec::new();
    for (group, load) in groups.iter().zip(loads) {
        ensure!(group.chars().count() == volumes.len(), "{group}: not a letter for each volume");
        for (letter, volume) in group.chars().zip(volumes).filter(|(letter, _)| *letter != NONE) {
            let Some(commit) = commits.get(&letter) else { bail!("{letter} stands for no commit") };
            let [fault, way, direction] = row.split('/').collect::<Vec<_>>()[..] else {
                bail!("{row} is not fault, way and direction")
            };
            let name = format!("{fault}/{}/{way}/{direction}/{}", load.name(), volume.name());
            name.parse::<Cell>()?;
            let commit = Some((*commit).to_owned());
            cells.push(Ran { passed: true, met: true, commit, ..Ran::of(name, None) });
        }
    }
    Ok(cells)
}

/// What a line is about.
fn row(cell: &Cell) -> String {
    let Cell { fault: Fault { point, kind }, way, direction, .. } = cell;
    format!("{point}:{kind}/{}/{}", way.name(), direction.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(cell: &str, passed: bool, met: bool, commit: &str) -> Ran {
        Ran { passed, met, commit: Some(commit.to_owned()), ..Ran::of(cell.to_owned(), None) }
    }

    fn faults() -> Vec<Fault> {
        vec![
            Fault::new("payload.adopt.begin", "error"),
            Fault::new("payload.freeze.begin", "delay"),
        ]
    }

    fn all(commit: &str) -> Vec<Ran> {
        let cells = plan::full(&faults());
        cells.iter().map(|cell| ran(&cell.to_string(), true, true, commit)).collect()
    }

    #[test]
    fn what_has_passed_is_read_as_it_was_written_with_the_commit_of_each_cell() {
        let mut lines = all("abc");
        lines.iter_mut().step_by(3).for_each(|one| one.commit = Some("def-changed".to_owned()));
        let text = write(&faults(), &lines).unwrap();
        let mut back = read(&text).unwrap();
        let by_name = |one: &Ran| one.cell.clone();
        back.sort_by_key(by_name);
        lines.sort_by_key(by_name);
        assert_eq!(back, lines);
        assert_eq!(write(&faults(), &back).unwrap(), text);
    }

    #[test]
    fn what_has_failed_at_last_or_has_not_met_its_fault_or_is_no_cell_any_more_is_left_out() {
        let lines = [
            ran("payload.adopt.begin:error/idle/warm/up/ram", true, true, "abc"),
            ran("payload.adopt.begin:error/idle/warm/down/ram", true, true, "abc"),
            ran("payload.adopt.begin:error/idle/warm/down/ram", false, true, "abc"),
            ran("payload.adopt.begin:error/mixed/warm/up/nbd", true, false, "abc"),
            ran("payload.gone:error/mixed/warm/up/nbd", true, true, "abc"),
        ];
        let back = read(&write(&faults(), &lines).unwrap()).unwrap();
        assert_eq!(back, lines[..1]);
    }

    #[test]
    fn a_line_is_short_enough_to_be_looked_at() {
        let text = write(&faults(), &all("abc")).unwrap();
        let line = "payload.adopt.begin:error/warm/up aaaa aaaa aaaa aaaa aaaa aaaa";
        assert!(text.lines().any(|other| other == line), "{text}");
    }

    #[test]
    fn a_text_that_is_damaged_is_refused_with_the_line() {
        let text = write(&faults(), &all("abc")).unwrap();
        for (from, to) in [
            ("commit a", "commit b"),
            ("loads idle", "loads idel"),
            ("volumes", "# volumes"),
            ("error/warm/up aaaa", "error/warm/up aaa"),
            ("error/warm/up aaaa", "error/warm/up"),
            ("error/warm/up", "error/warm"),
            ("error/warm/up", "error/warm/sideways"),
        ] {
            let wrong = text.replacen(from, to, 1);
            assert_ne!(wrong, text);
            let why = format!("{:#}", read(&wrong).unwrap_err());
            assert!(why.starts_with("line "), "{why}");
        }
    }
}
