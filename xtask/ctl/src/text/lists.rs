// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! State and lists, for people.

use super::{handoff, row, table, Paint};
use crate::quantity::{show_bytes, show_micros};
use crate::report::{EntryState, History, Listing, Schemas, StatusDocument, Verification, Volumes};

/// The state of Atom.
pub fn status(status: &StatusDocument, paint: Paint) -> String {
    let place = match status.place.as_str() {
        "live" => paint.good("live"),
        "held" => paint.bad(&format!("held: I/O waits since {}", show_micros(status.held_us))),
        other => paint.notable(other),
    };
    let live = status.live.as_ref().map_or_else(
        || "none".to_owned(),
        |live| {
            let schemas = schemas(&live.image_schemas);
            format!("{} (module {}, schemas {schemas})", live.version, live.module)
        },
    );
    let mut rows = vec![
        row(["state", &place]),
        row(["payload", &live]),
        row(["registered", &status.payloads.to_string()]),
        row(["devices", &format!("{}, {} open handles", status.devices.len(), status.opens)]),
        row(["preserved", &format!("{} objects", status.preserved)]),
        row(["handoffs", &status.handoffs.to_string()]),
        row(["epoch", &status.epoch.to_string()]),
        row(["atom", &format!("{} (ABI {}, kernel {})", status.atom, status.abi, status.kernel)]),
    ];
    if status.image_bytes != 0 {
        rows.push(row(["image", &show_bytes(status.image_bytes)]));
    }
    if status.stale_completions != 0 {
        rows.push(row(["stale", &format!("{} completions refused", status.stale_completions)]));
    }
    if let Some(refused) = &status.refused {
        rows.push(row(["refused", &format!("{}: {}", refused.version, refused.reason)]));
    }
    let mut text = table(&rows);
    if !status.devices.is_empty() {
        let mut rows = vec![row(["device", "size", "opens", "queues", "owed", "features"])];
        rows.extend(status.devices.iter().map(|device| {
            vec![
                device.name.clone(),
                show_bytes(device.bytes),
                device.opens.to_string(),
                format!("{} x {}", device.hw_queues, device.queue_depth),
                device.owed.to_string(),
                device.features.join(" "),
            ]
        }));
        text.push('\n');
        text.push_str(&table(&rows));
    }
    text
}

/// The payloads.
pub fn listing(listing: &Listing, paint: Paint) -> String {
    if listing.payloads.is_empty() {
        return "no payloads: none is loaded and none is installed\n".to_owned();
    }
    let mut rows = vec![row(["version", "state", "ABI", "schemas", "module", "file"])];
    rows.extend(listing.payloads.iter().map(|entry| {
        vec![
            dash(&entry.version),
            entry.state.to_string(),
            dash(&entry.abi),
            entry.image_schemas.as_ref().map_or_else(|| "-".to_owned(), schemas),
            dash(&entry.module),
            dash(entry.file.as_deref().unwrap_or_default()),
        ]
    }));
    let mut lines: Vec<String> = table(&rows).lines().map(str::to_owned).collect();
    for (line, entry) in lines.iter_mut().skip(1).zip(&listing.payloads) {
        if entry.state == EntryState::Live {
            *line = paint.good(line);
        }
        if let Some(problem) = &entry.problem {
            *line = format!("{}\n    cannot take over: {problem}", paint.faint(line));
        }
    }
    lines.join("\n") + "\n"
}

/// The volumes.
pub fn volumes(volumes: &Volumes) -> String {
    if volumes.volumes.is_empty() {
        return "no volumes\n".to_owned();
    }
    let mut rows = vec![row(["name", "kind", "device", "size", "block", "resident", "errors"])];
    rows.extend(volumes.volumes.iter().map(|volume| {
        vec![
            volume.name.clone(),
            volume.kind.clone(),
            volume.device.clone(),
            show_bytes(volume.bytes),
            volume.block_bytes.to_string(),
            show_bytes(volume.resident_bytes),
            volume.errors.to_string(),
        ]
    }));
    table(&rows)
}

/// The last handoffs, newest first.
pub fn history(history: &History, paint: Paint) -> String {
    if history.handoffs.is_empty() {
        return "no handoffs yet\n".to_owned();
    }
    let parts: Vec<String> = history.handoffs.iter().map(|one| handoff(one, paint)).collect();
    parts.join("\n")
}

/// What was verified.
pub fn verification(verification: &Verification, paint: Paint) -> String {
    let width = verification.checks.iter().map(|check| check.name.chars().count()).max();
    let width = width.unwrap_or(0);
    verification
        .checks
        .iter()
        .map(|check| {
            let mark = if check.ok { paint.good("ok   ") } else { paint.bad("WRONG") };
            format!("{mark}  {:width$}  {}\n", check.name, check.detail)
        })
        .collect()
}

fn schemas(schemas: &Schemas) -> String {
    let [oldest, newest] = schemas.read;
    let read = if oldest == newest { oldest.to_string() } else { format!("{oldest}-{newest}") };
    if schemas.read == schemas.write {
        return read;
    }
    let [oldest, newest] = schemas.write;
    format!("reads {read}, writes {oldest}-{newest}")
}

fn dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module_file::test_file::{live, status as atom, TestFile};
    use crate::report::{Entry, Verdict};

    #[test]
    fn the_status_names_the_live_payload_and_the_held_time() {
        let mut document = StatusDocument::new("7.2.12", &atom(), &[live()], &[]);
        assert!(
            status(&document, Paint::PLAIN).contains("1.0.0 (module payload_1_0_0, schemas 1-2)")
        );
        document.place = "held".to_owned();
        document.held_us = 2_000_000;
        assert!(status(&document, Paint::PLAIN).contains("held: I/O waits since 2.00 s"));
    }

    #[test]
    fn a_file_that_cannot_take_over_says_why_below_its_line() {
        let file = TestFile::payload("1.1.0").parse().unwrap();
        let document = Listing {
            schema: Listing::SCHEMA.to_owned(),
            kernel: String::new(),
            payloads: vec![
                Entry::registered(&live()),
                Entry::installed(&file, Some("another kernel".to_owned())),
            ],
        };
        let text = listing(&document, Paint::PLAIN);
        assert!(text.ends_with("test.ko\n    cannot take over: another kernel\n"), "{text}");
        assert!(text.contains("1.0.0    live "), "{text}");
    }

    #[test]
    fn what_is_wrong_stands_out() {
        let checks = vec![Verdict { name: "a".into(), ok: false, detail: "b".into() }];
        let document = Verification::new(checks);
        assert!(!document.ok);
        assert_eq!(verification(&document, Paint::PLAIN), "WRONG  a  b\n");
    }
}
