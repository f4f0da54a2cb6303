// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a machine said on its console: last, and of the clock of its processors.

use std::fmt;
use std::path::Path;

/// The file in a machine's folder.
pub const FILE: &str = "console.log";
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
    let console = tail(FILE, CONSOLE_TAIL);
    let qemu = if qemu.is_empty() { qemu } else { format!("\n  QEMU said:\n    {qemu}") };
    format!("{qemu}\n  the console ended with:\n    {console}")
}

/// What emulation did to a kernel before any code of ours was in it.
#[derive(Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The kernel has measured the clock of a processor's interrupts while the host let the emulation stand still, and takes it for
    /// faster than it is: every timer of the guest comes late by this factor, those of a second within minutes.
    Mismeasured {
        /// What the kernel's other clock says of the 100 ms in which it measured.
        milliseconds: u32,
    },
    /// A processor has met the breakpoint with which the kernel replaces an instruction, after it had been replaced everywhere: the
    /// emulation has run a translation that was out of date. QEMU lets go of a page's translations before the byte is stored
    /// (`notdirty_write` in `accel/tcg/cputlb.c`), so one that another processor makes between the two has the breakpoint for ever. It
    /// takes a host that stops the emulation just there. It has the line of the kernel's that names the instruction.
    Outdated(String),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismeasured { milliseconds } => write!(
                f,
                "the guest's kernel has taken {milliseconds} ms for 100 ms when it measured its clock, because the host did not let it run; all its timers would be late"
            ),
            Self::Outdated(place) => write!(
                f,
                "the emulation has run an instruction that the guest's kernel had replaced already ({place}), before any module was loaded"
            ),
        }
    }
}

impl std::error::Error for Unfit {}

/// An error when emulation has spoiled the kernel of the machine in `dir`.
pub fn look_at_boot(dir: &Path) -> Result<(), Unfit> {
    let console = std::fs::read(dir.join(FILE)).unwrap_or_default();
    judge(&String::from_utf8_lossy(&console))
}

fn judge(console: &str) -> Result<(), Unfit> {
    if let Some(place) = outdated(console) {
        return Err(Unfit::Outdated(place));
    }
    match measured(console) {
        // What comes too early is armed again; and a busy host makes some milliseconds.
        Some(milliseconds) if milliseconds < 80 => Err(Unfit::Mismeasured { milliseconds }),
        _ => Ok(()),
    }
}

/// Where a kernel without modules has died of a breakpoint that is not there any more: `exc_int3` in `arch/x86/kernel/traps.c`. A
/// breakpoint that is still there is one that somebody has set.
fn outdated(console: &str) -> Option<String> {
    let (_, oops) = console.split_once("Oops: int3:")?;
    let line = |begin: &str| oops.lines().find_map(|line| Some(line.split_once(begin)?.1.trim()));
    // A breakpoint is one byte, and what is marked is what follows it.
    let is_gone = !line("Code: ")?.split_once('<')?.0.trim_end().ends_with(" cc");
    (is_gone && line("Modules linked in:")?.is_empty()).then(|| line("RIP: ").map(str::to_owned))?
}

/// How long its 100 ms were, if the kernel says that: `calibrate_by_pmtimer` in `arch/x86/kernel/apic/apic.c`.
fn measured(console: &str) -> Option<u32> {
    let (_, rest) = console.split_once("APIC calibration not consistent with PM-Timer: ")?;
    rest.split_once("ms instead of 100ms")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(line: &str) -> Result<(), Unfit> {
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

    /// As a kernel of the 7.2 series has said it.
    const DIED: &str = "\
[    1.248153] Oops: int3: 0000 [#1] SMP NOPTI
[    1.249248] RIP: 0010:enqueue_task_fair+0xc48/0xe80
[    1.249660] Code: 44 8b 04 24 65 49 ff 45 08 e9 3c f5 ff ff 0f <1f> 44 00 00 48
[    1.251378] Modules linked in:
[    1.251378] ---[ end trace 0000000000000000 ]---
";

    #[test]
    fn a_kernel_that_died_of_a_translation_out_of_date_is_noticed() {
        let place = "0010:enqueue_task_fair+0xc48/0xe80".to_owned();
        assert_eq!(judge(DIED), Err(Unfit::Outdated(place)));
    }

    #[test]
    fn what_dies_with_a_module_or_at_a_breakpoint_that_is_there_is_no_excuse() {
        assert_eq!(judge(&DIED.replace("linked in:", "linked in: atom(OE)")), Ok(()));
        assert_eq!(judge(&DIED.replace("0f <1f>", "cc <1f>")), Ok(()));
        assert_eq!(judge(&DIED.replace("int3", "invalid opcode")), Ok(()));
    }

    #[test]
    fn a_death_that_is_still_being_written_says_nothing_yet() {
        assert_eq!(judge(DIED.split_once("Modules").unwrap().0), Ok(()));
    }
}
