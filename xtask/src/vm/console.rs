// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a machine said last.

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
