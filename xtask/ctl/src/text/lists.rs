// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! State and lists, for people.

use super::journal::last_attempt;
use super::policy::hold;
use super::{handoff, row, table, Paint};
use crate::quantity::{show_bytes, show_micros};
use crate::report::{EntryState, History, Listing, Schemas, StatusDocument, Verdict, Verification};

/// The state of Atom.
pub fn status(status: &StatusDocument, paint: Paint) -> String {
    let place = match status.place.as_str() {
        "live" => paint.good("live"),
        "held" => paint.bad(&format!("held: I/O waits since {}", show_micros(status.held_us))),
        "failing" => paint.bad(&format!(
            "failing: I/O fails, nobody has adopted since {}",
            show_micros(status.held_us)
        )),
        other => paint.notable(other),
    };
    let live = status.live.as_ref().map_or_else(
        || "none".to_owned(),
        |live| {
            let schemas = schemas(&live.image_schemas);
            let text = format!("{} (module {}, schemas {schemas})", live.version, live.module);
            match live.dead {
                true => paint.bad(&format!("{text}, dead: atomctl upgrade FILE replaces it")),
                false => text,
            }
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
    if let Some(soak) = &status.soak {
        let left = show_micros(soak.left_us);
        let text = format!("{left} left, then back to {}: atomctl commit", soak.parked);
        rows.push(row(["soak", &paint.notable(&text)]));
    }
    if let Some(drain) = &status.drain {
        rows.push(row(["drain", &format!("{} {} outstanding", drain.outstanding, drain.stage)]));
    }
    if !status.parked.is_empty() {
        rows.push(row(["parked", &status.parked.join(" ")]));
    }
    if !status.dead.is_empty() {
        rows.push(row(["dead", &paint.bad(&status.dead.join(" "))]));
    }
    if let Some(policy) = status.hold.as_ref().filter(|hold| hold.policy != "hold") {
        rows.push(row(["nobody adopts", &hold(policy)]));
    }
    if status.fallback_error != 0 {
        let text =
            format!("it could not be loaded: error {}", status.fallback_error.unsigned_abs());
        rows.push(row(["fallback", &paint.bad(&text)]));
    }
    if status.checkpoint_bytes != 0 {
        rows.push(row(["checkpoint", &show_bytes(status.checkpoint_bytes)]));
    }
    if status.image_bytes != 0 {
        rows.push(row(["image", &show_bytes(status.image_bytes)]));
    }
    if status.stale_completions != 0 {
        rows.push(row(["stale", &format!("{} completions refused", status.stale_completions)]));
    }
    if let Some(refused) = &status.refused {
        rows.push(row(["refused", &format!("{}: {}", refused.version, refused.reason)]));
    }
    if let Some(last) = &status.last_attempt {
        rows.push(row(["attention", &paint.bad(&last_attempt(last))]));
        if let Some(remedy) = &last.remedy {
            rows.push(row(["what to do", remedy]));
        }
    }
    let mut text = table(&rows);
    if !status.devices.is_empty() {
        let mut rows = vec![row([
            "device", "size", "opens", "queues", "owed", "oldest", "errors", "features",
        ])];
        rows.extend(status.devices.iter().map(|device| {
            vec![
                device.name.clone(),
                show_bytes(device.bytes),
                device.opens.to_string(),
                format!("{} x {}", device.hw_queues, device.queue_depth),
                device.owed.to_string(),
                show_micros(device.oldest_owed_us),
                device.errors.to_string(),
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
    let mut rows = vec![row(["version", "state", "build", "ABI", "schemas", "module", "file"])];
    rows.extend(listing.payloads.iter().map(|entry| {
        vec![
            dash(&entry.version),
            entry.state.to_string(),
            dash(entry.build_id.as_deref().and_then(|id| id.get(..12)).unwrap_or_default()),
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
        if entry.state == EntryState::Dead {
            *line = paint.bad(line);
        }
        if let Some(problem) = &entry.problem {
            *line = format!("{}\n    cannot take over: {problem}", paint.faint(line));
        }
    }
    lines.join("\n") + "\n"
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
    verdicts(&verification.checks, paint)
}

/// What was looked at, one thing a line.
pub(super) fn verdicts(checks: &[Verdict], paint: Paint) -> String {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    checks
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
    use atom_abi::control::{
        hold as how, payload_state, DeviceInfo, PayloadInfo, Settings, Status,
    };

    use super::*;
    use crate::blank;
    use crate::module_file::test_file::{live, status as atom, TestFile};
    use crate::report::Entry;

    #[test]
    fn the_status_names_the_live_payload_and_the_held_time() {
        let mut document = StatusDocument::new("7.2.12", &atom(), &[live()], &[]);
        assert!(
            status(&document, Paint::PLAIN).contains("1.0.0 (module payload_1_0_0, schemas 1-2)")
        );
        assert!(!status(&document, Paint::PLAIN).contains("soak"));
        document.place = "held".to_owned();
        document.held_us = 2_000_000;
        assert!(status(&document, Paint::PLAIN).contains("held: I/O waits since 2.00 s"));
    }

    #[test]
    fn the_status_tells_of_soaks_dead_payloads_and_policies() {
        let soaking = Status {
            live: 2,
            parked: 1,
            soak_left_ns: 4_000_000_000,
            fallback_error: -2,
            checkpoint_bytes: 4096,
            ..atom()
        };
        let dead = PayloadInfo { id: 2, state: payload_state::DEAD, ..live() };
        let settings =
            Settings { hold: how::FAIL, hold_deadline_ns: 30_000_000_000, ..Settings::DEFAULT };
        let device = DeviceInfo { errors: 12, oldest_ns: 612_000_000, ..blank::DEVICE };
        let document = StatusDocument::new("7.2.12", &soaking, &[live(), dead], &[device])
            .with_settings(&settings);
        let text = status(&document, Paint::PLAIN);
        for part in [
            "dead: atomctl upgrade FILE",
            "4.00 s left, then back to 1.0.0",
            "fail I/O after 30.00 s",
            "it could not be loaded: error 2",
            "checkpoint     4 KiB",
            "612.00 ms  12",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
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
