// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! One page about one attempt. It fetches nothing: its style and its drawings are within it.

use std::fmt::Write;

use crate::quantity::{show_bytes, show_micros};
use crate::report::{AttemptEntry, AttemptState, Stage, UpgradeReport};
use crate::trace::Trace;

mod around;
mod chart;
mod phases;
#[cfg(test)]
mod tests;

use around::Around;

const STYLE: &str = include_str!("style.css");

/// The page of an attempt, with what the devices did around it if somebody looked.
pub fn page(attempt: &AttemptEntry, trace: Option<&Trace>) -> String {
    let report = attempt.report.clone().and_then(|it| serde_json::from_value(it).ok());
    let mut body = head(attempt, report.as_ref());
    if let Some(report) = &report {
        body.push_str(&phases::section(report));
        body.push_str(&around(report, trace));
        body.push_str(&drained(report));
    }
    body.push_str(&whole(attempt));
    let title = escaped(&format!("{} {} to {}", attempt.kind, attempt.from, attempt.to));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

fn head(attempt: &AttemptEntry, report: Option<&UpgradeReport>) -> String {
    let class = match (attempt.succeeded(), attempt.exit_code) {
        (true, _) => "good",
        (false, Some(4) | None) => "bad",
        (false, Some(_)) => "notable",
    };
    let outcome = match (&attempt.outcome, attempt.state) {
        (Some(outcome), AttemptState::Settled) => format!("interrupted, {outcome}"),
        (Some(outcome), _) => outcome.clone(),
        (None, state) => state.to_string(),
    };
    let versions = match (attempt.from.is_empty(), attempt.to.is_empty()) {
        (false, false) => format!("{} → {}", attempt.from, attempt.to),
        (true, false) => attempt.to.clone(),
        _ => attempt.from.clone(),
    };
    let mode = attempt.mode.map_or_else(String::new, |mode| format!("{mode} "));
    let mut text = format!(
        "<h1>{} <span class=\"badge {class}\">{}</span></h1>\n<p class=\"faint\">Attempt {}: {mode}{}, {} UTC, by {} ({}), \
         kernel {}</p>\n",
        escaped(&versions),
        escaped(&outcome),
        attempt.attempt,
        attempt.kind,
        escaped(&attempt.began.replace('T', " ").replace('Z', "")),
        attempt.origin,
        escaped(&attempt.user),
        escaped(&attempt.kernel),
    );
    if let Some(reason) = &attempt.reason {
        let _ = writeln!(text, "<p class=\"{class}\">Why: {}</p>", escaped(reason));
    }
    let Some(report) = report else { return text };
    if let Some(remedy) = &report.remedy {
        let _ = writeln!(text, "<p>What to do: {}</p>", escaped(remedy));
    }
    for warning in &report.warnings {
        let _ = writeln!(text, "<p class=\"notable\">Warning: {}</p>", escaped(warning));
    }
    text.push_str("<dl>\n");
    for (name, value) in [
        ("I/O held for", show_micros(report.pause_us)),
        ("attempt took", attempt.took_us.map_or_else(|| "?".to_owned(), show_micros)),
        ("devices", report.devices.to_string()),
        ("open handles kept", report.opens.to_string()),
        ("image", show_bytes(report.image_bytes)),
        ("preserved objects", report.preserved.to_string()),
    ] {
        let _ = writeln!(text, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    text.push_str("</dl>\n");
    text
}

/// What the devices did, when somebody looked.
fn around(report: &UpgradeReport, trace: Option<&Trace>) -> String {
    let around = trace.and_then(|trace| Around::of(report, &trace.samples));
    match around {
        Some(around) => chart::sections(&around),
        None => "<section><h2>Requests around the upgrade</h2><p class=\"faint\">Nobody looked at the devices: \
                 <code>atomctl upgrade --trace</code> does.</p></section>\n"
            .to_owned(),
    }
}

fn drained(report: &UpgradeReport) -> String {
    if report.stages.is_empty() && report.blockers.is_empty() {
        return String::new();
    }
    let mut text = "<section>\n<h2>The drain</h2>\n<table><tr><th>waited for</th><th class=\"n\">at its beginning</th>\
                    <th class=\"n\">left</th><th class=\"n\">took</th></tr>\n"
        .to_owned();
    for Stage { name, began, left, us } in &report.stages {
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td class=\"n\">{began}</td><td class=\"n\">{left}</td><td class=\"n\">{}</td></tr>",
            escaped(name),
            show_micros(*us)
        );
    }
    text.push_str("</table>\n");
    if !report.blockers.is_empty() {
        let owed = report.owed.unwrap_or_default();
        let _ = writeln!(
            text,
            "<p>{owed} requests were still owed at the deadline. The first of them:</p>\n<table><tr><th>device</th>\
             <th>operation</th><th class=\"n\">tag</th><th class=\"n\">sector</th><th class=\"n\">bytes</th>\
             <th class=\"n\">age</th><th>the payload says</th></tr>"
        );
        for one in &report.blockers {
            let _ = writeln!(
                text,
                "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{} ms</td><td>{}</td></tr>",
                escaped(&one.device),
                escaped(&one.op),
                one.tag,
                one.sector,
                one.bytes,
                one.age_ms,
                escaped(one.reason.as_deref().unwrap_or("-"))
            );
        }
        text.push_str("</table>\n");
    }
    text.push_str("</section>\n");
    text
}

fn whole(attempt: &AttemptEntry) -> String {
    let json = serde_json::to_string_pretty(attempt).unwrap_or_default();
    format!(
        "<section><details><summary>Everything that the journal has of it, as JSON</summary><pre>{}</pre></details></section>\n",
        escaped(&json)
    )
}

/// Text as it may stand in a page, also in quotes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter => safe.push(letter),
        }
    }
    safe
}
