// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Attempts, for people.

use std::fmt::Write;

use super::{row, table, upgrade, Paint};
use crate::quantity::show_micros;
use crate::report::{AttemptEntry, AttemptState, JournalDocument, LastAttempt, UpgradeReport};

/// The attempts of a machine, one a line, newest last.
pub fn journal(document: &JournalDocument, paint: Paint) -> String {
    let mut text = String::new();
    if document.attempts.is_empty() {
        text.push_str("nothing was attempted yet\n");
    } else {
        let mut rows = vec![row(["", "began", "what", "", "pause", "by", "outcome"])];
        rows.extend(document.attempts.iter().map(|one| {
            vec![
                number(one),
                short_time(&one.began),
                what(one),
                arrow(&one.from, &one.to),
                one.pause_us().map_or_else(|| "-".to_owned(), show_micros),
                by(one),
                outcome(one),
            ]
        }));
        let lines = table(&rows);
        let mut lines = lines.lines();
        if let Some(head) = lines.next() {
            let _ = writeln!(text, "{}", paint.faint(head));
        }
        for (line, one) in lines.zip(&document.attempts) {
            let line = match one.state {
                AttemptState::Running => line.to_owned(),
                AttemptState::Interrupted => paint.bad(line),
                _ if one.succeeded() => line.to_owned(),
                _ => paint.notable(line),
            };
            let _ = writeln!(text, "{line}");
            if let Some(reason) = one.reason.as_ref().filter(|_| !one.succeeded()) {
                let _ = writeln!(text, "    why: {reason}");
            }
        }
    }
    if document.damaged != 0 {
        let _ = writeln!(
            text,
            "{} {} records are damaged and were passed over",
            paint.bad("warning:"),
            document.damaged
        );
    }
    for note in &document.notes {
        let _ = writeln!(text, "{} {note}", paint.notable("note:"));
    }
    text
}

/// One attempt with everything that is known of it.
pub fn attempt(one: &AttemptEntry, paint: Paint) -> String {
    let mut rows = vec![
        row(["attempt", &number(one)]),
        row(["what", &format!("{}  {}", what(one), arrow(&one.from, &one.to))]),
        row(["began", &one.began]),
        row(["by", &format!("{} ({})", one.origin, one.user)]),
        row(["kernel", &one.kernel]),
        row(["state", &outcome(one)]),
    ];
    if let (Some(ended), Some(took)) = (&one.ended, one.took_us) {
        rows.push(row(["ended", &format!("{ended}, after {}", show_micros(took))]));
    }
    if let Some(reason) = &one.reason {
        rows.push(row(["why", reason]));
    }
    let mut text = table(&rows);
    if let Some(report) = &one.report {
        text.push('\n');
        match serde_json::from_value::<UpgradeReport>(report.clone()) {
            Ok(report) => text.push_str(&upgrade(&report, paint)),
            Err(_) => {
                let report = serde_json::to_string_pretty(report).unwrap_or_default();
                let _ = writeln!(text, "{report}");
            }
        }
    }
    text
}

/// The attempt that has failed last, in a line.
pub(super) fn last_attempt(last: &LastAttempt) -> String {
    let LastAttempt { attempt, kind, origin, began, to, outcome, reason, .. } = last;
    let to = if to.is_empty() { String::new() } else { format!(" to {to}") };
    let why = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!(
        "the last {kind}{to} failed ({outcome}, by {origin}, {}){why}; atomctl history --attempt {attempt}",
        short_time(began)
    )
}

fn number(one: &AttemptEntry) -> String {
    match one.attempt {
        0 => "-".to_owned(),
        number => number.to_string(),
    }
}

fn what(one: &AttemptEntry) -> String {
    match one.mode {
        Some(mode) => format!("{mode} {}", one.kind),
        None => one.kind.to_string(),
    }
}

fn by(one: &AttemptEntry) -> String {
    let origin = one.origin.to_string();
    if one.user == "root" || one.user.is_empty() {
        origin
    } else {
        format!("{origin} {}", one.user)
    }
}

fn outcome(one: &AttemptEntry) -> String {
    match (&one.outcome, one.state) {
        (Some(outcome), AttemptState::Settled) => format!("interrupted, {outcome}"),
        (Some(outcome), _) => outcome.clone(),
        (None, state) => state.to_string(),
    }
}

fn arrow(from: &str, to: &str) -> String {
    match (from.is_empty(), to.is_empty()) {
        (true, true) => "-".to_owned(),
        (true, false) => format!("-> {to}"),
        (false, true) => from.to_owned(),
        (false, false) => format!("{from} -> {to}"),
    }
}

/// To the second, as people write it.
fn short_time(at: &str) -> String {
    at.get(..19).unwrap_or(at).replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::test_records::{began, ended, settled};
    use crate::journal::{Found, Record};

    fn document() -> JournalDocument {
        let records = vec![
            Record::Began(began(7)),
            Record::Ended(ended(7, "committed", 0)),
            Record::Began(began(8)),
            Record::Ended(ended(8, "aborted", 1)),
            Record::Began(began(9)),
            Record::Began(began(10)),
            Record::Settled(settled(10, "undone")),
        ];
        JournalDocument::new(&Found { records, damaged: 1, notes: vec!["a".to_owned()] }, "b")
    }

    #[test]
    fn attempts_are_listed_with_what_became_of_them_and_why() {
        let expected =
            "    began                what                          pause    by        outcome
7   2026-01-01 00:00:01  warm upgrade  1.0.0 -> 1.1.0  7.00 ms  operator  committed
8   2026-01-01 00:00:01  warm upgrade  1.0.0 -> 1.1.0  8.00 ms  operator  aborted
    why: because
9   2026-01-01 00:00:01  warm upgrade  1.0.0 -> 1.1.0  -        operator  interrupted
10  2026-01-01 00:00:01  warm upgrade  1.0.0 -> 1.1.0  -        operator  interrupted, undone
    why: its tool did not come to its end; attempt 99 found that 1.0.0 serves
warning: 1 records are damaged and were passed over
note: a
";
        let text = journal(&document(), Paint::PLAIN);
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn a_name_may_be_longer_than_a_formatting_macro_can_fill() {
        let mut document = document();
        document.attempts[1].to = "x".repeat(70_000);
        let text = journal(&document, Paint::PLAIN);
        assert!(text.lines().any(|line| line.contains(&document.attempts[1].to)));
        assert!(text.lines().count() > 4);
    }

    #[test]
    fn the_attempt_that_failed_last_is_told_in_one_line() {
        let attempts = document().attempts;
        assert_eq!(LastAttempt::of(&attempts[..1]), None);
        let text = last_attempt(&LastAttempt::of(&attempts[1..2]).unwrap());
        assert_eq!(
            text,
            "the last upgrade to 1.1.0 failed (aborted, by operator, 2026-01-01 00:00:01): because; \
             atomctl history --attempt 8"
        );
    }
}
