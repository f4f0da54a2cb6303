// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The Debian releases whose stock kernels are targets.

use anyhow::Result;

use crate::problem::refused;

/// A Debian release that can be a target.
#[derive(Debug, PartialEq, Eq)]
pub struct Suite {
    /// Its name in the archive.
    pub name: &'static str,
    /// The suites that the sysroot may install from. A kernel comes from any of them; the compiler comes from the
    /// first, because that is the one its kernels are built with.
    pub sources: &'static [&'static str],
    /// The version of its own rustc, shown when a kernel turns out to be built with another.
    pub rustc: &'static str,
}

/// All targets; the first is the default.
pub const SUITES: &[Suite] = &[
    Suite { name: "trixie", sources: &["trixie", "trixie-backports"], rustc: "1.85.1" },
    Suite { name: "forky", sources: &["forky"], rustc: "1.97.1" },
];

impl Suite {
    /// Finds a suite by its name.
    pub fn named(name: &str) -> Result<&'static Suite> {
        SUITES.iter().find(|s| s.name == name).ok_or_else(|| {
            let known: Vec<_> = SUITES.iter().map(|s| s.name).collect();
            refused(
                format!("there is no target suite `{name}`"),
                "the build needs to know which archive suites carry its kernel and its compiler",
                format!("use one of: {}", known.join(", ")),
            )
        })
    }

    /// The lines of the sysroot's `sources.list`.
    pub fn source_lines(&self, archive: &str) -> Vec<String> {
        self.sources.iter().map(|suite| format!("deb {archive} {suite} main")).collect()
    }
}
