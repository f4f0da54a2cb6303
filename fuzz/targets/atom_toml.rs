// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The operator's configuration. A mistake is told with a line of the file.

#![no_main]

use atom_fuzz::budget;
use atomctl::configuration::Configuration;
use libfuzzer_sys::fuzz_target;

/// What the parser and the messages may take for an input of at most 16 KiB.
const MAX_ALLOCATED_BYTES: usize = 16 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match budget::within(MAX_ALLOCATED_BYTES, || Configuration::parse(text)) {
        Ok(chosen) => {
            // A file that chooses is not the one that chooses nothing.
            let silent =
                text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#'));
            assert!(!silent || chosen == Configuration::default());
        }
        Err(wrong) => {
            let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
            assert!((1..=lines).contains(&wrong.line), "line {} of {lines}", wrong.line);
            assert!(!wrong.why.is_empty(), "a mistake has a reason");
        }
    }
});
