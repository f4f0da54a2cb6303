// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What an upgrade would do, for people.

use std::fmt::Write;

use super::lists::verdicts;
use super::{row, table, Paint};
use crate::quantity::{show_bytes, show_micros};
use crate::report::{ExpectedPause, UpgradePlan};

/// A plan: what was looked at, what would be touched, and how long I/O would be held.
pub fn upgrade_plan(plan: &UpgradePlan, paint: Paint) -> String {
    let verdict = match plan.ok {
        true => paint.good("would be done"),
        false => paint.bad("would be refused"),
    };
    let to = if plan.to.is_empty() { &plan.file } else { &plan.to };
    let from = if plan.from.is_empty() { "nothing" } else { &plan.from };
    let mut text = format!("{from} -> {to}  {}, {verdict}\n\n", plan.mode);
    text.push_str(&verdicts(&plan.checks, paint));
    if let Some(reason) = &plan.reason {
        let _ = writeln!(text, "\n  why: {reason}");
    }
    if let Some(remedy) = &plan.remedy {
        let _ = writeln!(text, "  what to do: {remedy}");
    }
    for note in &plan.notes {
        let _ = writeln!(text, "  note: {note}");
    }
    let expected = plan.expected_pause.as_ref().map_or_else(
        || "unknown: the journal has no upgrade of this kind".to_owned(),
        |pause| {
            let ExpectedPause { n, median_us, p90_us, max_us } = *pause;
            let [median, p90, max] = [median_us, p90_us, max_us].map(show_micros);
            format!("{median}, nine of ten {p90}, at most {max} (the last {n} of this kind)")
        },
    );
    text.push('\n');
    let mut rows = vec![
        row(["touched", &format!("{} devices, {} open handles", plan.devices.len(), plan.opens)]),
        row(["I/O held", &expected]),
    ];
    if !plan.volumes.is_empty() {
        rows.insert(1, row(["volumes", &plan.volumes.join(" ")]));
    }
    text.push_str(&table(&rows));
    if !plan.devices.is_empty() {
        let mut rows = vec![row(["device", "size", "opens", "owed"])];
        rows.extend(plan.devices.iter().map(|device| {
            row([
                &device.name,
                &show_bytes(device.bytes),
                &device.opens.to_string(),
                &device.owed.to_string(),
            ])
        }));
        text.push('\n');
        text.push_str(&table(&rows));
    }
    text
}
