// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The samples around an upgrade, by their time from the moment in which I/O began to be held.

use super::phases::{held, spans};
use crate::report::UpgradeReport;
use crate::trace::Sample;

/// How much is shown before and after, at most, in microseconds.
const MARGIN_US: f64 = 500_000.0;
/// Latencies are put together for so long, in microseconds: the block layer counts whole milliseconds.
const BIN_US: f64 = 10_000.0;

/// What the devices did.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Around {
    /// Microseconds from the beginning of the pause, and requests in flight then.
    pub(super) in_flight: Vec<(f64, u64)>,
    /// Microseconds at the middle of a bin, and the mean latency of what was completed in it, in microseconds.
    pub(super) latency: Vec<(f64, f64)>,
    /// How long I/O was held, in microseconds.
    pub(super) pause: f64,
    /// What was seen before, meanwhile and after.
    pub(super) parts: [Part; 3],
}

/// What was seen in one part of the time.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub(super) struct Part {
    /// How long it is, in microseconds.
    pub(super) us: f64,
    /// Requests that were completed.
    pub(super) completed: u64,
    /// How long each took, on the average, in microseconds; none when none was completed.
    pub(super) latency: Option<f64>,
    /// The most requests in flight.
    pub(super) in_flight: u64,
    /// The longest time in which nothing was completed, as far as samples tell.
    pub(super) gap: f64,
}

impl Around {
    /// None when there are no samples around it, or the report does not say when it was.
    pub(super) fn of(report: &UpgradeReport, samples: &[Sample]) -> Option<Self> {
        let spans = spans(report);
        let (begun, ended) = held(&spans)?;
        let pause = ended.saturating_sub(begun) as f64;
        let zero_ns = report.began_ns? as f64 + begun as f64 * 1e3;
        let time = |sample: &Sample| (sample.at_ns as f64 - zero_ns) / 1e3;
        let seen: Vec<(f64, Sample)> = samples
            .iter()
            .map(|sample| (time(sample), *sample))
            .filter(|(at, _)| (-MARGIN_US..=pause + MARGIN_US).contains(at))
            .collect();
        if seen.len() < 3 {
            return None;
        }
        // Nothing is completed while I/O is held. So what was completed between the last sample before and the first
        // one within belongs to the time before, and that at the other end to the time after.
        let (begins, ends) = (
            seen.partition_point(|(at, _)| *at < 0.0),
            seen.partition_point(|(at, _)| *at < pause),
        );
        let until = if begins < ends { begins.saturating_add(1) } else { begins };
        let range = |from: usize, to: usize| seen.get(from..to).unwrap_or_default();
        let (early, meanwhile, late) =
            (range(0, begins), range(begins, ends), range(ends, seen.len()));
        let held = Part::of(meanwhile, meanwhile);
        let gap = if held.completed == 0 { pause } else { held.gap };
        let before = Part::of(range(0, until), early);
        let after = Part::of(range(ends.saturating_sub(1), seen.len()), late);
        Some(Self {
            in_flight: seen.iter().map(|(at, sample)| (*at, sample.in_flight)).collect(),
            latency: latencies(&seen),
            pause,
            parts: [before, Part { us: pause, gap, ..held }, after],
        })
    }
}

impl Part {
    /// Of the samples whose differences count, and of those that lie within.
    fn of(samples: &[(f64, Sample)], within: &[(f64, Sample)]) -> Self {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
            return Self::default();
        };
        let completed = last.1.completed.saturating_sub(first.1.completed);
        let took_ms = last.1.took_ms.saturating_sub(first.1.took_ms);
        let mut gap: f64 = 0.0;
        let mut since = first;
        for sample in samples {
            if sample.1.completed != since.1.completed {
                since = sample;
            }
            gap = gap.max(sample.0 - since.0);
        }
        Self {
            us: last.0 - first.0,
            completed,
            latency: (completed != 0).then(|| took_ms as f64 * 1e3 / completed as f64),
            in_flight: within.iter().map(|(_, sample)| sample.in_flight).max().unwrap_or(0),
            gap,
        }
    }
}

fn latencies(samples: &[(f64, Sample)]) -> Vec<(f64, f64)> {
    let bin = |at: f64| (at / BIN_US).floor();
    let mut latencies = Vec::new();
    let Some(mut first) = samples.first() else {
        return latencies;
    };
    for sample in samples {
        if bin(sample.0) == bin(first.0) {
            continue;
        }
        let completed = sample.1.completed.saturating_sub(first.1.completed);
        if completed != 0 {
            let took_ms = sample.1.took_ms.saturating_sub(first.1.took_ms);
            latencies
                .push((f64::midpoint(first.0, sample.0), took_ms as f64 * 1e3 / completed as f64));
        }
        first = sample;
    }
    latencies
}
