// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Recoveries, for people.

use std::fmt::Write;

use super::Paint;
use crate::problem::Exit;
use crate::report::{Recovery, RecoveryOutcome};

/// What was found, done and left.
pub fn recovery(recovery: &Recovery, paint: Paint) -> String {
    let mut text = format!("{}\n", recovery.found);
    let planned = recovery.outcome == RecoveryOutcome::Planned;
    for (index, step) in recovery.plan.iter().enumerate() {
        let mark = match index {
            index if index < recovery.done => paint.good("done"),
            _ if planned => paint.faint("todo"),
            index if index == recovery.done => paint.bad("fail"),
            _ => paint.faint("left"),
        };
        let _ = writeln!(text, "  {mark}  {step}");
    }
    for left in &recovery.left {
        let _ = writeln!(text, "  {} {left}", paint.notable("left:"));
    }
    let outcome = match recovery.outcome {
        RecoveryOutcome::Nothing => "there is nothing to do".to_owned(),
        outcome => outcome.to_string(),
    };
    let outcome = match recovery.outcome.exit() {
        Exit::Done => paint.good(&outcome),
        Exit::Attention => paint.bad(&outcome),
        _ => paint.notable(&outcome),
    };
    let serves = match recovery.live.as_str() {
        "" => "no payload serves".to_owned(),
        live => format!("payload {live} serves"),
    };
    let _ = writeln!(text, "{outcome}: {serves}");
    if let Some(reason) = &recovery.reason {
        let _ = writeln!(text, "  why: {reason}");
    }
    if let Some(remedy) = &recovery.remedy {
        let _ = writeln!(text, "  what to do: {remedy}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_that_failed_is_marked_and_those_behind_it_are_left() {
        let shown = recovery(
            &Recovery {
                schema: Recovery::SCHEMA.to_owned(),
                outcome: RecoveryOutcome::Held,
                found: "no payload serves".to_owned(),
                plan: vec!["one".to_owned(), "two".to_owned(), "three".to_owned()],
                done: 1,
                left: Vec::new(),
                reason: Some("it broke".to_owned()),
                remedy: Some("mend it".to_owned()),
                live: String::new(),
            },
            Paint::PLAIN,
        );
        let expected = "no payload serves\n  done  one\n  fail  two\n  left  three\n\
                        held: no payload serves\n  why: it broke\n  what to do: mend it\n";
        assert_eq!(shown, expected);
    }
}
