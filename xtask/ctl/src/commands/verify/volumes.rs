// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Whether the volumes are those of the machine's own file.

use std::path::Path;

use super::verdict;
use crate::commands::apply::planned;
use crate::control::Control;
use crate::report::{ApplyEntry, ApplyResult, Verdict};

/// The volumes of a machine.
const FILE: &str = "/etc/atom/volumes.toml";

/// Compares the volumes with the file, when there is one.
pub(super) fn check_volumes(control: &Control) -> Option<Verdict> {
    let path = Path::new(FILE);
    path.exists().then(|| match planned(path, control) {
        Ok(entries) => compared(&entries),
        Err(problem) => verdict("volumes", false, problem.in_one_line()),
    })
}

fn compared(entries: &[ApplyEntry]) -> Verdict {
    let wrong: Vec<String> = entries
        .iter()
        .filter(|entry| entry.result != ApplyResult::Nothing)
        .map(|entry| format!("{}: {} {}", entry.name, entry.action, entry.detail))
        .collect();
    match wrong.is_empty() {
        true => verdict("volumes", true, format!("as in {FILE}")),
        false => {
            let wrong = wrong.join("; ");
            verdict("volumes", false, format!("not as in {FILE}: {wrong}: atomctl apply {FILE}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_would_have_to_change_is_named() {
        let entry = |name: &str, result| ApplyEntry {
            name: name.to_owned(),
            action: "create".to_owned(),
            detail: "64 MiB".to_owned(),
            result,
            device: None,
        };
        assert!(compared(&[entry("a", ApplyResult::Nothing)]).ok);
        let wrong = compared(&[entry("a", ApplyResult::Nothing), entry("b", ApplyResult::NotDone)]);
        assert!(!wrong.ok && wrong.detail.contains("b: create 64 MiB"), "{wrong:?}");
    }
}
