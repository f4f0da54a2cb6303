// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a monitoring system wants to know of a machine.

use crate::journal::Kind as Attempted;
use crate::report::{
    AttemptEntry, AttemptState, JournalDocument, Listing, StatusDocument, UpgradeReport,
};

mod exposition;
#[cfg(test)]
mod grammar;
#[cfg(test)]
mod tests;

use exposition::Exposition;
use exposition::Kind::{Counter, Gauge};

/// Where devices can be.
const PLACES: [&str; 9] =
    ["vacant", "live", "quiet", "closed", "drained", "frozen", "forsaken", "held", "failing"];

/// The metrics of a machine. Without a status Atom is not loaded.
pub fn render(
    status: Option<&StatusDocument>,
    payloads: &Listing,
    journal: &JournalDocument,
) -> String {
    let mut out = Exposition::default();
    let up = f64::from(status.is_some());
    out.one("atom_up", Gauge, "1 when Atom is loaded and answers.", up);
    if let Some(status) = status {
        of_atom(&mut out, status);
        of_devices(&mut out, status);
    }
    of_payloads(&mut out, payloads);
    of_journal(&mut out, journal);
    out.into_text()
}

fn of_atom(out: &mut Exposition, status: &StatusDocument) {
    out.family("atom_info", Gauge, "1, with what runs.")
        .value(&[("version", &status.atom), ("abi", &status.abi), ("kernel", &status.kernel)], 1.0);
    let mut places =
        out.family("atom_place", Gauge, "1 for the place where the devices are, 0 for the others.");
    for place in PLACES {
        places.value(&[("place", place)], f64::from(place == status.place));
    }
    let live = status.live.as_ref();
    out.one(
        "atom_payload_dead",
        Gauge,
        "1 when a task died in the live payload, which is not called any more.",
        f64::from(live.is_some_and(|live| live.dead)),
    );
    let held = seconds(status.held_us);
    out.one(
        "atom_io_held_seconds",
        Gauge,
        "How long I/O has been held, 0 when it is served.",
        held,
    );
    let soak = seconds(status.soak.as_ref().map_or(0, |soak| soak.left_us));
    out.one("atom_soak_left_seconds", Gauge, "How long the soak still lasts, 0 without one.", soak);
    for (name, kind, help, value) in [
        ("atom_devices", Gauge, "Block devices.", status.devices.len() as u64),
        ("atom_open_handles", Gauge, "Open handles on all devices.", u64::from(status.opens)),
        (
            "atom_preserved_objects",
            Gauge,
            "Kernel objects kept for payloads.",
            u64::from(status.preserved),
        ),
        ("atom_image_bytes", Gauge, "Size of the stored image.", status.image_bytes),
        (
            "atom_checkpoint_bytes",
            Gauge,
            "Size of the live payload's checkpoint.",
            status.checkpoint_bytes,
        ),
        (
            "atom_handoffs_total",
            Counter,
            "Handoffs that were carried out or undone.",
            status.handoffs,
        ),
        (
            "atom_stale_completions_total",
            Counter,
            "Completions that were refused because they came from an older generation.",
            status.stale_completions,
        ),
    ] {
        out.one(name, kind, help, value as f64);
    }
}

fn of_devices(out: &mut Exposition, status: &StatusDocument) {
    type Value = fn(&crate::report::StatusDevice) -> f64;
    let families: [(&'static str, exposition::Kind, &str, Value); 5] = [
        ("atom_device_size_bytes", Gauge, "Capacity.", |one| one.bytes as f64),
        ("atom_device_open_handles", Gauge, "Open handles.", |one| f64::from(one.opens)),
        ("atom_device_owed_requests", Gauge, "Requests that the payload owes.", |one| {
            f64::from(one.owed)
        }),
        (
            "atom_device_oldest_owed_seconds",
            Gauge,
            "How long the oldest request has been owed.",
            |one| seconds(one.oldest_owed_us),
        ),
        (
            "atom_device_errors_total",
            Counter,
            "Requests that have ended with an error since the device exists.",
            |one| one.errors as f64,
        ),
    ];
    for (name, kind, help, value) in families {
        let mut family = out.family(name, kind, help);
        for device in &status.devices {
            family.value(&[("device", &device.name)], value(device));
        }
    }
}

fn of_payloads(out: &mut Exposition, payloads: &Listing) {
    let mut family =
        out.family("atom_payload_info", Gauge, "1, with a payload and where it is in its life.");
    for one in payloads.payloads.iter().filter(|one| !one.version.is_empty()) {
        let state = one.state.to_string();
        let build = one.build_id.as_deref().unwrap_or_default();
        let file = one.file.as_deref().unwrap_or_default();
        family.value(
            &[("version", &one.version), ("state", &state), ("build_id", build), ("file", file)],
            1.0,
        );
    }
}

fn of_journal(out: &mut Exposition, journal: &JournalDocument) {
    let mut counts: Vec<([String; 3], u32)> = Vec::new();
    for one in &journal.attempts {
        let outcome = one.outcome.clone().unwrap_or_else(|| one.state.to_string());
        let key = [one.kind.to_string(), one.origin.to_string(), outcome];
        match counts.iter_mut().find(|(known, _)| *known == key) {
            Some((_, count)) => *count += 1,
            None => counts.push((key, 1)),
        }
    }
    counts.sort();
    let mut family = out.family(
        "atom_journal_attempts",
        Gauge,
        "Attempts that the journal has, of which old ones go.",
    );
    for ([kind, origin, outcome], count) in &counts {
        let labels = [("kind", &**kind), ("origin", &**origin), ("outcome", &**outcome)];
        family.value(&labels, f64::from(*count));
    }
    let interrupted =
        journal.attempts.iter().filter(|one| one.state == AttemptState::Interrupted).count();
    let help = "Attempts without an end of which nobody has found out what became of them.";
    out.one("atom_journal_interrupted_attempts", Gauge, help, interrupted as f64);
    let help = "Records of the journal that are damaged.";
    out.one("atom_journal_damaged_records", Gauge, help, journal.damaged as f64);
    let upgrade = journal.attempts.iter().rev().find(|one| {
        matches!(one.kind, Attempted::Upgrade | Attempted::Rollback)
            && one.state != AttemptState::Running
    });
    if let Some(upgrade) = upgrade {
        of_last_upgrade(out, upgrade);
    }
}

fn of_last_upgrade(out: &mut Exposition, last: &AttemptEntry) {
    out.one(
        "atom_last_upgrade_success",
        Gauge,
        "1 when the last upgrade or rollback did what was asked for.",
        f64::from(last.succeeded()),
    );
    let at = humantime::parse_rfc3339_weak(&last.began).ok();
    let at = at.and_then(|at| at.duration_since(std::time::SystemTime::UNIX_EPOCH).ok());
    if let Some(at) = at {
        let help = "When the last upgrade or rollback began, in seconds since 1970.";
        out.one("atom_last_upgrade_timestamp_seconds", Gauge, help, at.as_secs_f64());
    }
    let report =
        last.report.clone().and_then(|it| serde_json::from_value::<UpgradeReport>(it).ok());
    let Some(report) = report else { return };
    let help = "How long I/O was held by the last upgrade or rollback.";
    out.one("atom_last_upgrade_pause_seconds", Gauge, help, seconds(report.pause_us));
    let mut family = out.family(
        "atom_last_upgrade_phase_seconds",
        Gauge,
        "How long each phase of the last upgrade or rollback took.",
    );
    for (phase, us) in report.phases_us.iter() {
        family.value(&[("phase", phase)], seconds(us));
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
