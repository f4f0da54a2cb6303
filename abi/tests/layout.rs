// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The blessed layouts: the contract as bytes, one file for each minor version.

use std::fmt::Write as _;

use atom_abi::layout::{first_bytes, Field, Layout, HASH, LAYOUTS, MINOR_HASH};
use atom_abi::version::{ABI_MAJOR, ABI_MINOR};

/// The layout as it was in the first minor.
fn first() -> String {
    let mut text = format!("# Layout of ABI {ABI_MAJOR}, hash {HASH:#018x}. Never edited.\n");
    for Layout { name, first_size, align, fields, .. } in LAYOUTS.iter().filter(|l| l.since == 0) {
        let _ = writeln!(text, "\n{name}: {first_size} bytes, aligned to {align}");
        for Field { offset, first_size, first_name, .. } in *fields {
            let _ = writeln!(text, "  {offset:4} +{first_size:<4} {first_name}");
        }
    }
    text
}

/// The layout as it is in the present minor.
fn present() -> String {
    let mut text = format!(
        "# Layout of ABI {ABI_MAJOR}.{ABI_MINOR}, hash {MINOR_HASH:#018x}. Never edited.\n"
    );
    for Layout { name, size, align, fields, added, .. } in LAYOUTS {
        let _ = writeln!(text, "\n{name}: {size} bytes, aligned to {align}");
        for Field { offset, size, name, .. } in fields.iter().chain(*added) {
            let _ = writeln!(text, "  {offset:4} +{size:<4} {name}");
        }
    }
    text
}

/// Writes the file of a new version when it is asked for by `ATOM_BLESS`; never one that exists.
fn begin(path: &str, text: &str) -> String {
    if std::env::var_os("ATOM_BLESS").is_none() {
        return String::new();
    }
    std::fs::write(path, text).map(|()| text.to_owned()).unwrap_or_default()
}

fn check(file: &str, code: &str) {
    let path = format!("{}/layout/{file}", env!("CARGO_MANIFEST_DIR"));
    let blessed = std::fs::read_to_string(&path).unwrap_or_else(|_| begin(&path, code));
    assert!(
        blessed == code,
        "{path} and the code part. A published layout is never edited: grow tables at their end, \
         in a new minor version with a file of its own, or begin a new major version. \
         The code has:\n{code}"
    );
}

#[test]
fn the_first_minor_is_still_laid_out_as_its_blessed_file_says() {
    check(&format!("v{ABI_MAJOR}.txt"), &first());
}

#[test]
fn the_present_minor_is_laid_out_as_its_blessed_file_says() {
    check(&format!("v{ABI_MAJOR}.{ABI_MINOR}.txt"), &present());
}

/// Whether a line of a layout says of the same field, at the same place, that it is longer.
fn has_grown(before: &str, now: &str) -> bool {
    let parts = |line: &str| -> Option<(u32, u32, String)> {
        let mut words = line.split_whitespace();
        let (offset, size) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((offset, size, words.next()?.to_owned()))
    };
    match (parts(before), parts(now)) {
        (Some((at, size, name)), Some((at_now, size_now, name_now))) => {
            (at, name) == (at_now, name_now) && size_now > size
        }
        _ => false,
    }
}

#[test]
fn every_minor_between_is_the_beginning_of_the_present_one() {
    let structures = |text: &str| -> Vec<(String, Vec<String>)> {
        let blocks = text.split("\n\n").skip(1);
        blocks
            .map(|block| {
                let mut lines = block.lines();
                let name = lines.next().unwrap_or_default().split(':').next().unwrap_or_default();
                (name.to_owned(), lines.map(str::to_owned).collect())
            })
            .collect()
    };
    let present = structures(&present());
    for minor in 1..ABI_MINOR {
        let path = format!("{}/layout/v{ABI_MAJOR}.{minor}.txt", env!("CARGO_MANIFEST_DIR"));
        let blessed = std::fs::read_to_string(&path).expect("a published layout stays");
        let blessed = structures(&blessed);
        assert!(blessed.len() > 20, "{path}");
        for ((name, before), (same_name, now)) in blessed.iter().zip(&present) {
            assert_eq!(name, same_name, "{path}");
            let (last, others) = before.split_last().expect("a structure has fields");
            assert_eq!(now.get(..others.len()), Some(others), "{path}: {name}");
            // A structure at the end of another one grows with it.
            let last_now = now.get(others.len()).expect("a field that was published stays");
            assert!(
                last == last_now || now.len() == before.len() && has_grown(last, last_now),
                "{path}: {name}: {last_now} was {last}"
            );
        }
    }
}

#[test]
fn structures_have_only_grown_at_their_end() {
    for layout in LAYOUTS {
        for field in layout.added {
            assert!(
                field.offset >= layout.first_size,
                "{}: {} lies within what the first version had",
                layout.name,
                field.name
            );
        }
        for (field, rest) in layout.fields.iter().zip((1..).map(|at| layout.fields.get(at..))) {
            let last = rest.is_none_or(<[Field]>::is_empty);
            assert!(
                field.size == field.first_size || (last && layout.added.is_empty()),
                "{}: {} has grown and is not the last field",
                layout.name,
                field.name
            );
        }
        assert_eq!(first_bytes(layout.name), layout.first_size);
    }
}

#[test]
fn a_structure_that_there_is_not_is_shorter_than_nothing_that_a_caller_has() {
    assert_eq!(first_bytes("NoSuchStructure"), usize::MAX);
    assert_eq!(first_bytes(""), usize::MAX);
}

#[test]
fn the_contract_in_prose_names_every_structure_and_the_hashes() {
    let path = format!("{}/ABI.md", env!("CARGO_MANIFEST_DIR"));
    let prose = std::fs::read_to_string(path).expect("ABI.md stands beside the code");
    for layout in LAYOUTS {
        assert!(prose.contains(&format!("`{}`", layout.name)), "ABI.md lacks {}", layout.name);
    }
    for hash in [HASH, MINOR_HASH] {
        assert!(prose.contains(&format!("{hash:#018x}")), "ABI.md has not the hash {hash:#018x}");
    }
}

#[test]
fn nothing_that_crosses_the_boundary_is_padded() {
    // Padding would be kernel memory that nobody has written, on its way to user space.
    for layout in LAYOUTS {
        let used: usize = layout.fields.iter().chain(layout.added).map(|field| field.size).sum();
        assert_eq!(used, layout.size, "{} has padding", layout.name);
        let first: usize = layout.fields.iter().map(|field| field.first_size).sum();
        assert_eq!(first, layout.first_size, "{} had padding", layout.name);
    }
}

#[test]
fn cargo_compiles_the_modules_that_kbuild_does() {
    let modules = |text: &'static str| -> Vec<&str> {
        text.lines().filter(|line| line.starts_with("pub mod ")).collect()
    };
    let kbuild = modules(include_str!("../src/abi.rs"));
    assert!(kbuild.len() > 10, "{kbuild:?}");
    assert_eq!(modules(include_str!("../src/lib.rs")), kbuild);
}
