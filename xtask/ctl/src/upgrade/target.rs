// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What to upgrade to, as somebody names it.

use std::fmt;
use std::path::PathBuf;

use crate::module_file::{ModuleFile, Refused};
use crate::places::Places;

/// A payload that is not live yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The one in this file.
    File(PathBuf),
    /// The one of this version that is installed.
    Version(String),
}

impl Target {
    /// Whatever has a `/` in it or ends in `.ko` is a file, anything else a version.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("give a file or a version".to_owned()),
            file if file.contains('/') || file.ends_with(".ko") => Ok(Self::File(file.into())),
            version => Ok(Self::Version(version.to_owned())),
        }
    }

    /// Reads its file, whole.
    pub fn read(&self, places: &Places) -> Result<ModuleFile, Refused> {
        match self {
            Self::File(path) => ModuleFile::read(path),
            Self::Version(version) => places.read_version(version),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Version(version) => f.write_str(version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_from_a_version() {
        for file in ["a.ko", "./2.1.0", "/lib/x", "dir/payload"] {
            assert_eq!(Target::parse(file), Ok(Target::File(file.into())));
        }
        for version in ["2.1.0", "9.0.0-stuck"] {
            assert_eq!(Target::parse(version), Ok(Target::Version(version.to_owned())));
        }
        assert!(Target::parse("").is_err());
    }
}
