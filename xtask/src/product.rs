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
    files.extend(kbuild::build(&modules::all()?, sysroot, Mode::Build)?);
    Ok(files)
}

/// Builds all of it and returns what a guest boots from with it.
pub fn guest(sysroot: &Sysroot) -> Result<Initramfs> {
    build(sysroot)?;
    Initramfs::assemble(sysroot)
}

/// The modules that a guest for people loads at boot: Atom and the first payload that is not for tests.
pub fn first_modules() -> Result<Vec<String>> {
    let mut objects = Vec::new();
    if kbuild::loadable(modules::ATOM).exists() {
        objects.push(modules::ATOM.to_owned());
        let versions = modules::payload_versions()?;
        objects.extend(versions.into_iter().find(|v| !v.test).map(|v| v.object));
    }
    Ok(objects.iter().map(|object| format!("/lib/atom/{object}.ko")).collect())
}
