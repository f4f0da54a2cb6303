// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What holds for the source as a whole.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

use std::path::Path;

fn sources() -> impl Iterator<Item = (String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    std::fs::read_dir(folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, std::fs::read_to_string(entry.path()).unwrap())
    })
}

/// The code of a file, without its comments.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

#[test]
fn unsafe_code_of_a_release_is_in_two_files() {
    let mut found: Vec<_> = sources()
        .filter(|(_, text)| code(text).replace("unsafe_code", "").contains("unsafe"))
        .map(|(name, _)| name)
        .collect();
    found.sort();
    // `stuck.rs` is compiled into one test variant only.
    assert_eq!(found, ["pages.rs", "stuck.rs", "sys.rs"]);
}

#[test]
fn every_fault_has_one_version_and_every_version_a_fault_or_none() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/versions.toml"));
    let text = text.unwrap();
    let all: String = sources().map(|(_, text)| code(&text)).collect();
    let faults: Vec<_> = text
        .lines()
        .filter_map(|line| line.split("payload_fault=\\\"").nth(1)?.split('\\').next())
        .collect();
    assert_eq!(faults.len(), text.matches("[[version]]").count());
    assert_eq!(faults.iter().filter(|fault| **fault == "none").count(), 2);
    for fault in faults.into_iter().filter(|fault| *fault != "none") {
        let condition = format!("payload_fault = \"{fault}\"");
        assert!(all.contains(&condition), "{fault} is in versions.toml and not in the source");
        assert_eq!(text.matches(&format!("\\\"{fault}\\\"")).count(), 1, "{fault}");
    }
}
