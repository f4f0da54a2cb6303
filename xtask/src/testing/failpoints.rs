// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Failpoints are in the builds that are made for them, and in no other: by the names of the points, which are strings of
//! the file, and by the symbols of the code behind them.

use std::path::Path;

use anyhow::{ensure, Context, Result};

use crate::sysroot::Sysroot;
use crate::{kbuild, modules, places, programs};

/// What each module with failpoints has beside the names of its points: the function that oopses, and the code.
const SYMBOLS: [&str; 2] = ["atom_failpoint_oops", "9failpoint5point"];
/// What the node tool with failpoints has.
const VARIABLE: &str = "ATOMCTL_FAILPOINTS";

/// Looks at what was built.
pub fn check(sysroot: &Sysroot) -> Result<()> {
    let repository = places::repository();
    let atom = names(&repository.join("atom/points.rs"))?;
    let payload = names(&repository.join("payload/src/points.rs"))?;
    both(
        &kbuild::loadable(sysroot, modules::ATOM),
        &with_failpoints(sysroot, modules::ATOM),
        &atom,
    )?;
    for version in modules::payload_versions()? {
        let release = kbuild::loadable(sysroot, &version.object);
        match version.failpoints {
            true => both(&release, &with_failpoints(sysroot, &version.object), &payload)?,
            false => has_none(&release, &payload)?,
        }
    }
    let tool = programs::path(programs::TOOL_WITH_FAILPOINTS);
    ensure!(has(&read(&tool)?, VARIABLE), "{} has no failpoints", tool.display());
    let release = programs::path("atomctl");
    ensure!(!has(&read(&release)?, VARIABLE), "{} has failpoints", release.display());
    Ok(())
}

fn with_failpoints(sysroot: &Sysroot, object: &str) -> std::path::PathBuf {
    kbuild::loadable_of(sysroot, modules::FAILPOINTS, object)
}

/// A release has none of the points, and the build for them has all.
fn both(release: &Path, with: &Path, names: &[String]) -> Result<()> {
    let bytes = read(with)?;
    for text in names.iter().map(String::as_str).chain(SYMBOLS) {
        ensure!(has(&bytes, text), "{} has no {text}", with.display());
    }
    has_none(release, names)
}

fn has_none(release: &Path, names: &[String]) -> Result<()> {
    let bytes = read(release)?;
    for text in names.iter().map(String::as_str).chain(SYMBOLS) {
        ensure!(!has(&bytes, text), "{} has {text}", release.display());
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The names of the points that a source lists: what follows the sign of equality of each.
fn names(source: &Path) -> Result<Vec<String>> {
    let text = String::from_utf8(read(source)?)?;
    let names: Vec<String> = names_in(&text);
    ensure!(names.len() > 20, "{} lists {} points", source.display(), names.len());
    Ok(names)
}

fn names_in(text: &str) -> Vec<String> {
    let listed = text.lines().filter_map(|line| line.split_once(" = \"")?.1.split_once("\":"));
    listed.map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_a_source_lists() {
        let text = "    /// \"a\": b\n    ONE = \"atom.one.two\": Error | Hang;\n    #[cfg(x = \"y\")]\n    \
                    TWO = \"atom.two\": Oops;\n";
        assert_eq!(names_in(text), ["atom.one.two", "atom.two"]);
    }

    #[test]
    fn a_name_is_found_in_the_middle_of_a_file() {
        assert!(has(b"\0atom.one.two\xff", "one.two"));
        assert!(!has(b"\0atom.one.tw", "one.two"));
    }
}
