// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The file that says which version a boot loads.

#![no_main]

use atom_fuzz::budget;
use atomctl::live;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // What is understood is copied, and nothing else is.
    let version = budget::within(bytes.len() + 64, || live::version(bytes));
    let Some(version) = version else { return };
    assert!(!version.is_empty() && version.trim() == version, "{version:?}");
    let again = live::version(format!("{version}\n").as_bytes());
    assert_eq!(again.as_deref(), Some(version.as_str()), "what is written is read");
});
