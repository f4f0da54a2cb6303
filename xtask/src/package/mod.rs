// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Packages for nodes, in two formats of one content.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`content`] | the files of each package, laid out as on a node, and what the package says of itself |
//! | [`signing`] | a signature at the end of a module, made with the user's key |
//! | [`rpm`], [`deb`] | the formats: `rpmbuild` with the specs of `packaging/rpm`, `dpkg-deb` with the templates of `packaging/deb` |
//!
//! What the scripts of the packages do on a node is `atomctl package`, see `xtask/ctl/src/package/`.

pub mod content;
mod deb;
mod rpm;
pub mod signing;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::modules::{self, Version};
use crate::problem::refused;
use crate::sysroot::Sysroot;
use crate::{host, kbuild, places, programs};
use content::Content;
use signing::Signing;

/// Space for the packages and what they are made of, in GiB.
const SPACE: u64 = 1;

/// The formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For rpm and dnf.
    Rpm,
    /// For dpkg and apt.
    Deb,
}

/// What is to be made.
#[derive(Clone, Debug)]
pub struct Request {
    /// The format.
    pub format: Format,
    /// Versions of the payload; none: all releases.
    pub payloads: Vec<String>,
    /// The folder for the packages.
    pub out: PathBuf,
    /// What the modules are signed with.
    pub signing: Option<Signing>,
    /// The number of these packages among those of the same versions.
    pub release: String,
}

/// A package that was made.
#[derive(Clone, Debug, Serialize)]
pub struct Made {
    /// Its name.
    pub name: String,
    /// Its version with the package's own number.
    pub version: String,
    /// Where it is.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// What others can ask for.
    pub provides: Vec<String>,
    /// What it asks for.
    pub requires: Vec<String>,
}

/// Refuses what cannot be made, before anything is built.
pub fn check(request: &Request) -> Result<()> {
    choose(&modules::payload_versions()?, &request.payloads)?;
    check_release(&request.release)?;
    if let Some(signing) = &request.signing {
        signing.check()?;
    }
    std::fs::create_dir_all(&request.out)
        .with_context(|| format!("cannot create {}", request.out.display()))?;
    host::require_space(&request.out, SPACE, "the packages and what they are made of are put there")
}

/// Builds what goes into the packages, and makes them.
pub fn make(sysroot: &Sysroot, request: &Request) -> Result<Vec<Made>> {
    check(request)?;
    let versions = choose(&modules::payload_versions()?, &request.payloads)?;
    programs::build()?;
    let repository = places::repository();
    let mut specs = vec![modules::atom(&repository)?];
    for version in &versions {
        specs.push(modules::payload(&repository, version)?);
    }
    kbuild::build(&specs, sysroot, kbuild::Mode::Build)?;
    let _turn = crate::lock::take(&places::target().join("package.lock"), "makes packages")?;
    let contents = content::gather(sysroot, &versions, request.signing.as_ref(), request.format)?;
    let mut made = Vec::new();
    for content in &contents {
        made.extend(match request.format {
            Format::Rpm => rpm::make(sysroot, content, request)?,
            Format::Deb => deb::make(sysroot, content, request)?,
        });
    }
    Ok(made)
}

/// The versions that were asked for, or else all that are not for tests.
fn choose(known: &[Version], wanted: &[String]) -> Result<Vec<Version>> {
    if wanted.is_empty() {
        return Ok(known.iter().filter(|version| !version.test).cloned().collect());
    }
    let find = |name: &String| {
        let releases = || {
            let names: Vec<&str> =
                known.iter().filter(|v| !v.test).map(|v| v.name.as_str()).collect();
            names.join(", ")
        };
        let found = known.iter().find(|version| version.name == *name).ok_or_else(|| {
            refused(
                format!("there is no payload {name}"),
                "payload/versions.toml does not list it",
                format!("choose among {}, or a variant for tests that it lists", releases()),
            )
        })?;
        if !name.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(refused(
                format!("payload {name} cannot be packed"),
                "the version of a package begins with a digit",
                "choose another version",
            ));
        }
        Ok(found.clone())
    };
    wanted.iter().map(find).collect()
}

fn check_release(release: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || ".+~_".contains(c);
    if release.starts_with(|c: char| c.is_ascii_digit()) && release.chars().all(fits) {
        return Ok(());
    }
    Err(refused(
        format!("{release:?} cannot be the release of a package"),
        "it begins with a digit and goes on with letters, digits, dots, pluses, tildes and underscores",
        "use a number, as in --version-release 2",
    ))
}

/// A payload's version as package managers write it: they keep `-` for themselves, and sort what follows a `~` before the version
/// without it.
fn packaged(version: &str) -> String {
    version.replace('-', "~")
}

/// The size of a package that was made, for the table.
fn size(file: &Path) -> Result<u64> {
    let facts =
        std::fs::metadata(file).with_context(|| format!("{} was not made", file.display()))?;
    Ok(facts.len())
}

/// A package with its content, for both formats.
impl Content {
    /// Its version with the package's own number.
    fn full_version(&self, request: &Request) -> String {
        format!("{}-{}", self.version, request.release)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(name: &str, test: bool) -> Version {
        Version {
            name: name.to_owned(),
            object: format!("payload_{name}"),
            source: None,
            cfgs: Vec::new(),
            test,
            failpoints: false,
        }
    }

    #[test]
    fn without_a_word_all_releases_are_packed_and_test_variants_only_by_name() {
        let known =
            [version("1.0.0", false), version("9.0.0-stuck", true), version("template-1", true)];
        let names = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            choose(&known, &wanted)
                .map(|found| found.into_iter().map(|version| version.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), ["1.0.0"]);
        assert_eq!(names(&["9.0.0-stuck", "1.0.0"]).unwrap(), ["9.0.0-stuck", "1.0.0"]);
        let unknown = names(&["3.0.0"]).unwrap_err();
        assert!(unknown.to_string().contains("among 1.0.0, or"), "{unknown}");
        assert_eq!(crate::problem::exit_code(&unknown), 3);
        assert!(names(&["template-1"]).unwrap_err().to_string().contains("digit"));
    }

    #[test]
    fn a_release_that_package_managers_do_not_take_is_refused() {
        for fits in ["1", "2.el9", "1.7.2.12+deb13_cloud_amd64"] {
            assert!(check_release(fits).is_ok(), "{fits}");
        }
        for not in ["", "rc", "1-2", "1 2", "1/2"] {
            assert!(check_release(not).is_err(), "{not}");
        }
    }

    #[test]
    fn a_suffix_of_a_version_sorts_before_the_version_itself() {
        assert_eq!(packaged("9.0.0-abi-0"), "9.0.0~abi~0");
    }
}
