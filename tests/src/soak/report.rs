// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What came of a run: judged from its record alone.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::growth::{self, Course, Point};
use super::plan::Kind;
use super::record::{Begun, Block, Ended, Event};
use super::sample::limit_of;

/// The name and version of the document.
pub const SCHEMA: &str = "atom.soak-report/1";

/// How a run went, or goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub schema: String,
    /// When it was judged, in UTC.
    pub date: String,
    #[serde(flatten)]
    pub begun: Begun,
    /// Upgrades that were done.
    pub done: u64,
    /// How long they took.
    pub seconds: f64,
    /// All that was tried, by kind.
    pub kinds: BTreeMap<Kind, u64>,
    /// Operations that were verified, and the longest of them.
    pub ios: u64,
    pub slowest_io_us: u64,
    /// How long I/O was held.
    pub pause_us: Pauses,
    /// The upgrades between which growth is judged.
    pub judged_from: u64,
    pub judged_to: u64,
    /// What was counted, by name.
    pub counts: BTreeMap<String, Count>,
    pub verdict: Verdict,
    /// What is wrong.
    pub why: Vec<String>,
}

/// Pauses of all upgrades.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pauses {
    pub median: u64,
    pub p99: u64,
    pub max: u64,
}

/// A count over the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// Median of the first third of the samples that are judged, and of the last third.
    pub first: f64,
    pub last: f64,
    /// What it rises by with each upgrade.
    pub per_upgrade: f64,
    /// What it may rise by from the first of these samples to the last.
    pub allowed: f64,
    pub course: Course,
}

/// What to think of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is not over.
    Running,
    /// No error, and nothing grows.
    Passed,
    Failed,
}

impl Report {
    /// Judges a record. None: it does not say how it began.
    pub fn of(events: &[Event], date: &str) -> Option<Self> {
        let mut begun = None;
        let mut ended = None;
        let mut blocks: Vec<&Block> = Vec::new();
        for event in events {
            match event {
                Event::Begun(one) => begun = Some(one),
                Event::Block(one) => blocks.push(one),
                Event::Ended(one) => ended = Some(one),
            }
        }
        let begun = begun?.clone();
        let last = blocks.last();
        let warm: Vec<&Block> =
            blocks.iter().copied().filter(|one| one.upgrades >= begun.wanted.warm_up()).collect();
        let counts = counts(&warm);
        let mut kinds = BTreeMap::new();
        for (kind, count) in blocks.iter().flat_map(|block| &block.kinds) {
            *kinds.entry(*kind).or_default() += count;
        }
        let why = wrong(&begun, last.map_or(0, |block| block.upgrades), ended, &counts);
        let verdict = match (why.is_empty(), ended) {
            (false, _) => Verdict::Failed,
            (true, None) => Verdict::Running,
            (true, Some(_)) => Verdict::Passed,
        };
        let pauses = blocks.iter().flat_map(|block| block.pauses_us.iter().copied());
        let ios = last.map_or(0, |block| block.ios);
        Some(Self {
            schema: SCHEMA.to_owned(),
            date: date.to_owned(),
            done: last.map_or(0, |block| block.upgrades),
            seconds: last.map_or(0.0, |block| block.seconds),
            kinds,
            ios: ended.map_or(ios, |ended| ended.ios.max(ios)),
            slowest_io_us: ended.map_or(0, |ended| ended.slowest_io_us),
            pause_us: Pauses::of(pauses.collect()),
            judged_from: warm.first().map_or(0, |block| block.upgrades),
            judged_to: warm.last().map_or(0, |block| block.upgrades),
            counts,
            verdict,
            why,
            begun,
        })
    }

    /// In words, for a page.
    pub fn markdown(&self) -> String {
        let Self { begun, pause_us, .. } = self;
        let mut text = format!(
            "| | |\n| --- | --- |\n| date | {} |\n| commit | {} |\n| kernel | {} |\n| machine | {} |\n\
             | seed | {} |\n| upgrades in one boot | {} of {} in {:.0} s |\n",
            self.date,
            begun.wanted.commit,
            begun.kernel,
            begun.wanted.machine,
            begun.wanted.seed,
            self.done,
            begun.wanted.upgrades,
            self.seconds
        );
        for (kind, count) in &self.kinds {
            text.push_str(&format!("| {} | {count} |\n", kind.name()));
        }
        text.push_str(&format!(
            "| verified operations | {}, of which the longest took {} ms |\n\
             | pause of an upgrade | median {} µs, 99 of 100 within {} µs, at most {} µs |\n\
             | verdict | {} |\n",
            self.ios,
            self.slowest_io_us / 1000,
            pause_us.median,
            pause_us.p99,
            pause_us.max,
            match self.verdict {
                Verdict::Running => "not over",
                Verdict::Passed => "no error, and nothing grows",
                Verdict::Failed => "**failed**",
            }
        ));
        for why in &self.why {
            text.push_str(&format!("\n- {why}"));
        }
        text.push_str("\nThe volumes:\n\n");
        for volume in &begun.volumes {
            text.push_str(&format!("- {volume}\n"));
        }
        text.push_str(&self.growth());
        text
    }

    /// The table of what was counted: all that is not an object of some cache, and of those the ones that rose most.
    fn growth(&self) -> String {
        let mut text = format!(
            "\nFrom the {}th upgrade to the {}th, `kib/` in KiB, `slab/` in objects; *first* and *last* are the medians of the \
             first and the last third of the samples:\n\n\
             | count | first | last | with each upgrade | may rise by | course |\n\
             | --- | ---: | ---: | ---: | ---: | --- |\n",
            self.judged_from, self.judged_to
        );
        let (slab, other): (Vec<_>, Vec<_>) =
            self.counts.iter().partition(|(name, _)| name.starts_with("slab/"));
        let mut most = slab.clone();
        most.sort_by(|one, other| risen(other.1).total_cmp(&risen(one.1)));
        for (name, count) in other.into_iter().chain(most.into_iter().take(MOST)) {
            text.push_str(&format!(
                "| `{name}` | {} | {} | {:+.4} | {} | {} |\n",
                count.first,
                count.last,
                count.per_upgrade,
                count.allowed,
                match count.course {
                    Course::Steady => "steady",
                    Course::Grows => "**grows**",
                    Course::Stepped => "**stepped**",
                }
            ));
        }
        let rest = slab.len().saturating_sub(MOST);
        text.push_str(&format!("\nThe {rest} other caches rose by less than the last of these.\n"));
        text
    }
}

/// Caches that are shown.
const MOST: usize = 8;

/// How far a count rose, in parts of what it may.
fn risen(count: &Count) -> f64 {
    (count.last - count.first) / count.allowed.max(1.0)
}

/// All counts, each over the samples that have it: a cache may come or go.
fn counts(blocks: &[&Block]) -> BTreeMap<String, Count> {
    let names: BTreeSet<&String> = blocks.iter().flat_map(|block| block.sample.0.keys()).collect();
    let judged = names.into_iter().filter_map(|name| {
        let points: Vec<Point> = blocks
            .iter()
            .filter_map(|block| {
                let value = *block.sample.0.get(name)? as f64;
                Some(Point { upgrades: block.upgrades, value })
            })
            .collect();
        let judged = growth::judge(&points, limit_of(name))?;
        let growth::Judgement { first, last, per_upgrade, allowed, course } = judged;
        Some((name.clone(), Count { first, last, per_upgrade, allowed, course }))
    });
    judged.collect()
}

fn wrong(
    begun: &Begun,
    done: u64,
    ended: Option<&Ended>,
    counts: &BTreeMap<String, Count>,
) -> Vec<String> {
    let mut why = Vec::new();
    if let Some(ended) = ended {
        why.extend(ended.error.clone());
        if ended.error.is_none() && done < begun.wanted.upgrades {
            why.push(format!("it ended after {done} upgrades"));
        }
        // A run in which nothing was counted would pass whatever it leaks.
        if ended.error.is_none() && !counts.contains_key("kib/taken") {
            why.push("it was too short to judge".to_owned());
        }
    }
    for (name, count) in counts {
        let how = match count.course {
            Course::Steady => continue,
            Course::Grows => "grows",
            Course::Stepped => "rose in a step",
        };
        why.push(format!(
            "{name} {how}: from {} to {}, {:+.4} with each upgrade; it may rise by {}",
            count.first, count.last, count.per_upgrade, count.allowed
        ));
    }
    why
}

impl Pauses {
    fn of(mut all: Vec<u64>) -> Self {
        all.sort_unstable();
        let at =
            |part: usize| all.get(all.len().saturating_sub(1) * part / 100).copied().unwrap_or(0);
        Self { median: at(50), p99: at(99), max: at(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::record::Wanted;
    use crate::soak::sample::Sample;

    /// The record of a run of 60 upgrades in which counts are what `sample` says, and that ends so.
    fn run(sample: impl Fn(u64) -> Vec<(&'static str, u64)>, ended: Option<Ended>) -> Report {
        let wanted = Wanted {
            upgrades: 60,
            seed: 1,
            commit: "abc".to_owned(),
            machine: "two processors".to_owned(),
        };
        let begun = Begun { wanted, kernel: "7.2".to_owned(), volumes: vec!["`ram`".to_owned()] };
        let mut events = vec![Event::Begun(begun)];
        for upgrades in (3..=60).step_by(3) {
            let counts = sample(upgrades).into_iter().map(|(name, value)| (name.to_owned(), value));
            events.push(Event::Block(Block {
                upgrades,
                seconds: upgrades as f64,
                kinds: BTreeMap::from([(Kind::Warm, 3)]),
                pauses_us: vec![10 * upgrades, 5, 5],
                ios: 100 * upgrades,
                sample: Sample(counts.collect()),
            }));
        }
        events.extend(ended.map(Event::Ended));
        Report::of(&events, "2026-01-01").expect("a report")
    }

    fn well() -> Option<Ended> {
        Some(Ended { ios: 7000, slowest_io_us: 9000, error: None })
    }

    fn steady(_: u64) -> Vec<(&'static str, u64)> {
        vec![("kib/taken", 50_000), ("slab/kmalloc-64", 900), ("count/modules", 30)]
    }

    #[test]
    fn a_run_without_errors_and_growth_has_passed() {
        let report = run(steady, well());
        assert_eq!((report.verdict, report.why.clone()), (Verdict::Passed, vec![]));
        assert_eq!((report.judged_from, report.judged_to, report.done), (6, 60, 60));
        assert_eq!((report.ios, report.kinds[&Kind::Warm]), (7000, 60));
        assert_eq!(report.pause_us, Pauses { median: 5, p99: 570, max: 600 });
        let text = report.markdown();
        for part in
            ["| commit | abc |", "| warm | 60 |", "nothing grows", "| `kib/taken` | 50000 |"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn one_object_in_each_upgrade_fails_a_short_run_by_the_name_of_its_cache() {
        let leak = |n| vec![("kib/taken", 50_000), ("slab/kmalloc-64", 900 + n)];
        let report = run(leak, well());
        assert_eq!(report.verdict, Verdict::Failed);
        assert!(matches!(report.why.as_slice(), [one] if one.starts_with("slab/kmalloc-64 grows")));
        assert!(report.markdown().contains("| **grows** |"));
    }

    #[test]
    fn a_module_that_stays_fails_it() {
        let left = |n| vec![("kib/taken", 50_000), ("count/modules", if n > 30 { 31 } else { 30 })];
        let report = run(left, well());
        assert!(report.why[0].starts_with("count/modules rose in a step"), "{:?}", report.why);
    }

    #[test]
    fn what_leaks_at_the_beginning_only_does_not_count() {
        let warm = |n| vec![("kib/taken", 50_000), ("slab/dentry", if n < 6 { 0 } else { 9000 })];
        assert_eq!(run(warm, well()).verdict, Verdict::Passed);
    }

    #[test]
    fn an_error_fails_it_and_so_does_an_early_end_or_nothing_counted() {
        let error = Some(Ended { error: Some("a lane".to_owned()), ..Ended::default() });
        assert_eq!(run(steady, error).why, ["a lane"]);
        assert_eq!(run(|_| vec![], well()).why, ["it was too short to judge"]);
        assert_eq!(run(steady, None).verdict, Verdict::Running);
        let nothing = Event::Ended(Ended::default());
        assert!(Report::of(&[nothing], "").is_none());
    }
}
