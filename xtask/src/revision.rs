// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the tree is that something was measured on.

use anyhow::{ensure, Result};

use crate::command_line::CommandLine;
use crate::places;

/// The commit, and whether the tree has changes beside its documents.
pub fn commit() -> Result<String> {
    described("%h", "-changed")
}

/// The same for people, with its day.
pub fn commit_and_day() -> Result<String> {
    described("commit %h of %cs", ", with changes")
}

fn described(format: &str, mark: &str) -> Result<String> {
    let git = |args: &[&str]| {
        CommandLine::new("git").args(args.iter().copied()).dir(&places::repository()).read()
    };
    let text = git(&["log", "-1", &format!("--format={format}")])?;
    ensure!(!text.trim().is_empty(), "there is no commit");
    let changes = git(&["status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs"])?;
    let changed = if changes.trim().is_empty() { "" } else { mark };
    Ok(format!("{}{changed}", text.trim()))
}
