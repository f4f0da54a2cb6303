// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `cargo xtask bench`: ours beside its peers, in a guest with the stock kernel.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `against.rs` | the modules of an earlier commit |
//! | `kublk.rs` | a peer that is built from the kernel's source |
//! | `table.rs` | what was measured, as a table |
//! | `targets.rs` | what is wanted, beside it |
//! | `page.rs` | all of it, drawn |

mod against;
mod growth;
mod kublk;
pub mod page;
pub mod table;
pub mod targets;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use atom_tests::bench::against::BEFORE;
use atom_tests::bench::{Document, How, Suite};
use atom_tests::kernel_log;
use atom_tests::scenarios::Tools;

use crate::problem::failed;
use crate::product;
use crate::sysroot::Sysroot;
use crate::vm::link::Stream;
use crate::vm::{Vm, VmConfig};

/// How long the whole run may take in the guest.
const LIMIT: Duration = Duration::from_secs(3 * 3600);
const MEMORY_MIB: u32 = 3072;
const DISKS_MIB: [u64; 2] = [256, 256];

/// Measures a suite, and says how far it is on standard error.
pub fn measure(sysroot: &Sysroot, suite: Suite, how: How, only: &str) -> Result<Document> {
    let mut files = Vec::new();
    if matches!(suite, Suite::Pause | Suite::Path) {
        files.push((kublk::program(sysroot)?, "/usr/bin/kublk".to_owned()));
    }
    in_guest(sysroot, suite, how, only, &files)
}

/// Measures this tree beside an earlier commit.
pub fn measure_against(sysroot: &Sysroot, revision: &str, how: How) -> Result<Document> {
    let mut files = Vec::new();
    for module in against::modules(revision)? {
        let name = module.file_name().map(|name| name.to_string_lossy().into_owned());
        let place = format!("{BEFORE}/{}", name.unwrap_or_default());
        files.push((module, place));
    }
    in_guest(sysroot, Suite::Against, how, "", &files)
}

/// `files` are put into the guest before, by their paths there.
fn in_guest(
    sysroot: &Sysroot,
    suite: Suite,
    how: How,
    only: &str,
    files: &[(PathBuf, String)],
) -> Result<Document> {
    let initramfs = product::guest(sysroot)?;
    let config = VmConfig {
        memory_mib: MEMORY_MIB,
        disks_mib: DISKS_MIB.to_vec(),
        tools: Tools::Large,
        counted: how == How::Counted,
        ..VmConfig::named(&format!("bench-{}", suite.name()))
    };
    let vm = Vm::boot(sysroot, &initramfs, &config)?;
    for (file, place) in files {
        let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
        vm.put(place, 0o755, &bytes)?;
    }
    let mut text = String::new();
    let argv = ["/init", "bench", suite.name(), how.name(), only];
    let code = vm.exec(&argv, LIMIT, |stream, line| match stream {
        Stream::Stdout => text = line.to_owned(),
        Stream::Stderr => eprintln!("  {}", line.strip_prefix("step: ").unwrap_or(line)),
    })?;
    let log = vm.kernel_log()?;
    let log_file = vm.dir().join("kernel.log");
    std::fs::write(&log_file, &log)?;
    let findings = kernel_log::scan(&log, &[] as &[&str]);
    vm.poweroff()?;
    if let Some(finding) = findings.first() {
        return Err(failed(
            "the guest's kernel complained",
            format!("{} ({})", finding.text, finding.meaning),
            format!("read line {} of {}", finding.line, log_file.display()),
        ));
    }
    anyhow::ensure!(code == 0, "the guest's program exited with {code}; what it said stands above");
    serde_json::from_str(&text).with_context(|| format!("this is no result: {text}"))
}
