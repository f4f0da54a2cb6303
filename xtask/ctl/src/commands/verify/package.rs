// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Whether a file is the one that its package has brought.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::verdict;
use crate::report::Verdict;

/// What asks a package manager.
struct Manager {
    program: &'static str,
    /// Asks which package owns a file.
    owner: &'static str,
    /// What stands behind the name of the package in the answer.
    behind: Option<char>,
    /// Compares a package with what it has brought: a line for each file that is not as it was.
    verify: &'static str,
}

const MANAGERS: [Manager; 2] = [
    Manager { program: "rpm", owner: "-qf", behind: None, verify: "-V" },
    Manager { program: "dpkg", owner: "-S", behind: Some(':'), verify: "-V" },
];

/// Compares the file with its package. A file that no package has brought is as it should be.
pub(super) fn check_package(path: &Path) -> Verdict {
    // The same file may be known by its path before or after links.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let names = [path.to_owned(), real.clone(), without_usr(&real)];
    for manager in &MANAGERS {
        let owner = names.iter().find_map(|name| owner(manager, name));
        if let Some(owner) = owner {
            return against(manager, &owner, &names);
        }
    }
    verdict("package", true, format!("no package has brought {}", path.display()))
}

/// The path as it was before everything moved to `/usr`.
fn without_usr(path: &Path) -> PathBuf {
    path.strip_prefix("/usr").map_or_else(|_| path.to_owned(), |rest| Path::new("/").join(rest))
}

fn owner(manager: &Manager, path: &Path) -> Option<String> {
    let output = Command::new(manager.program).arg(manager.owner).arg(path).output().ok()?;
    let said = output.status.success().then(|| String::from_utf8(output.stdout).ok())??;
    let line = said.lines().next()?;
    let name = match manager.behind {
        Some(behind) => line.split_once(behind)?.0,
        None => line,
    };
    Some(name.trim().to_owned())
}

fn against(manager: &Manager, owner: &str, names: &[PathBuf]) -> Verdict {
    let output = Command::new(manager.program).arg(manager.verify).arg(owner).output();
    match output {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            match changed(&said, names) {
                None => verdict("package", true, format!("as {owner} has brought it")),
                Some(line) => verdict(
                    "package",
                    false,
                    format!("not as {owner} has brought it ({line}): install the package again"),
                ),
            }
        }
        Err(error) => {
            verdict("package", false, format!("{} cannot be asked: {error}", manager.program))
        }
    }
}

/// The line about the file in what the package manager says of its package.
fn changed<'a>(said: &'a str, names: &[PathBuf]) -> Option<&'a str> {
    said.lines().map(str::trim).find(|line| {
        line.split_whitespace()
            .last()
            .is_some_and(|path| names.iter().any(|name| name == Path::new(path)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_about_the_file_counts() {
        let names = [PathBuf::from("/usr/lib/a.ko"), PathBuf::from("/lib/a.ko")];
        assert_eq!(changed("", &names), None);
        assert_eq!(changed("S.5....T.    /usr/lib/b.ko\n", &names), None);
        let line = "??5?????? c /lib/a.ko";
        assert_eq!(changed(&format!("missing /x\n{line}\n"), &names), Some(line));
    }

    #[test]
    fn a_file_of_nobody_is_as_it_should_be() {
        let verdict = check_package(Path::new("/nowhere/payload_1_0_0.ko"));
        assert!(verdict.ok && verdict.detail.contains("no package"), "{verdict:?}");
    }

    #[test]
    fn a_path_is_known_by_its_older_name_too() {
        assert_eq!(without_usr(Path::new("/usr/lib/a.ko")), Path::new("/lib/a.ko"));
        assert_eq!(without_usr(Path::new("/opt/a.ko")), Path::new("/opt/a.ko"));
    }
}
