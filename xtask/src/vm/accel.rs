// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Whether KVM works here, found out by starting a guest: the device can exist and still not run an ordinary kernel.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::places;
use crate::sysroot::Sysroot;

/// A guest that shows the first lines of its kernel within this time runs well.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// What runs the guest's instructions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accel {
    /// Whether KVM does; otherwise QEMU translates them.
    pub kvm: bool,
    /// Why.
    pub why: String,
}

impl Accel {
    /// QEMU's options for it.
    pub fn options(&self) -> [&'static str; 4] {
        if self.kvm {
            ["-accel", "kvm", "-cpu", "host"]
        } else {
            ["-accel", "tcg,thread=multi", "-cpu", EMULATED]
        }
    }
}

/// The emulated processor: all that QEMU can, but for the fast string instructions. With them the kernel copies and fills memory byte
/// by byte, which is fast on a processor that has them and the slowest way for one that is emulated: where code lay, a
/// module's memory that is freed, a byte takes a quarter of a microsecond, and no interrupt comes meanwhile.
const EMULATED: &str = "max,-erms,-fsrm,-fzrm,-fsrs,-fsrc";

/// QEMU's options for a clock that counts instructions. While all processors are idle it skips to the next timer.
pub const COUNTED: [&str; 6] =
    ["-accel", "tcg,thread=single", "-cpu", EMULATED, "-icount", "shift=0,sleep=off"];

/// The answer that was found since this machine booted.
#[derive(Serialize, Deserialize)]
struct Remembered {
    boot: String,
    accel: Accel,
}

/// Finds out what to use; the guest that tells is started once for each boot of this machine.
pub fn find(sysroot: &Sysroot) -> Result<Accel> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .context("cannot read this machine's boot id")?;
    let memory = places::cache()?.join("accel.json");
    let remembered = std::fs::read(&memory)
        .ok()
        .and_then(|text| serde_json::from_slice::<Remembered>(&text).ok())
        .filter(|remembered| remembered.boot == boot);
    if let Some(remembered) = remembered {
        return Ok(remembered.accel);
    }
    let accel = probe(sysroot)?;
    eprintln!(
        "virtual machines run with {} ({})",
        if accel.kvm { "KVM" } else { "QEMU's translation, TCG" },
        accel.why
    );
    let remembered = Remembered { boot, accel };
    places::write_whole(&memory, &serde_json::to_vec_pretty(&remembered)?)?;
    Ok(remembered.accel)
}

fn probe(sysroot: &Sysroot) -> Result<Accel> {
    let no = |why: &str| Accel { kvm: false, why: why.to_owned() };
    if !Path::new("/dev/kvm").exists() {
        return Ok(no("there is no /dev/kvm"));
    }
    let dir = places::target().join("vm/kvm-probe");
    std::fs::create_dir_all(&dir)?;
    let console = dir.join("console.log");
    std::fs::write(&console, "")?;
    let log = std::fs::File::create(dir.join("qemu.log"))?;
    let command = sysroot
        .chroot()
        .bind(&dir, "vm")
        .command("qemu-system-x86_64")
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .args(["-accel", "kvm", "-cpu", "host", "-m", "256", "-smp", "2"])
        .args(["-kernel", &sysroot.vmlinuz(), "-append", "console=ttyS0 panic=-1"])
        .args(["-serial", "file:/mnt/vm/console.log"]);
    let mut child = command
        .command()
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start QEMU: {command}"))?;
    let deadline = Instant::now() + PROBE_LIMIT;
    let boots = || {
        let text = std::fs::read(&console).unwrap_or_default();
        // Without an initramfs a kernel that works gets as far as this panic.
        String::from_utf8_lossy(&text).contains("Unable to mount root fs")
    };
    let accel = loop {
        if boots() {
            break Accel { kvm: true, why: "a guest booted with it".to_owned() };
        }
        let log = std::fs::read_to_string(dir.join("qemu.log")).unwrap_or_default();
        if let Some(line) = log.lines().find(|line| !line.trim().is_empty()) {
            break no(&format!("with KVM, QEMU says: {line}"));
        }
        if child.try_wait()?.is_some() && !boots() {
            break no("with KVM, the guest ended at once");
        }
        if Instant::now() > deadline {
            break no("with KVM, a guest did not boot in time");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    // It may have ended by itself.
    let _ = child.kill();
    child.wait()?;
    Ok(accel)
}
