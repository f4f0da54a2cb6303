// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `docs/json.md` tells of every document that there is, and of each of its fields.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page() -> String {
    fs::read_to_string(root().join("docs/json.md")).unwrap()
}

/// The Rust sources below a folder.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(&path).unwrap());
        }
    }
}

/// The names of schemas between these marks.
fn schemas(text: &str, before: &str, after: char) -> BTreeSet<String> {
    let known = |name: &&str| {
        let version = name.rsplit_once('/').map(|(_, version)| version);
        version.is_some_and(|version| version.parse::<u32>().is_ok())
    };
    text.split(before)
        .skip(1)
        .filter_map(|rest| rest.split(after).next())
        .filter(known)
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_schema_of_the_code_is_on_the_page_and_no_other() {
    let mut code = BTreeSet::new();
    for folder in ["xtask/src", "xtask/ctl/src", "tests/src"] {
        let mut found = Vec::new();
        sources(&root().join(folder), &mut found);
        let constants =
            found.iter().flat_map(|text| text.lines()).filter(|line| line.contains("SCHEMA: &"));
        for line in constants {
            code.extend(schemas(line, "\"", '"'));
        }
    }
    assert!(code.len() > 20, "{code:?}");
    let table: String = page().lines().filter(|line| line.starts_with("| ")).collect();
    let told: BTreeSet<String> =
        schemas(&table, "`", '`').into_iter().filter(|name| name.starts_with("atom.")).collect();
    assert_eq!(told, code);
}

#[test]
fn every_field_of_a_document_is_on_the_page() {
    let mut found = Vec::new();
    sources(&root().join("xtask/ctl/src/report"), &mut found);
    let page = page();
    let mut fields = 0;
    for text in found {
        let mut flattened = false;
        for line in text.lines().map(str::trim) {
            flattened |= line.contains("serde(flatten)");
            let field = line.strip_prefix("pub ").and_then(|rest| rest.split_once(": "));
            let Some((name, _)) = field.filter(|(name, _)| {
                name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
            }) else {
                continue;
            };
            if !std::mem::take(&mut flattened) {
                assert!(page.contains(&format!("| `{name}` |")), "{name} is not on the page");
                fields += 1;
            }
        }
    }
    assert!(fields > 150, "{fields}");
}
