// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What holds for the source as a whole.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

use std::path::Path;

fn sources() -> impl Iterator<Item = (String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    ["", "nbd/", "nbd/target/"].into_iter().flat_map(move |within| {
        let files =
            std::fs::read_dir(folder.join(within)).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|e| e == "rs")).map(move |path| {
            let name = format!("{within}{}", path.file_name().unwrap().to_str().unwrap());
            (name, std::fs::read_to_string(path).unwrap())
        })
    })
}

/// The code of a file, without its comments.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

#[test]
fn unsafe_code_of_a_release_is_in_the_files_that_say_so() {
    let mut found: Vec<_> = sources()
        .filter(|(_, text)| code(text).replace("unsafe_code", "").contains("unsafe"))
        .map(|(name, _)| name)
        .collect();
    found.sort();
    let variants = ["inject.rs", "keeper.rs", "large.rs", "stuck.rs"];
    found.retain(|name| !variants.contains(&name.as_str()));
    let client = ["bios.rs", "flight.rs", "nbd/poller.rs", "nbd/socket.rs"];
    assert_eq!(found, [&client[..], &["pages.rs", "sys.rs", "table.rs"]].concat());
    let root = sources().find(|(name, _)| name == "payload_main.rs").unwrap().1;
    for name in variants {
        let module = name.strip_suffix(".rs").unwrap();
        let only = root.split("#[cfg(payload_fault = \"").any(|rest| {
            rest.split_once("\")]\n").is_some_and(|(fault, rest)| {
                fault != "none" && rest.starts_with(&format!("mod {module};"))
            })
        });
        assert!(only, "{name} is not in test variants only");
    }
}

/// The name of each version and its values of a condition.
fn versions(condition: &str) -> Vec<(String, Vec<String>)> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/versions.toml"));
    let text = text.unwrap();
    let own = text.split("[[version]]").skip(1).filter(|entry| !entry.contains("source ="));
    let before = format!("\"{condition}=\\\"");
    own.map(|entry| {
        let name = entry.split("name = \"").nth(1).unwrap().split('"').next().unwrap();
        let values =
            entry.split(&before).skip(1).map(|rest| rest.split('\\').next().unwrap().to_owned());
        (name.to_owned(), values.collect())
    })
    .collect()
}

#[test]
fn every_fault_has_code_and_every_condition_a_version() {
    let all: String = sources().map(|(_, text)| code(&text)).collect();
    let versions = versions("payload_fault");
    for (name, faults) in &versions {
        assert!(!faults.is_empty(), "{name}");
        for fault in faults {
            let condition = format!("payload_fault = \"{fault}\"");
            assert!(all.contains(&condition), "{fault} is in versions.toml and not in the source");
        }
    }
    for condition in all.split("payload_fault = \"").skip(1) {
        let fault = condition.split('"').next().unwrap();
        let used = versions.iter().any(|(_, faults)| faults.iter().any(|one| one == fault));
        assert!(used, "{fault} is in the source and not in versions.toml");
    }
}

#[test]
fn a_release_has_no_fault_and_the_level_that_it_came_with() {
    let releases = |condition| {
        versions(condition)
            .into_iter()
            .filter(|(name, _)| !name.starts_with("9."))
            .collect::<Vec<_>>()
    };
    let all = |condition, value: &str| {
        releases(condition).into_iter().all(|(_, values)| values == [value])
    };
    assert!(all("payload_fault", "none"));
    for (name, levels) in releases("payload_abi") {
        // A release is never built for another minor version: an older Atom would refuse it.
        let level = if name.starts_with("1.") { 1 } else { atom_abi::version::ABI_MINOR };
        assert_eq!(levels, [level.to_string()], "{name}");
    }
}

#[test]
fn each_release_shares_a_schema_with_the_one_before() {
    let number = |condition, at: usize| -> u32 { versions(condition)[at].1[0].parse().unwrap() };
    let ranges: Vec<_> =
        (0..5).map(|at| (number("payload_schema_min", at), number("payload_schema", at))).collect();
    assert_eq!(ranges, [(1, 1), (1, 2), (2, 3), (3, 4), (4, 5)]);
}
