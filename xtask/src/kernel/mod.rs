// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The target kernel: which one, and what modules for it are built with.
//!
//! - [`offer`] asks the archive which kernels it has;
//! - [`choose`] picks one of them, as a pure function;
//! - [`prepare`] makes the Rust metadata that the headers packages leave out;
//! - [`symbols`] proves that modules built with that metadata fit the stock kernel;
//! - [`flavour`] names the debug kernels, and [`checked`] builds one.

pub mod checked;
pub mod choose;
pub mod flavour;
pub mod offer;
pub mod prepare;
pub mod symbols;

use serde::{Deserialize, Serialize};

/// A stock kernel of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// What `uname -r` says when it runs.
    pub release: String,
    /// The version that its image, headers and source packages have in common.
    pub version: String,
    /// The package with its source.
    pub source: String,
}

impl Kernel {
    /// The first two numbers of the release, as in `7.2`.
    pub fn series(&self) -> &str {
        self.source.trim_start_matches("linux-source-")
    }
}
