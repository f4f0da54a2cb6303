// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the archive offers, asked with the host's apt in a folder of our own: the host's package lists stay as
//! they are, and its proxies and certificates are used.

use std::path::Path;

use anyhow::{Context, Result};

use super::choose::{Package, FLAVOUR};
use crate::command_line::CommandLine;
use crate::problem::refused;
use crate::progress::Step;
use crate::sysroot::archive;
use crate::sysroot::suite::Suite;

/// The keys that Debian signs its archive with.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Downloads the suite's package lists into `dir` and returns all kernel packages in it.
pub fn packages(suite: &Suite, mirror: &str, dir: &Path, log: &Path) -> Result<Vec<Package>> {
    for part in ["state/lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(dir.join(part))
            .with_context(|| format!("cannot create folders in {}", dir.display()))?;
    }
    let lines: Vec<String> = suite
        .sources
        .iter()
        .map(|name| format!("deb [signed-by={KEYRING}] {mirror} {name} main\n"))
        .collect();
    std::fs::write(dir.join("sources.list"), lines.concat())?;
    let apt = |tool: &str| {
        let set = |name: &str, path: &str| format!("-o{name}={}", dir.join(path).display());
        CommandLine::new(tool).args([
            set("Dir::Etc::sourcelist", "sources.list"),
            "-oDir::Etc::sourceparts=/dev/null".to_owned(),
            set("Dir::State", "state"),
            "-oDir::State::status=/dev/null".to_owned(),
            set("Dir::Cache", "cache"),
            "-oAPT::Architecture=amd64".to_owned(),
            "-oAPT::Architectures=amd64".to_owned(),
            "-oAPT::Sandbox::User=root".to_owned(),
            "-oAcquire::Retries=2".to_owned(),
            "-oAPT::Update::Error-Mode=any".to_owned(),
        ])
    };
    let step = Step::start(format!("ask the archive for {} kernels", suite.name), log)?;
    step.run(&apt("apt-get").arg("update")).map_err(|error| {
        refused(
            format!("the package lists of {} cannot be fetched", suite.name),
            format!("{error:#}"),
            format!(
                "check that this machine reaches its Debian archive, or set {} to one that it reaches",
                archive::OVERRIDE
            ),
        )
    })?;
    let mut names = Vec::new();
    for kind in ["image", "headers", "source", "binary", "modules"] {
        let prefix = format!("linux-{kind}-");
        let all = apt("apt-cache").args(["pkgnames", &prefix]).read()?;
        let wanted = |name: &&str| kind == "source" || name.ends_with(FLAVOUR);
        names.extend(all.lines().filter(wanted).map(str::to_owned));
    }
    let table = apt("apt-cache").arg("madison").args(&names).read()?;
    step.done();
    Ok(parse_madison(&table))
}

/// Reads lines of the form `name | version | where`.
fn parse_madison(table: &str) -> Vec<Package> {
    table
        .lines()
        .filter(|line| line.contains(" Packages"))
        .filter_map(|line| {
            let mut fields = line.split('|').map(str::trim);
            Some(Package { name: fields.next()?.to_owned(), version: fields.next()?.to_owned() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_the_table_is_a_package_version() {
        let table = "linux-source-7.2 | 7.2.12-1 | http://m.invalid/debian x/main amd64 Packages\n\
                     linux-source-7.2 | 7.2.11-1 | http://m.invalid/debian x/main amd64 Packages\n\
                     linux | 7.2.11-1 | http://m.invalid/debian x/main Sources\n";
        let packages = parse_madison(table);
        assert_eq!(packages.len(), 2);
        assert_eq!(packages[1].version, "7.2.11-1");
    }
}
