// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The blessed layout: the contract as bytes.

use std::fmt::Write as _;

use atom_abi::layout::{Layout, HASH, LAYOUTS};
use atom_abi::version::ABI_MAJOR;

fn rendered() -> String {
    let mut text = format!("# Layout of ABI {ABI_MAJOR}, hash {HASH:#018x}. Never edited.\n");
    for Layout { name, size, align, fields } in LAYOUTS {
        let _ = writeln!(text, "\n{name}: {size} bytes, aligned to {align}");
        for field in *fields {
            let _ = writeln!(text, "  {:4} +{:<4} {}", field.offset, field.size, field.name);
        }
    }
    text
}

/// Writes the file of a new major version when it is asked for by `ATOM_BLESS`; never one that exists.
fn begin(path: &str) -> String {
    if std::env::var_os("ATOM_BLESS").is_none() {
        return String::new();
    }
    let text = rendered();
    std::fs::write(path, &text).map(|()| text).unwrap_or_default()
}

#[test]
fn the_code_is_laid_out_as_the_blessed_file_says() {
    let path = format!("{}/layout/v{ABI_MAJOR}.txt", env!("CARGO_MANIFEST_DIR"));
    let blessed = std::fs::read_to_string(&path).unwrap_or_else(|_| begin(&path));
    assert!(
        blessed == rendered(),
        "{path} and the code part. A published layout is never edited: grow tables at their end, \
         or begin a new major version with a file of its own. The code has:\n{}",
        rendered()
    );
}

#[test]
fn the_contract_in_prose_names_every_structure_and_the_hash() {
    let path = format!("{}/ABI.md", env!("CARGO_MANIFEST_DIR"));
    let prose = std::fs::read_to_string(path).expect("ABI.md stands beside the code");
    for layout in LAYOUTS {
        assert!(prose.contains(&format!("`{}`", layout.name)), "ABI.md lacks {}", layout.name);
    }
    assert!(
        prose.contains(&format!("{HASH:#018x}")),
        "ABI.md has another layout hash than {HASH:#018x}"
    );
}

#[test]
fn nothing_that_crosses_the_boundary_is_padded() {
    // Padding would be kernel memory that nobody has written, on its way to user space.
    for layout in LAYOUTS {
        let used: usize = layout.fields.iter().map(|field| field.size).sum();
        assert_eq!(used, layout.size, "{} has padding", layout.name);
    }
}
