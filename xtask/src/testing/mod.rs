// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! All tests: on the host, of the source's form, and of the modules in guests.

pub mod benchmark;
mod cuts;
mod documents;
mod failpoints;
pub mod fleet;
pub mod fuzzing;
pub mod gates;
mod interrupted;
pub mod matrix;
mod packages;
pub mod scenario;
pub mod streams;

use atom_tests::scenarios::NOT_JUDGED;
use serde::Serialize;

/// How one test went.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The test's name.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// How long it took.
    pub seconds: f64,
    /// Why it failed, for people.
    pub why: Option<String>,
    /// What it measured.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub facts: serde_json::Map<String, serde_json::Value>,
}

impl Verdict {
    /// Prints it, with everything that helps when it failed.
    pub fn show(&self) {
        let word = if self.passed { "pass" } else { "FAIL" };
        eprintln!("{word}  {} ({:.1} s)", self.name, self.seconds);
        let not_judged = self.facts.get(NOT_JUDGED).and_then(|list| list.as_array());
        for what in not_judged.into_iter().flatten() {
            eprintln!("      not judged on this kernel: {}", what.as_str().unwrap_or_default());
        }
        if let Some(why) = &self.why {
            eprintln!("      {}", why.trim_end().replace('\n', "\n      "));
        }
    }
}
