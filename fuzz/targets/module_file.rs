// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The reader of module files.

#![no_main]

use std::path::Path;

use atom_fuzz::budget;
use atomctl::module_file::{note, ModuleFile};
use libfuzzer_sys::fuzz_target;

/// What the names in a file and a message may take, besides the file itself.
const MAX_ALLOCATED_BYTES: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let file = bytes.to_vec();
    let parsed =
        budget::within(MAX_ALLOCATED_BYTES, || ModuleFile::parse(Path::new("fuzz.ko"), file));
    match parsed {
        Ok(module) => {
            assert_eq!(module.bytes, bytes, "the file is kept as it is");
            assert!(module.vermagic.starts_with(module.kernel()));
            let _ = module.version();
        }
        Err(refused) => assert!(!refused.to_string().is_empty(), "a refusal has a reason"),
    }
    budget::within(MAX_ALLOCATED_BYTES, || note::build_id(bytes));
});
