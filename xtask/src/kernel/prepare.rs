// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The Rust metadata for a stock kernel.
//!
//! The headers packages carry the configuration and `Module.symvers`, and none of the files that a Rust module is
//! compiled against. The kernel's own build system makes them from the same source, configuration and compiler in
//! minutes, without building the kernel.

use anyhow::{Context, Result};

use crate::problem::failed;
use crate::progress::Step;
use crate::sysroot::Sysroot;

fn config(sysroot: &Sysroot) -> Result<String> {
    let path = sysroot.outside(&format!("{}/.config", sysroot.kernel_headers()));
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Makes sure that the kernel can load Rust modules at all.
pub fn check_config(sysroot: &Sysroot) -> Result<()> {
    if config(sysroot)?.lines().any(|line| line == "CONFIG_RUST=y") {
        return Ok(());
    }
    Err(failed(
        format!("{} cannot run Rust modules", sysroot.kernel().release),
        "its configuration lacks CONFIG_RUST=y",
        "choose another kernel with --kernel or --suite",
    ))
}

/// Makes sure that the sysroot's compiler is the kernel's: another one mangles the same names to other symbols.
pub fn check_compiler(sysroot: &Sysroot) -> Result<()> {
    let config = config(sysroot)?;
    let theirs = value(&config, "CONFIG_RUSTC_VERSION_TEXT").unwrap_or("unknown");
    let ours = sysroot.chroot().command("rustc").arg("--version").read()?;
    if theirs == ours.trim() {
        return Ok(());
    }
    Err(failed(
        format!(
            "the compiler of {} is not the one that {} was built with",
            sysroot.suite().name,
            sysroot.kernel().release
        ),
        format!(
            "the kernel was built with `{theirs}`, and the sysroot has `{}` (expected {}): the symbols of another \
             rustc have other names, and modules built with it would not load",
            ours.trim(),
            sysroot.suite().rustc
        ),
        "choose another kernel with --kernel, or wait until the archive's compiler and kernel agree again",
    ))
}

fn value<'a>(config: &'a str, name: &str) -> Option<&'a str> {
    config
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .map(|value| value.trim_matches('"'))
}

/// Unpacks the kernel's source.
pub fn unpack(sysroot: &Sysroot, step: &Step) -> Result<()> {
    let source = sysroot.kernel_source();
    step.run(
        &sysroot.chroot().shell(&format!("cd /usr/src; rm -rf {source}; tar xf {source}.tar.xz")),
    )
}

/// Makes the folder that modules are built against.
pub fn prepare(sysroot: &Sysroot, step: &Step) -> Result<()> {
    let source = sysroot.kernel_source();
    let build = sysroot.kernel_build();
    let headers = sysroot.kernel_headers();
    let release = &sysroot.kernel().release;
    let jobs = std::thread::available_parallelism()?;
    let chroot = sysroot.chroot();
    step.run(&chroot.shell(&format!(
        "rm -rf {build}; mkdir {build}; cp {headers}/.config {build}/.config; rm -f {source}.tar.xz"
    )))?;
    let make = |goals: &[&str]| {
        chroot
            .command("make")
            .args(["-C", &source, &format!("O={build}"), &format!("-j{jobs}")])
            .arg(format!("KERNELRELEASE={release}"))
            .args(goals)
    };
    step.run(&make(&["olddefconfig"]))?;
    step.run(&make(&["prepare", "modules_prepare"]))?;
    step.run(&chroot.shell(&format!(
        "cp {headers}/Module.symvers {build}/; grep -qx CONFIG_RUST=y {build}/.config"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_value_is_read_from_a_configuration() {
        let config =
            "CONFIG_RUSTC_VERSION=108501\nCONFIG_RUSTC_VERSION_TEXT=\"rustc 1.85.1 (x)\"\n";
        assert_eq!(value(config, "CONFIG_RUSTC_VERSION_TEXT"), Some("rustc 1.85.1 (x)"));
        assert_eq!(value(config, "CONFIG_NONE"), None);
    }
}
