// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! That the benchmark measures: each suite once, in a few short rounds. No time is judged.

use std::time::Instant;

use anyhow::{ensure, Result};
use atom_tests::bench::series::OURS;
use atom_tests::bench::{Document, How, Suite};

use super::Verdict;
use crate::bench::targets::{self, Needs};
use crate::bench::{self, page, table};
use crate::sysroot::Sysroot;

/// Its name among the tests.
pub const NAME: &str = "the_benchmark_measures_ours_and_every_peer";
/// The same for people.
pub const WHAT: &str = "Each suite of cargo xtask bench in a few short rounds: numbers of all sides, a table, a page. No time is judged.";

/// Each suite, the setups that are tried, and whose numbers must be there.
const SUITES: [(Suite, &str, &[&str]); 5] = [
    (Suite::Pause, "", &[OURS, "atom, cold", "device mapper", "ublk", "kernel's nbd", "livepatch"]),
    (Suite::Scale, "", &[OURS, "create", "destroy", "each device", "each handle"]),
    (Suite::Size, "", &[OURS, "payload_2_0_0", "payload_2_1_0", "null_blk", "nbd", "brd"]),
    (Suite::Path, "", &[OURS, "one module", "null_blk", "ublk null", "brd"]),
    (Suite::Volumes, "linear / device mapper, in memory", &[OURS, "device mapper"]),
];

/// Measures.
pub fn run(sysroot: &Sysroot) -> Verdict {
    let begun = Instant::now();
    let result = carry_out(sysroot);
    Verdict {
        name: NAME.to_owned(),
        passed: result.is_ok(),
        seconds: begun.elapsed().as_secs_f64(),
        why: result.err().map(|error| format!("{error:#}")),
        facts: serde_json::Map::new(),
    }
}

fn carry_out(sysroot: &Sysroot) -> Result<()> {
    let mut documents = Vec::new();
    for (suite, only, subjects) in SUITES {
        let document = bench::measure(sysroot, suite, How::Quick, only)?;
        is_complete(&document, subjects)?;
        documents.push(document);
    }
    let judged = targets::judge(&documents);
    let is_missing = |one: &&targets::Judged| one.measured.is_none() && one.needs == Needs::Rounds;
    let missing: Vec<_> = judged.iter().filter(is_missing).map(|one| one.what).collect();
    ensure!(missing.is_empty(), "there is no figure for {missing:?}");
    ensure!(page::of(&documents, "a test")?.contains("<svg"), "nothing was drawn");
    ensure!(documents.iter().all(|one| table::of(one, "").lines().count() > 4), "an empty table");
    Ok(())
}

/// Each subject has numbers, and each number is one.
fn is_complete(document: &Document, subjects: &[&str]) -> Result<()> {
    let suite = document.suite.name();
    for subject in subjects {
        let theirs = document.series.iter().any(|one| one.subject == *subject);
        ensure!(theirs, "{suite} has no numbers of {subject}");
    }
    for one in &document.series {
        let all = one.values.iter().all(|value| value.is_finite() && *value >= 0.0);
        ensure!(!one.values.is_empty() && all, "{suite} has {one:?}");
    }
    Ok(())
}
