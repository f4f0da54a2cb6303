// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Upgrades and handoffs, for people.

use std::fmt::Write;

use super::{row, table, timeline, Paint};
use crate::problem::Exit;
use crate::quantity::show_bytes;
use crate::report::{Blocker, Handoff, Outcome, UpgradeReport};

/// An upgrade report.
pub fn upgrade(report: &UpgradeReport, paint: Paint) -> String {
    let outcome = report.outcome.to_string();
    let outcome = match report.outcome.exit() {
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

fn arrow(from: &str, to: &str) -> String {
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
    let mut rows = vec![row(["  device", "queue", "tag", "operation", "sector", "bytes", "age"])];
    rows.extend(blockers.iter().map(|blocker| {
        vec![
            format!("  {}", blocker.device),
            blocker.hctx.to_string(),
            blocker.tag.to_string(),
            blocker.op.clone(),
            blocker.sector.to_string(),
            blocker.bytes.to_string(),
            format!("{} ms", blocker.age_ms),
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
        });
        let text = upgrade(&report, Paint::PLAIN);
        assert!(text.starts_with("1.0.0 -> 1.1.0  warm, aborted\n"), "{text}");
        for part in
            ["why: the deadline passed", "what to do: wait", "3 requests", "atom1", "612 ms"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
