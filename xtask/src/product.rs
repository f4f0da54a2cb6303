// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Everything that this clone produces: the kernel modules and the programs.

use std::path::PathBuf;

use anyhow::Result;

use crate::kbuild::{self, Mode};
use crate::sysroot::Sysroot;
use crate::vm::initramfs::Initramfs;
use crate::{modules, programs};

/// Builds all of it and returns the files.
pub fn build(sysroot: &Sysroot) -> Result<Vec<PathBuf>> {
    let mut files = programs::build()?;
    files.extend(kbuild::build(&modules::of(sysroot)?, sysroot, Mode::Build)?);
    Ok(files)
}

/// Builds all of it and returns what a guest boots from with it.
pub fn guest(sysroot: &Sysroot) -> Result<Initramfs> {
    build(sysroot)?;
    Initramfs::assemble(sysroot)
}

/// The version of the payload that a guest for people begins with: the first that is not for tests.
pub fn first_version() -> Result<Option<String>> {
    Ok(modules::payload_versions()?.into_iter().find(|v| !v.test).map(|v| v.name))
}
