// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a machine said on its console: last, and of the clock of its processors.

use std::fmt;
use std::path::Path;

/// How many lines of the console an error repeats.
const CONSOLE_TAIL: usize = 40;

/// The end of what QEMU and the guest's console said, for errors.
pub fn last_words(dir: &Path) -> String {
    let tail = |file: &str, lines: usize| {
        let text = std::fs::read(dir.join(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n    ")
    };
    let qemu = tail("qemu.log", 5);
    let console = tail("console.log", CONSOLE_TAIL);
    let qemu = if qemu.is_empty() { qemu } else { format!("\n  QEMU said:\n    {qemu}") };
    format!("{qemu}\n  the console ended with:\n    {console}")
}

/// The kernel has measured the clock of an emulated processor's interrupts while the host let the emulation stand still, and
/// takes it for faster than it is: every timer of the guest comes late by this factor, those of a second within minutes.
#[derive(Debug)]
pub struct Mismeasured {
    /// What the kernel's other clock says of the 100 ms in which it measured.
    milliseconds: u32,
}

impl fmt::Display for Mismeasured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the guest's kernel has taken {} ms for 100 ms when it measured its clock, because the host did not let it run; all its timers would be late",
            self.milliseconds
        )
    }
}

impl std::error::Error for Mismeasured {}

/// An error when the kernel of the machine in `dir` has mismeasured the clock of its processors.
pub fn look_at_clock(dir: &Path) -> Result<(), Mismeasured> {
    let console = std::fs::read(dir.join("console.log")).unwrap_or_default();
    judge(&String::from_utf8_lossy(&console))
}

fn judge(console: &str) -> Result<(), Mismeasured> {
    match measured(console) {
        // What comes too early is armed again; and a busy host makes some milliseconds.
        Some(milliseconds) if milliseconds < 80 => Err(Mismeasured { milliseconds }),
        _ => Ok(()),
    }
}

/// How long its 100 ms were, if the kernel says that: `calibrate_by_pmtimer` in `arch/x86/kernel/apic/apic.c`.
fn measured(console: &str) -> Option<u32> {
    let (_, rest) = console.split_once("APIC calibration not consistent with PM-Timer: ")?;
    rest.split_once("ms instead of 100ms")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(line: &str) -> Result<(), Mismeasured> {
        judge(&format!("[    0.1] a line\n[    0.6] {line}\r\n[    0.7] another\n"))
    }

    #[test]
    fn a_clock_that_was_measured_while_the_host_held_it_up_is_noticed() {
        let error = look("APIC calibration not consistent with PM-Timer: 2ms instead of 100ms")
            .unwrap_err();
        assert!(error.to_string().contains("has taken 2 ms for 100 ms"), "{error}");
    }

    #[test]
    fn what_a_busy_host_makes_of_it_is_not_worth_another_boot() {
        for milliseconds in [95, 103, 240] {
            let line = format!(
                "APIC calibration not consistent with PM-Timer: {milliseconds}ms instead of 100ms"
            );
            look(&line).unwrap();
        }
        look("smpboot: CPU0").unwrap();
    }

    #[test]
    fn a_line_that_is_still_being_written_says_nothing_yet() {
        look("APIC calibration not consistent with PM-Timer: 2").unwrap();
    }
}
