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

/// Whether a name is one of those that are asked for: without filters all are.
pub fn is_meant(filters: &[String], name: &str) -> bool {
    filters.is_empty() || filters.iter().any(|part| name.contains(part.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_meant_that_contains_one_of_the_filters_or_when_there_are_none() {
        let filters = ["swap".to_owned(), "cut".to_owned()];
        assert!(is_meant(&filters, "a_power_cut"));
        assert!(!is_meant(&filters, "a_mirror"));
        assert!(is_meant(&[], "a_mirror"));
    }
}
