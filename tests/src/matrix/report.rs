// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What was covered: one line for each cell that ran, and a table over all that could.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::axes::{Cell, Fault};
use super::plan::{self, Place};

/// One cell that ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ran {
    /// [`Ran::SCHEMA`].
    pub schema: String,
    /// The cell.
    pub cell: String,
    /// Whether everything held that must.
    pub passed: bool,
    /// Whether the fault happened at all. A cell that passed without it shows nothing.
    pub met: bool,
    /// How the upgrade ended: the word of its report, or `killed`.
    pub outcome: Option<String>,
    /// How long I/O was held in it.
    pub pause_us: Option<u64>,
    /// What was wrong.
    pub why: Option<String>,
    /// How long the cell took.
    pub seconds: f64,
    /// The tree that it ran on. Only the host knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

impl Ran {
    /// Name and version of a line.
    pub const SCHEMA: &'static str = "atom.matrix-cell/1";

    /// One that has not passed, of which nothing else is known.
    pub fn of(cell: String, why: Option<String>) -> Self {
        Self {
            schema: Self::SCHEMA.to_owned(),
            cell,
            passed: false,
            met: false,
            outcome: None,
            pause_us: None,
            why,
            seconds: 0.0,
            commit: None,
        }
    }
}

/// How many cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub possible: u64,
    pub impossible: u64,
    /// Passed, and the fault happened.
    pub passed: u64,
    /// Passed, and the fault did not happen.
    pub not_met: u64,
    pub failed: u64,
    /// Possible, and never tried.
    pub not_run: u64,
}

/// Count of one value, or of two together.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The value of each axis that the row is about.
    #[serde(flatten)]
    pub values: BTreeMap<String, String>,
    #[serde(flatten)]
    pub count: Count,
}

/// Combinations that cannot be.
#[derive(Clone, Debug, Serialize)]
pub struct Impossible {
    pub rule: String,
    pub why: String,
    pub cells: u64,
}

/// The coverage.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`Report::SCHEMA`].
    pub schema: String,
    /// Failpoints that the modules have.
    pub points: u64,
    pub total: Count,
    /// Steps against kinds of faults.
    pub faults: Vec<Row>,
    /// Each value of the other axes.
    pub axes: Vec<Row>,
    pub impossible: Vec<Impossible>,
    /// The cells that failed.
    pub failures: Vec<Ran>,
    /// Points at which no fault ever happened, in cells that ran.
    pub never_met: Vec<String>,
    /// Cells by the tree that they ran on.
    pub commits: BTreeMap<String, u64>,
}

impl Report {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.matrix-report/1";

    /// The coverage of the matrix of these failpoints by the cells that ran. Of a cell that ran twice the last time counts.
    pub fn new(faults: &[Fault], ran: &[Ran]) -> Self {
        let by_cell: BTreeMap<&str, &Ran> =
            ran.iter().map(|one| (one.cell.as_str(), one)).collect();
        let mut total = Count::default();
        let mut faults_seen: BTreeMap<(String, String), Count> = BTreeMap::new();
        let mut axes_seen: BTreeMap<(String, String), Count> = BTreeMap::new();
        let mut rules: BTreeMap<&str, Impossible> = BTreeMap::new();
        for place in plan::places(faults) {
            let (cell, rule) = match &place {
                Place::Possible(cell) => (cell, None),
                Place::Impossible(cell, rule) => (cell, Some(*rule)),
            };
            if let Some(rule) = rule {
                let entry = rules.entry(rule.name).or_insert_with(|| Impossible {
                    rule: rule.name.to_owned(),
                    why: rule.why.to_owned(),
                    cells: 0,
                });
                entry.cells += 1;
            }
            let result = by_cell.get(cell.to_string().as_str()).copied();
            let add = |count: &mut Count| count.add(rule.is_some(), result);
            add(&mut total);
            let [step, kind, others @ ..] = cell.values();
            add(faults_seen.entry((step.1.to_owned(), kind.1.to_owned())).or_default());
            for (axis, value) in others {
                add(axes_seen.entry((axis.to_owned(), value.to_owned())).or_default());
            }
        }
        let row = |names: [(&str, &String); 2], count: &Count| Row {
            values: names
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).clone()))
                .collect(),
            count: *count,
        };
        let mut points: Vec<&str> = faults.iter().map(|fault| fault.point.as_str()).collect();
        points.sort_unstable();
        points.dedup();
        let mut met: BTreeMap<String, bool> = BTreeMap::new();
        for one in by_cell.values() {
            if let Ok(cell) = one.cell.parse::<Cell>() {
                *met.entry(cell.fault.point).or_default() |= one.met;
            }
        }
        let mut commits: BTreeMap<String, u64> = BTreeMap::new();
        for commit in by_cell.values().filter_map(|one| one.commit.clone()) {
            *commits.entry(commit).or_default() += 1;
        }
        Self {
            schema: Self::SCHEMA.to_owned(),
            points: points.len() as u64,
            total,
            faults: faults_seen
                .iter()
                .map(|((step, kind), count)| row([("step", step), ("kind", kind)], count))
                .collect(),
            axes: axes_seen
                .iter()
                .map(|((axis, value), count)| row([("axis", axis), ("value", value)], count))
                .collect(),
            impossible: rules.into_values().collect(),
            failures: by_cell
                .values()
                .filter(|one| !one.passed)
                .map(|one| (*one).clone())
                .collect(),
            never_met: met.into_iter().filter(|(_, met)| !met).map(|(point, _)| point).collect(),
            commits,
        }
    }

    /// The same as Markdown.
    pub fn markdown(&self) -> String {
        let of = |row: &Row, name: &str| row.values.get(name).cloned().unwrap_or_default();
        let mut kinds: Vec<String> = self.faults.iter().map(|row| of(row, "kind")).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let mut steps: Vec<String> = self.faults.iter().map(|row| of(row, "step")).collect();
        steps.dedup();
        let Count { possible, impossible, passed, not_met, failed, not_run } = self.total;
        let mut text = format!(
            "# Coverage of the matrix\n\n{} failpoints. {possible} cells are possible and {impossible} are not: {passed} \
             passed, {not_met} passed without that their fault happened, {failed} failed, {not_run} were not run.\n\n\
             An entry says how many cells passed of those that are possible; then how many failed, and in how many the \
             fault did not happen.\n\n| step |",
            self.points
        );
        for kind in &kinds {
            text.push_str(&format!(" {kind} |"));
        }
        text.push_str(&format!("\n| --- |{}\n", " --- |".repeat(kinds.len())));
        for step in &steps {
            text.push_str(&format!("| {step} |"));
            for kind in &kinds {
                let row = self
                    .faults
                    .iter()
                    .find(|row| of(row, "step") == *step && of(row, "kind") == *kind);
                text.push_str(&format!(
                    " {} |",
                    row.map_or_else(String::new, |row| row.count.to_string())
                ));
            }
            text.push('\n');
        }
        text.push_str("\n| axis | value | cells |\n| --- | --- | --- |\n");
        for row in &self.axes {
            let (axis, value) = (of(row, "axis"), of(row, "value"));
            text.push_str(&format!("| {axis} | {value} | {} |\n", row.count));
        }
        text.push_str("\n| impossible because | cells |\n| --- | --- |\n");
        for Impossible { why, cells, .. } in &self.impossible {
            text.push_str(&format!("| {why} | {cells} |\n"));
        }
        if !self.commits.is_empty() {
            text.push_str("\n| ran at commit | cells |\n| --- | --- |\n");
            for (commit, cells) in &self.commits {
                text.push_str(&format!("| {commit} | {cells} |\n"));
            }
        }
        for one in &self.failures {
            let why = one.why.as_deref().unwrap_or_default();
            text.push_str(&format!("\n- failed: `{}`: {}", one.cell, why.replace('\n', "\n  ")));
        }
        if !self.never_met.is_empty() {
            text.push_str(&format!(
                "\nNever met in the cells that ran: {}\n",
                self.never_met.join(", ")
            ));
        }
        text
    }
}

impl Count {
    fn add(&mut self, is_impossible: bool, ran: Option<&Ran>) {
        if is_impossible {
            self.impossible += 1;
            return;
        }
        self.possible += 1;
        match ran {
            None => self.not_run += 1,
            Some(Ran { passed: false, .. }) => self.failed += 1,
            Some(Ran { met: true, .. }) => self.passed += 1,
            Some(_) => self.not_met += 1,
        }
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { possible, passed, not_met, failed, not_run, .. } = *self;
        if possible == 0 {
            return f.write_str("impossible");
        }
        if not_run == possible {
            return write!(f, "not run ({possible})");
        }
        write!(f, "{passed} of {possible}")?;
        if failed > 0 {
            write!(f, ", **{failed} failed**")?;
        }
        if not_met > 0 {
            write!(f, ", {not_met} not met")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::axes::WORLD;

    fn ran(cell: &str, passed: bool, met: bool) -> Ran {
        let why = (!passed).then(|| "it broke".to_owned());
        Ran { passed, met, commit: Some("abc".to_owned()), ..Ran::of(cell.to_owned(), why) }
    }

    #[test]
    fn a_cell_that_was_not_run_shows_as_not_run_and_one_that_cannot_be_as_impossible() {
        let faults = [
            Fault::new("payload.adopt.begin", "error"),
            Fault::new("payload.freeze.begin", "error"),
            Fault::new("payload.thaw.begin", "delay"),
            Fault::new("payload.nbd.send", "hang"),
        ];
        let lines = [
            ran("payload.adopt.begin:error/idle/warm/up/ram", true, true),
            ran("payload.adopt.begin:error/idle/warm/down/ram", true, false),
            // The first time it failed.
            ran("payload.adopt.begin:error/mixed/warm/up/ram", false, true),
            ran("payload.adopt.begin:error/mixed/warm/up/ram", true, true),
            ran("payload.adopt.begin:error/mixed/warm/up/nbd", false, true),
        ];
        let report = Report::new(&faults, &lines);
        let Count { possible, passed, not_met, failed, not_run, impossible } = report.total;
        assert_eq!((passed, not_met, failed), (2, 1, 1));
        assert_eq!(possible, passed + not_met + failed + not_run);
        assert_eq!(possible + impossible, (faults.len() + WORLD.len()) as u64 * 96);
        assert_eq!(report.never_met, Vec::<String>::new());
        assert_eq!(report.impossible.iter().map(|rule| rule.cells).sum::<u64>(), impossible);
        let text = report.markdown();
        let row = |step: &str| {
            let begin = format!("| {step} |");
            text.lines().find(|line| line.starts_with(&begin)).expect("a row").to_owned()
        };
        assert!(row("adopt").contains("2 of 48, **1 failed**, 1 not met"), "{}", row("adopt"));
        assert!(row("freeze").contains("not run (96)"), "{}", row("freeze"));
        assert!(text.contains("- failed: `payload.adopt.begin:error/mixed/warm/up/nbd`: it broke"));
        assert!(text.contains("| volume | nbd |"));
        assert!(text.contains("| abc | 4 |"), "{text}");
        let document = serde_json::to_value(&report).expect("JSON");
        assert_eq!(document["schema"], "atom.matrix-report/1");
        assert_eq!(document["total"]["not_run"], not_run);
        let adopt =
            document["faults"].as_array().expect("rows").iter().find(|row| row["step"] == "adopt");
        assert_eq!(adopt.expect("a row")["failed"], 1);
    }

    #[test]
    fn a_step_that_cannot_be_at_all_is_impossible_and_not_not_run() {
        let count = Count { impossible: 4, ..Count::default() };
        assert_eq!(count.to_string(), "impossible");
    }
}
