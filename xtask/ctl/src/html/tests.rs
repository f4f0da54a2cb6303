// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

use super::chart::{short_time, step, ticks};
use super::*;
use crate::journal::test_records::{began, ended};
use crate::journal::{Found, Record};
use crate::report::{JournalDocument, Mode, Outcome, Phases};
use crate::trace::Sample;

fn report(mode: Mode) -> UpgradeReport {
    let mut report =
        UpgradeReport::begin("7.2.12", "1.0.0", "1.1.0", mode).end(Outcome::Committed, None);
    report.phases_us = match mode {
        Mode::Warm => Phases::from_iter([
            ("prepare", 12_300),
            ("close", 210),
            ("drain", 41_200),
            ("freeze", 90),
            ("adopt", 3_300),
            ("open", 200),
            ("release", 1_100),
        ]),
        Mode::Cold => Phases::from_iter([
            ("close", 100),
            ("held", 9_000),
            ("rmmod", 3_000),
            ("insmod", 5_000),
            ("adopt", 400),
        ]),
    };
    report.pause_us = 45_000;
    report.began_ns = Some(1_500_000_000);
    report
}

fn attempt(report: &UpgradeReport) -> AttemptEntry {
    let mut end = ended(2, "committed", 0);
    end.report = serde_json::to_value(report).unwrap();
    let records = vec![Record::Began(began(2)), Record::Ended(end)];
    JournalDocument::new(&Found { records, ..Found::default() }, "b").attempts.remove(0)
}

/// A request each millisecond, but none in the pause from 1512.3 to 1557.3 ms.
fn trace() -> Trace {
    let (mut completed, mut took_ms) = (0, 0);
    let samples = (1000..2100).map(|ms: u64| {
        let held = (1513..1558).contains(&ms);
        if !held {
            completed += 4;
            took_ms += if ms == 1558 { 180 } else { 8 };
        }
        Sample { at_ns: ms * 1_000_000, in_flight: if held { 32 } else { 8 }, completed, took_ms }
    });
    let schema = Trace::SCHEMA.to_owned();
    Trace { schema, attempt: 2, boot: "b".to_owned(), samples: samples.collect() }
}

/// The elements of a page: each is closed, in the right order.
fn check_nesting(page: &str) {
    const VOID: [&str; 1] = ["meta"];
    let mut open: Vec<&str> = Vec::new();
    let body = page.split_once("<html").map(|(_, rest)| rest).unwrap();
    let mut rest = &format!("<html{body}")[..];
    while let Some(at) = rest.find('<') {
        let tag = &rest[at + 1..];
        let end = tag.find('>').expect("a tag without an end");
        let inside = &tag[..end];
        let name: &str = inside.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if inside.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{inside}");
        } else if !inside.ends_with('/') && !VOID.contains(&name) {
            open.push(Box::leak(name.to_owned().into_boxed_str()));
        }
        rest = &tag[end + 1..];
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_page_is_whole_and_fetches_nothing() {
    for (mode, trace) in [(Mode::Warm, Some(trace())), (Mode::Cold, None)] {
        let page = page(&attempt(&report(mode)), trace.as_ref());
        check_nesting(&page);
        for foreign in ["http:", "https:", "src=", "href=", "url(", "@import", "<script"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("1.0.0 → 1.1.0") && page.contains("drain") == (mode == Mode::Warm));
    }
}

#[test]
fn no_text_of_others_becomes_a_part_of_the_page() {
    let mut evil = report(Mode::Warm);
    evil.reason = Some("<script>alert('x')</script>".to_owned());
    evil.warnings = vec!["\"><b>".to_owned()];
    let mut attempt = attempt(&evil);
    attempt.user = "<i>".to_owned();
    attempt.to = "</title>".to_owned();
    attempt.reason = evil.reason;
    let page = page(&attempt, None);
    check_nesting(&page);
    for text in ["<script>", "<b>", "<i>", "</title></title>"] {
        assert!(!page.contains(text), "{text}");
    }
}

#[test]
fn what_was_seen_is_told_by_before_during_and_after() {
    let around = Around::of(&report(Mode::Warm), &trace().samples).unwrap();
    assert_eq!(around.pause, 45_000.0);
    let [before, held, after] = around.parts;
    assert_eq!((before.latency, before.in_flight), (Some(2000.0), 8));
    assert_eq!((held.completed, held.latency, held.in_flight), (0, None, 32));
    assert!(held.gap > 40_000.0 && before.gap < 2_000.0, "{held:?}");
    assert!(after.latency > before.latency && after.completed > 1000, "{after:?}");
    let slowest = around.latency.iter().fold((0.0, 0.0), |a, b| if b.1 > a.1 { *b } else { a });
    assert!((40_000.0..60_000.0).contains(&slowest.0), "{slowest:?}");
}

#[test]
fn what_was_completed_between_two_samples_is_not_counted_to_the_pause_that_began_between_them() {
    // A machine that is short of processors takes few samples.
    let few = [1490, 1500, 1530, 1550, 1570, 1580].map(|ms| ms * 1_000_000);
    let samples: Vec<Sample> =
        trace().samples.into_iter().filter(|sample| few.contains(&sample.at_ns)).collect();
    let [before, held, after] = Around::of(&report(Mode::Warm), &samples).unwrap().parts;
    assert_eq!((held.completed, held.us, held.gap), (0, 45_000.0, 45_000.0));
    assert!(before.completed > 40 && after.completed > 40, "{before:?} {after:?}");
}

#[test]
fn samples_of_another_time_are_not_drawn() {
    let mut late = report(Mode::Warm);
    late.began_ns = Some(9_000_000_000);
    assert_eq!(Around::of(&late, &trace().samples), None);
    late.began_ns = None;
    assert_eq!(Around::of(&late, &trace().samples), None);
}

#[test]
fn axes_have_round_numbers() {
    assert_eq!(step(45_000.0, 6.0), 10_000.0);
    assert_eq!(step(7.0, 4.0), 2.0);
    assert_eq!(step(0.0, 4.0), 0.0);
    assert_eq!(short_time(1_500.0), "1.5 ms");
    assert_eq!(short_time(-200_000.0), "-200 ms");
    assert_eq!(short_time(0.0), "0");
}

/// With ATOM_PAGES=DIR the pages of these tests can be looked at.
#[test]
fn pages_to_look_at() {
    let Some(folder) = std::env::var_os("ATOM_PAGES") else { return };
    let folder = std::path::PathBuf::from(folder);
    for (name, mode, seen) in [("warm", Mode::Warm, Some(trace())), ("cold", Mode::Cold, None)] {
        let text = page(&attempt(&report(mode)), seen.as_ref());
        std::fs::write(folder.join(format!("{name}.html")), text).unwrap();
    }
}

#[test]
fn a_page_about_absurd_times_comes_to_its_end() {
    // Times that nobody measured: of a damaged clock, or of a file that somebody has changed.
    for us in [u64::MAX, u64::MAX / 2, 1 << 60] {
        for name in ["prepare", "close", "drain", "release"] {
            let mut report = report(Mode::Warm);
            report.phases_us = Phases::from_iter([("prepare", 5), ("close", 7), (name, us)]);
            report.pause_us = us;
            check_nesting(&page(&attempt(&report), Some(&trace())));
        }
    }
}

#[test]
fn samples_at_the_end_of_all_clocks_are_drawn_with_a_few_marks() {
    let mut report = report(Mode::Warm);
    report.phases_us = Phases::from_iter([("close", u64::MAX / 1000), ("open", 1)]);
    report.began_ns = Some(0);
    let mut trace = trace();
    trace.samples = (0..8)
        .map(|n| Sample { at_ns: u64::MAX - n * 2048, in_flight: n, completed: n, took_ms: n })
        .collect();
    let page = page(&attempt(&report), Some(&trace));
    check_nesting(&page);
    assert!(page.matches("<text class=\"faint\"").count() < 100, "{page}");
}

#[test]
fn marks_are_multiples_of_their_step_and_few() {
    let of = |from, to, step| ticks(from, to, step).collect::<Vec<f64>>();
    assert_eq!(of(-250.0, 250.0, 100.0), [-200.0, -100.0, 0.0, 100.0, 200.0]);
    assert!(of(0.0, 5.0, 0.0).is_empty() && of(0.0, 5.0, f64::NAN).is_empty());
    assert!(of(1e19, 1e19 + 4096.0, 1.0).len() <= 16);
}
