// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Stamps: a stage that was done is not done again, and one that was interrupted is done again from its start.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::places;
use crate::progress::Step;

/// The stamps and logs of one sysroot.
pub struct Stages {
    dir: PathBuf,
}

impl Stages {
    /// The stages of the sysroot in `dir`.
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn stamp(&self, name: &str) -> PathBuf {
        self.dir.join("stamps").join(name)
    }

    /// Where a stage's commands write their output.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    /// Whether a stage was done.
    pub fn is_done(&self, name: &str) -> bool {
        self.stamp(name).exists()
    }

    /// Does a stage unless its stamp is there.
    pub fn run(
        &self,
        name: &str,
        title: &str,
        body: impl FnOnce(&Step) -> Result<()>,
    ) -> Result<()> {
        if self.is_done(name) {
            return Ok(());
        }
        let step = Step::start(title, &self.log(name))?;
        body(&step)?;
        places::write_whole(&self.stamp(name), b"")?;
        step.done();
        Ok(())
    }
}
