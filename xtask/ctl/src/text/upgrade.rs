// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Upgrades and handoffs, for people.

use std::fmt::Write;

use super::{row, table, timeline, Paint};
use crate::problem::Exit;
use crate::quantity::{show_bytes, show_micros};
use crate::report::{Blocker, Handoff, Outcome, SoakReport, Stage, UpgradeReport};

/// An upgrade report.
pub fn upgrade(report: &UpgradeReport, paint: Paint) -> String {
    let outcome = report.outcome.to_string();
    let outcome = match report.exit() {
        Exit::Done => paint.good(&outcome),
        Exit::Attention => paint.bad(&outcome),
        _ => paint.notable(&outcome),
    };
    let mut text = format!("{}  {}, {outcome}\n", arrow(&report.from, &report.to), report.mode);
    text.push_str(&timeline(&report.phases_us, report.pause_us, paint));
    if report.outcome != Outcome::Refused {
        let _ = writeln!(
            text,
            "  {} devices, {} open handles, image {}, {} preserved objects",
            report.devices,
            report.opens,
            show_bytes(report.image_bytes),
            report.preserved
        );
    }
    text.push_str(&drained(&Drained {
        cause: report.cause.as_deref().unwrap_or_default(),
        policy: report.policy.as_deref().unwrap_or_default(),
        forsaken: report.forsaken,
        stages: &report.stages,
        handed_back: report.requests_handed_back,
        taken_back: report.requests_taken_back,
        changed: report.devices_changed,
    }));
    if let Some(soak) = &report.soak {
        text.push_str(&watched(soak, paint));
    }
    if let Some(reason) = &report.reason {
        let _ = writeln!(text, "  why: {reason}");
    }
    if let Some(remedy) = &report.remedy {
        let _ = writeln!(text, "  what to do: {remedy}");
    }
    for warning in &report.warnings {
        let _ = writeln!(text, "  {} {warning}", paint.notable("warning:"));
    }
    text.push_str(&blockers(&report.blockers, report.owed.unwrap_or(0)));
    if let Some(seen) = &report.workload {
        let _ = writeln!(
            text,
            "  workload: {} requests, {} errors, {} corruptions, longest gap {} us (before: {} us)",
            seen.ios,
            seen.errors,
            seen.corruptions,
            seen.longest_gap_us,
            seen.baseline_longest_gap_us
        );
    }
    text
}

/// One handoff.
pub fn handoff(handoff: &Handoff, paint: Paint) -> String {
    let outcome = if handoff.is_done() {
        paint.good(&handoff.outcome)
    } else {
        paint.notable(&handoff.outcome)
    };
    let mut text = format!(
        "{} {}  {}  {outcome}\n",
        handoff.sequence,
        handoff.kind,
        arrow(&handoff.from, &handoff.to)
    );
    text.push_str(&timeline(&handoff.phases_us, handoff.pause_us, paint));
    text.push_str(&drained(&Drained {
        cause: &handoff.cause,
        policy: &handoff.policy,
        forsaken: handoff.forsaken,
        stages: &handoff.stages,
        handed_back: handoff.requests_handed_back,
        taken_back: handoff.requests_taken_back,
        changed: handoff.devices_changed,
    }));
    if let Some(reason) = &handoff.reason {
        let _ = writeln!(text, "  why: {reason}");
    }
    if handoff.inverse_errors != 0 {
        let _ = writeln!(
            text,
            "  {} inverse steps that must not fail reported {} errors",
            paint.bad("warning:"),
            handoff.inverse_errors
        );
    }
    let named = u32::try_from(handoff.blockers.len()).unwrap_or(u32::MAX);
    text.push_str(&blockers(&handoff.blockers, named));
    text
}

/// What is said about a drain beside its time.
struct Drained<'a> {
    cause: &'a str,
    policy: &'a str,
    forsaken: bool,
    stages: &'a [Stage],
    handed_back: u32,
    taken_back: u32,
    changed: u32,
}

/// Lines about what is not as usual.
fn drained(drained: &Drained<'_>) -> String {
    let mut text = String::new();
    if !matches!(drained.cause, "" | "asked") {
        let _ = writeln!(text, "  made by Atom itself: {}", drained.cause);
    }
    if drained.forsaken {
        text.push_str("  the old payload was not asked for anything\n");
    }
    let stages: Vec<String> = drained
        .stages
        .iter()
        .filter(|stage| stage.began != 0)
        .map(|stage| {
            let Stage { name, began, left, us } = stage;
            format!("{name} {began} -> {left} in {}", show_micros(*us))
        })
        .collect();
    if !stages.is_empty() {
        let _ = writeln!(text, "  drained: {}", stages.join(", "));
    }
    if drained.handed_back != 0 {
        let _ =
            writeln!(text, "  {} requests had not been started, and waited", drained.handed_back);
    }
    if drained.taken_back != 0 {
        let _ = writeln!(
            text,
            "  {} requests were taken back (policy {})",
            drained.taken_back, drained.policy
        );
    }
    if drained.changed != 0 {
        let _ = writeln!(text, "  {} devices were changed", drained.changed);
    }
    text
}

/// What was seen during a soak.
fn watched(soak: &SoakReport, paint: Paint) -> String {
    let errors: u64 = soak.errors.values().sum();
    let mut text = format!(
        "  soak: {} of {}, {} canary reads, {errors} errors\n",
        show_micros(soak.watched_us),
        show_micros(soak.asked_us),
        soak.canary_reads
    );
    if let Some(trouble) = &soak.trouble {
        let _ = writeln!(text, "  {} {trouble}", paint.bad("trouble:"));
    }
    if let Some(back) = &soak.back {
        let _ = writeln!(
            text,
            "  back: {} {}, paused {}",
            arrow(&back.from, &back.to),
            back.outcome,
            show_micros(back.pause_us)
        );
    }
    text
}

pub(super) fn arrow(from: &str, to: &str) -> String {
    let named = |version: &str, without: &str| {
        if version.is_empty() {
            without.to_owned()
        } else {
            version.to_owned()
        }
    };
    format!("{} -> {}", named(from, "(nobody)"), named(to, "(nobody)"))
}

fn blockers(blockers: &[Blocker], owed: u32) -> String {
    if blockers.is_empty() {
        return String::new();
    }
    let mut rows =
        vec![row(["  device", "queue", "tag", "operation", "sector", "bytes", "age", "reason"])];
    rows.extend(blockers.iter().map(|blocker| {
        vec![
            format!("  {}", blocker.device),
            blocker.hctx.to_string(),
            blocker.tag.to_string(),
            blocker.op.clone(),
            blocker.sector.to_string(),
            blocker.bytes.to_string(),
            format!("{} ms", blocker.age_ms),
            blocker.reason.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }));
    format!("  {owed} requests were still owed:\n{}", table(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Mode;

    #[test]
    fn an_aborted_upgrade_names_its_blockers_and_what_to_do() {
        let mut report = UpgradeReport::begin("7.2.12", "1.0.0", "1.1.0", Mode::Warm)
            .end(Outcome::Aborted, Some("the deadline passed".to_owned()))
            .advise("wait");
        report.owed = Some(3);
        report.blockers.push(Blocker {
            device: "atom1".to_owned(),
            hctx: 0,
            tag: 17,
            op: "write".to_owned(),
            sector: 8,
            bytes: 4096,
            age_ms: 612,
            reason: Some("kept by a command".to_owned()),
        });
        let text = upgrade(&report, Paint::PLAIN);
        assert!(text.starts_with("1.0.0 -> 1.1.0  warm, aborted\n"), "{text}");
        for part in [
            "why: the deadline passed",
            "what to do: wait",
            "3 requests",
            "atom1",
            "612 ms  kept by",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn what_is_not_as_usual_about_a_handoff_is_told() {
        let mut report = UpgradeReport::begin("7.2.12", "1.0.0", "1.1.0", Mode::Warm)
            .end(Outcome::RolledBack, Some("errors".to_owned()));
        let quiet = upgrade(&report, Paint::PLAIN);
        for word in ["drained", "not been started", "taken back", "soak", "Atom itself"] {
            assert!(!quiet.contains(word), "{word}: {quiet}");
        }
        report.cause = Some("stall".to_owned());
        report.policy = Some("reissue".to_owned());
        report.forsaken = true;
        report.requests_handed_back = 90;
        report.requests_taken_back = 4;
        report.devices_changed = 1;
        report.stages = vec![Stage { name: "data".to_owned(), began: 5, left: 4, us: 1_000_000 }];
        report.soak = Some(SoakReport {
            watched_us: 3_000_000,
            asked_us: 30_000_000,
            canary_reads: 6,
            trouble: Some("a read failed".to_owned()),
            ..SoakReport::default()
        });
        let text = upgrade(&report, Paint::PLAIN);
        for part in [
            "made by Atom itself: stall",
            "not asked",
            "drained: data 5 -> 4 in 1.00 s",
            "90 requests had not been started, and waited",
            "4 requests were taken back (policy reissue)",
            "1 devices were changed",
            "soak: 3.00 s of 30.00 s, 6 canary reads, 0 errors",
            "trouble: a read failed",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
