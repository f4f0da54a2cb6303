// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Where things are: the clone we were built from, its target folder, and the cache that all clones share.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the clone.
pub fn repository() -> PathBuf {
    // Cargo sets the variable for `cargo run` too, so that a clone that was moved after its build is still found.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    match manifest.parent() {
        Some(root) => root.to_owned(),
        None => manifest,
    }
}

/// The clone's target folder. Everything in it can be deleted at any time.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map(|dir| repository().join(dir))
        .unwrap_or_else(|| repository().join("target"))
}

/// The folder for sysroots and base images, which are named by their content and so can be shared by all clones.
pub fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")).context(
            "neither XDG_CACHE_HOME nor HOME is set, so there is no place for the cache",
        )?,
    };
    let cache = base.join("atom");
    std::fs::create_dir_all(&cache)
        .with_context(|| format!("cannot create {}", cache.display()))?;
    Ok(cache)
}

/// Writes a file so that a reader, or a run that is interrupted, never sees half of it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name =
        path.file_name().with_context(|| format!("{} names no file", path.display()))?.to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    std::fs::write(&part, bytes).with_context(|| format!("cannot write {}", part.display()))?;
    std::fs::rename(&part, path).with_context(|| format!("cannot create {}", path.display()))
}
