// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The modules of an earlier commit, built by that commit's own tools, to be measured beside those of this clone.

use std::path::{Path, PathBuf};

use anyhow::{ensure, Result};

use crate::command_line::CommandLine;
use crate::places;
use crate::problem::refused;
use crate::progress::Step;

/// Atom and the payloads of a commit.
pub fn modules(revision: &str) -> Result<Vec<PathBuf>> {
    let commit = commit(revision)?;
    let tree = places::target().join("against").join(&commit);
    if !tree.join("Cargo.toml").exists() {
        std::fs::create_dir_all(tree.parent().unwrap_or(&tree))?;
        // What was removed by hand is still known to git.
        git().args(["worktree", "prune"]).read()?;
        git().args(["worktree", "add", "--detach"]).arg(&tree).arg(&commit).read()?;
    }
    let log = places::target().join("against").join(format!("{commit}.log"));
    let step = Step::start(format!("build {revision}, by its own tools"), &log)?;
    let text = CommandLine::new("cargo")
        .args(["run", "--quiet", "--package", "xtask", "--", "build"])
        .env("CARGO_TARGET_DIR", tree.join("target").display().to_string())
        .dir(&tree)
        .read()?;
    step.done();
    let files: Vec<PathBuf> = text
        .lines()
        .map(PathBuf::from)
        .filter(|file| file.extension().is_some_and(|extension| extension == "ko"))
        .filter(|file| is_release(file))
        .collect();
    ensure!(!files.is_empty(), "{revision} has made no modules; read {}", log.display());
    Ok(files)
}

/// Atom itself, or a payload that is not for tests.
fn is_release(file: &Path) -> bool {
    let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = file.parent().and_then(Path::file_name).map(|name| name.to_string_lossy());
    let version = name.strip_prefix("payload_").and_then(|rest| rest.chars().next());
    folder.is_none_or(|folder| folder != "failpoints")
        && (name == "atom" || version.is_some_and(|first| first.is_ascii_digit()))
}

fn commit(revision: &str) -> Result<String> {
    let word = format!("{revision}^{{commit}}");
    let found = git().args(["rev-parse", "--verify", "--quiet", &word]).read();
    found.map(|text| text.trim().to_owned()).map_err(|_| {
        refused(
            format!("there is no commit {revision}"),
            "git does not know it in this clone",
            "name another one, as in `git log --oneline`",
        )
    })
}

fn git() -> CommandLine {
    CommandLine::new("git").dir(&places::repository())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_releases_are_measured() {
        for (file, is) in [
            ("/t/modules/atom.ko", true),
            ("/t/modules/payload_2_1_0.ko", true),
            ("/t/modules/payload_test_stuck.ko", false),
            ("/t/modules/payload_template_1.ko", false),
            ("/t/modules/failpoints/atom.ko", false),
        ] {
            assert_eq!(is_release(Path::new(file)), is, "{file}");
        }
    }
}
