// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The staging folder: a copy of a module's sources in which files keep their times unless they change, so that
//! Kbuild compiles only what it must.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

use super::ModuleSpec;
use crate::fingerprint::Fingerprint;

/// The kinds of files that are removed when the clone has them no more. Everything else in the folder is Kbuild's.
const SOURCES: &[&str] = &["rs", "c", "h", "S"];

/// Brings the folder up to date and returns the fingerprint of everything in it.
pub fn stage(spec: &ModuleSpec, dir: &Path, kbuild: &str) -> Result<Fingerprint> {
    let mut files = BTreeMap::new();
    for source in &spec.sources {
        collect(&source.from, Path::new(&source.to), &mut files)?;
    }
    ensure!(
        files.contains_key(Path::new(&spec.root)),
        "{} is in none of its source folders",
        spec.root
    );
    let kbuild_path = dir.join("Kbuild");
    if std::fs::read_to_string(&kbuild_path).is_ok_and(|old| old != kbuild) {
        // Kbuild does not see every change of its own file, as in an exported variable.
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let made = spec.bindings.iter().map(|bindings| PathBuf::from(bindings.made())).collect();
    remove_stale(dir, dir, &files, &made)?;
    let mut state = Fingerprint::default();
    state.add(kbuild);
    for (to, from) in &files {
        let bytes =
            std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        state.add(to.as_os_str().as_encoded_bytes()).add(&bytes);
        write_if_changed(&dir.join(to), &bytes)?;
    }
    write_if_changed(&kbuild_path, kbuild.as_bytes())?;
    Ok(state)
}

fn collect(from: &Path, to: &Path, files: &mut BTreeMap<PathBuf, PathBuf>) -> Result<()> {
    let entries =
        std::fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &to, files)?;
        } else if is_source(&entry.path()) {
            files.insert(to, entry.path());
        }
    }
    Ok(())
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|e| SOURCES.iter().any(|s| e == *s))
}

fn remove_stale(
    dir: &Path,
    top: &Path,
    files: &BTreeMap<PathBuf, PathBuf>,
    made: &BTreeSet<PathBuf>,
) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_stale(&path, top, files, made)?;
            continue;
        }
        let name = path.strip_prefix(top)?;
        let generated = path.to_string_lossy().ends_with(".mod.c") || made.contains(name);
        let wanted = files.contains_key(name);
        if is_source(&path) && !generated && !wanted {
            std::fs::remove_file(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::SourceDir;
    use super::*;

    #[test]
    fn unchanged_files_keep_their_times_and_stale_ones_go() {
        let top = std::env::temp_dir().join(format!("atom-staging-{}", std::process::id()));
        let (from, to) = (top.join("from"), top.join("to"));
        std::fs::create_dir_all(&from).unwrap();
        std::fs::write(from.join("main.rs"), "1").unwrap();
        std::fs::write(from.join("old.rs"), "2").unwrap();
        let spec = ModuleSpec {
            root: "main.rs".into(),
            sources: vec![SourceDir { from: from.clone(), to: String::new() }],
            ..ModuleSpec::default()
        };
        let first = stage(&spec, &to, "k").unwrap().name();
        std::fs::write(to.join("x.mod.c"), "generated").unwrap();
        let time = |name: &str| to.join(name).metadata().unwrap().modified().unwrap();
        let before = time("main.rs");
        std::fs::remove_file(from.join("old.rs")).unwrap();
        let second = stage(&spec, &to, "k").unwrap().name();
        assert_ne!(first, second);
        assert_eq!(before, time("main.rs"));
        assert!(!to.join("old.rs").exists());
        assert!(to.join("x.mod.c").exists());
        std::fs::remove_dir_all(top).unwrap();
    }
}
