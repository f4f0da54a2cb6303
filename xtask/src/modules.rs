// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The kernel modules of this clone: Atom, and each version of the payload.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::kbuild::{self, Bindings, ModuleSpec, SourceDir};
use crate::places;
use crate::sysroot::Sysroot;

/// Atom's Kbuild object.
pub const ATOM: &str = "atom";

/// The Kbuild object of the module that is broken on purpose.
pub const BROKEN: &str = "broken";

/// The Kbuild object of the client in one module, and that of a live patch of it.
pub const SINGLE: &str = "single";
pub const PATCH: &str = "single_patch";

/// A version of the payload, as `payload/versions.toml` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// Its number, for people.
    pub name: String,
    /// Its Kbuild object, and so the name of the loaded module.
    pub object: String,
    /// Its folder in `payload/`; the crate's root in it has the folder's name. None: the payload of this clone.
    pub source: Option<String>,
    /// The conditions that it is compiled with.
    #[serde(default)]
    pub cfgs: Vec<String>,
    /// Whether it exists for tests alone.
    #[serde(default)]
    pub test: bool,
    /// Whether it is also built with failpoints.
    #[serde(default)]
    pub failpoints: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Versions {
    #[serde(default)]
    version: Vec<Version>,
}

/// The payload's versions, in the order of the file; none while there is no payload.
pub fn payload_versions() -> Result<Vec<Version>> {
    let path = places::repository().join("payload/versions.toml");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} is not as it must be", path.display()))
}

fn parse(text: &str) -> Result<Vec<Version>> {
    let versions: Versions = toml::from_str(text)?;
    Ok(versions.version)
}

/// What Atom is built from.
pub fn atom(repository: &Path) -> Result<ModuleSpec> {
    Ok(ModuleSpec {
        object: ATOM.to_owned(),
        root: "atom_main.rs".to_owned(),
        c_files: c_files(&repository.join("atom"))?,
        sources: sources(repository, "atom"),
        ..ModuleSpec::default()
    })
}

/// The condition of a payload with targets on a network.
const CLIENT: &str = "payload_client";

/// What such a payload needs of the network that the `kernel` crate does not bind.
fn network() -> Bindings {
    let functions = [
        "sk_set_memalloc",
        "sock_no_linger",
        "sock_set_keepalive",
        "tcp_sock_set_keepcnt",
        "tcp_sock_set_keepidle",
        "tcp_sock_set_keepintvl",
        "tcp_sock_set_nodelay",
        "tcp_sock_set_user_timeout",
    ];
    Bindings { header: "nbd/socket.h".to_owned(), functions: functions.map(str::to_owned).to_vec() }
}

/// What a version of the payload is built from.
pub fn payload(repository: &Path, version: &Version) -> Result<ModuleSpec> {
    let (folder, root) = match &version.source {
        None => ("payload/src".to_owned(), "payload_main.rs".to_owned()),
        Some(source) => (format!("payload/{source}"), format!("{source}.rs")),
    };
    Ok(ModuleSpec {
        object: version.object.clone(),
        root,
        c_files: c_files(&repository.join(&folder))?,
        sources: sources(repository, &folder),
        cfgs: version.cfgs.clone(),
        bindings: version.cfgs.iter().filter(|cfg| *cfg == CLIENT).map(|_| network()).collect(),
        env: vec![("PAYLOAD_VERSION".to_owned(), version.name.clone())],
        needs: vec![ATOM.to_owned()],
        ..ModuleSpec::default()
    })
}

/// The flavour of the modules that have failpoints.
pub const FAILPOINTS: &str = "failpoints";

/// The same module with failpoints.
fn with_failpoints(spec: ModuleSpec) -> ModuleSpec {
    let mut spec = ModuleSpec { flavour: FAILPOINTS.to_owned(), ..spec };
    spec.cfgs.push(FAILPOINTS.to_owned());
    spec.env.push(("FAILPOINTS_OF".to_owned(), spec.object.clone()));
    spec
}

/// The files of the modules with failpoints, as far as they were built.
pub fn failpoint_files(sysroot: &Sysroot) -> Result<Vec<PathBuf>> {
    let versions = payload_versions()?.into_iter().filter(|version| version.failpoints);
    let objects = std::iter::once(ATOM.to_owned()).chain(versions.map(|version| version.object));
    let files = objects.map(|object| kbuild::loadable_of(sysroot, FAILPOINTS, &object));
    Ok(files.filter(|file| file.exists()).collect())
}

/// The module that is broken on purpose, for tests of what a debug kernel detects.
pub fn broken(repository: &Path) -> ModuleSpec {
    let from = repository.join("tests/modules").join(BROKEN);
    ModuleSpec {
        object: BROKEN.to_owned(),
        root: format!("{BROKEN}_main.rs"),
        sources: vec![SourceDir { from, to: String::new() }],
        ..ModuleSpec::default()
    }
}

/// The client in one module without Atom, which the benchmark measures the split against, and a live patch of it.
fn peers(repository: &Path) -> [ModuleSpec; 2] {
    let own = |folder: &str| SourceDir {
        from: repository.join("tests/modules").join(folder),
        to: String::new(),
    };
    let below =
        |folder: &str, to: &str| SourceDir { from: repository.join(folder), to: to.to_owned() };
    let single = ModuleSpec {
        object: SINGLE.to_owned(),
        root: format!("{SINGLE}_main.rs"),
        c_files: vec!["traced.c".to_owned()],
        sources: vec![own(SINGLE), below("payload/src", "payload"), below("abi/src", "abi")],
        // As the newest payload has them; without targets, which are not measured with it.
        cfgs: vec!["payload_schema=\"5\"".to_owned()],
        ..ModuleSpec::default()
    };
    let patch = ModuleSpec {
        object: PATCH.to_owned(),
        root: "patch.c".to_owned(),
        sources: vec![own("patch")],
        needs: vec![SINGLE.to_owned()],
        ..ModuleSpec::default()
    };
    [single, patch]
}

/// The modules of the clone for a kernel: Atom and the payloads; for a debug kernel what its detectors are tested with, and for a stock
/// one what the benchmark needs.
pub fn of(sysroot: &Sysroot) -> Result<Vec<ModuleSpec>> {
    let mut specs = all()?;
    if specs.is_empty() {
        return Ok(specs);
    }
    match sysroot.flavour() {
        Some(_) => specs.push(broken(&places::repository())),
        None => specs.extend(peers(&places::repository())),
    }
    Ok(specs)
}

/// Every module of the clone that is for the stock kernel.
fn all() -> Result<Vec<ModuleSpec>> {
    let repository = places::repository();
    if !repository.join("atom/atom_main.rs").exists() {
        eprintln!("note: there is no atom/atom_main.rs, so no kernel module is built");
        return Ok(Vec::new());
    }
    let mut specs = vec![atom(&repository)?];
    specs.push(with_failpoints(specs[0].clone()));
    for version in payload_versions()? {
        let spec = payload(&repository, &version)?;
        if version.failpoints {
            specs.push(with_failpoints(spec.clone()));
        }
        specs.push(spec);
    }
    Ok(specs)
}

/// The C files of a folder, which are linked into its module.
fn c_files(dir: &Path) -> Result<Vec<String>> {
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut files: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".c"))
        .collect();
    files.sort();
    Ok(files)
}

fn sources(repository: &Path, own: &str) -> Vec<SourceDir> {
    vec![
        SourceDir { from: repository.join(own), to: String::new() },
        SourceDir { from: repository.join("abi/src"), to: "abi".to_owned() },
        SourceDir { from: repository.join("tests/failpoint/src"), to: "failpoint".to_owned() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_with_a_source_of_its_own_is_built_from_that_folder() {
        let version = |source: Option<&str>| Version {
            name: "1".to_owned(),
            object: "x".to_owned(),
            source: source.map(str::to_owned),
            cfgs: Vec::new(),
            test: true,
            failpoints: false,
        };
        let repository = places::repository();
        let own = payload(&repository, &version(None)).unwrap();
        assert_eq!(own.root, "payload_main.rs");
        assert_eq!(own.sources[0].from, repository.join("payload/src"));
        let template = payload(&repository, &version(Some("template"))).unwrap();
        assert_eq!(template.root, "template.rs");
        assert_eq!(template.sources[0].from, repository.join("payload/template"));
        assert!(template.sources[0].from.join(&template.root).exists());
        assert_eq!(template.sources[1], own.sources[1]);
    }

    #[test]
    fn the_versions_file_lists_conditions_and_test_variants() {
        let versions = parse(
            "[[version]]\nname = \"1.0.0\"\nobject = \"payload_1_0_0\"\ncfgs = [\"payload_schema=\\\"1\\\"\"]\n\
             [[version]]\nname = \"1.1.0-bad\"\nobject = \"payload_bad\"\ntest = true\n",
        )
        .unwrap();
        assert_eq!(versions[0].cfgs, ["payload_schema=\"1\""]);
        assert!(!versions[0].test && versions[1].test);
        assert_eq!(versions[0].source, None);
        assert!(parse("[[version]]\nname = \"1\"\nobject = \"x\"\nfoo = 1\n").is_err());
    }
}
