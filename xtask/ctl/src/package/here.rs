// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a transaction of a package manager finds where it runs.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;

use super::decision::{Off, System};
use crate::configuration::Configuration;

/// The variable that switches hot upgrades off for one transaction.
pub const VARIABLE: &str = "ATOM_PACKAGE_UPGRADE";
/// The kernel argument that switches them off until the next boot.
const ARGUMENT: &str = "atom_hot_upgrade";
/// Set by those who build images: nothing runs where the packages go.
const OFFLINE: &str = "SYSTEMD_OFFLINE";

/// What the transaction works on.
pub fn system() -> System {
    if env::var(OFFLINE).is_ok_and(|value| is_on(&value)) {
        return System::Offline;
    }
    // Without /proc there is nothing to compare with, and no running system has none.
    let identity = |path| fs::metadata(path).map(|facts| (facts.dev(), facts.ino())).ok();
    match (identity("/"), identity("/proc/1/root/.")) {
        (Some(own), Some(first)) if own == first => System::Running,
        _ => System::Chroot,
    }
}

/// Whether hot upgrades by packages are switched off, and the configuration where they are not.
pub fn switched() -> std::result::Result<Configuration, Off> {
    if env::var(VARIABLE).is_ok_and(|value| is_off(&value)) {
        return Err(Off::Environment);
    }
    if is_off_by(&fs::read_to_string("/proc/cmdline").unwrap_or_default()) {
        return Err(Off::KernelArgument);
    }
    match Configuration::read() {
        Ok(configuration) if configuration.hot_upgrade => Ok(configuration),
        Ok(_) => Err(Off::Configuration),
        Err(problem) => Err(Off::Unreadable(problem.in_one_line())),
    }
}

/// Whether a kernel command line says so. The last word about it counts.
fn is_off_by(command_line: &str) -> bool {
    command_line
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .rfind(|(name, _)| *name == ARGUMENT)
        .is_some_and(|(_, value)| is_off(value))
}

fn is_off(value: &str) -> bool {
    ["off", "no", "false", "0"].contains(&value.to_ascii_lowercase().as_str())
}

fn is_on(value: &str) -> bool {
    ["on", "yes", "true", "1"].contains(&value.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_the_kernels_command_line_counts() {
        assert!(is_off_by("root=/dev/vda1 atom_hot_upgrade=off quiet"));
        assert!(is_off_by("atom_hot_upgrade=on atom_hot_upgrade=0"));
        assert!(!is_off_by("atom_hot_upgrade=off atom_hot_upgrade=on"));
        assert!(!is_off_by("xatom_hot_upgrade=off atom_hot_upgrade"));
        assert!(!is_off_by(""));
    }
}
