// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The packages that scenarios install: of this clone, in both formats, with variants of the payload that fail, and some in
//! a second build, so that everything can be replaced at once.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use atom_tests::packaged::SECOND_BUILD;

use crate::fingerprint::Fingerprint;
use crate::package::{self, Format, Request};
use crate::sysroot::Sysroot;
use crate::{kbuild, lock, modules, places, programs};

/// What says which packages are there.
const STAMP: &str = "stamp";

/// What is made: the format, the build, the payloads.
const SETS: &[(Format, &str, &[&str])] = &[
    (Format::Rpm, "1", &["1.1.0", "2.0.0", "2.1.0", "9.0.0-abi", "9.0.0-adopt", "9.0.0-stuck"]),
    (Format::Rpm, SECOND_BUILD, &["2.1.0"]),
    (Format::Deb, "1", &["2.0.0", "2.1.0"]),
    (Format::Deb, SECOND_BUILD, &["2.1.0"]),
];

/// The folder with all of them; they are made anew when anything in them has changed. The modules have to be built.
pub fn for_scenarios(sysroot: &Sysroot) -> Result<PathBuf> {
    let dir = super::folder()?.join("packages");
    let _turn = lock::take(&super::folder()?.join("packages.lock"), "makes packages")?;
    let name = content(sysroot)?;
    let stamp = dir.with_extension(STAMP);
    if dir.exists() && std::fs::read_to_string(&stamp).is_ok_and(|there| there == name) {
        return Ok(dir);
    }
    let _ = std::fs::remove_file(&stamp);
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    for (format, release, payloads) in SETS {
        package::make(
            sysroot,
            &Request {
                format: *format,
                payloads: payloads.iter().map(|name| (*name).to_owned()).collect(),
                out: dir.clone(),
                signing: None,
                release: (*release).to_owned(),
            },
        )?;
    }
    places::write_whole(&stamp, name.as_bytes())?;
    Ok(dir)
}

/// A name for all that goes into the packages.
fn content(sysroot: &Sysroot) -> Result<String> {
    let mut key = Fingerprint::default();
    key.add(sysroot.name());
    let mut add = |path: &Path| -> Result<()> {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        key.add(bytes);
        Ok(())
    };
    add(&programs::path("atomctl"))?;
    add(&kbuild::loadable(sysroot, modules::ATOM))?;
    let wanted: Vec<&str> = SETS.iter().flat_map(|(_, _, payloads)| *payloads).copied().collect();
    for version in modules::payload_versions()? {
        if wanted.contains(&version.name.as_str()) {
            add(&kbuild::loadable(sysroot, &version.object))?;
        }
    }
    // How packages are made, as well as what is in them.
    for folder in ["packaging", "xtask/src/package"] {
        for file in files(&places::repository().join(folder))? {
            add(&file)?;
        }
    }
    for (format, release, payloads) in SETS {
        key.add(format!("{format:?} {release} {payloads:?}"));
    }
    Ok(key.name())
}

/// All files below a folder, in order.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
