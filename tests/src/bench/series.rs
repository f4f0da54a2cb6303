// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Numbers of one kind, one for each round, and what pairs of rounds say.
//!
//! All sides of a comparison are measured in each round, one after the other. What a pair shows is a ratio, so that what
//! else the host does meets both.

use atom_abi::control::phase;
use serde::{Deserialize, Serialize};

/// What our side is called.
pub const OURS: &str = "atom";

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Requests in a second; more is better.
    Iops,
    /// Microseconds from the first gate that closes to the last that opens, as the kernel, or whoever asks it, measures.
    Pause,
    /// Microseconds of the pause until no dispatch runs any more.
    Close,
    /// Microseconds of the pause in which what was owed ended.
    Drain,
    /// Microseconds of the pause in which the old payload wrote its image.
    Freeze,
    /// Microseconds of the pause in which the new payload took over.
    Adopt,
    /// Microseconds of the pause in which the gates opened.
    Open,
    /// Microseconds of the longest time in which an application got nothing back, in a window around the pause.
    Gap,
    /// The same in an equal window in which nothing happens.
    QuietGap,
    /// Microseconds of the whole operation, what comes before and after the pause included.
    Whole,
    /// Bytes of memory.
    Bytes,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Iops,
        Self::Pause,
        Self::Close,
        Self::Drain,
        Self::Freeze,
        Self::Adopt,
        Self::Open,
        Self::Gap,
        Self::QuietGap,
        Self::Whole,
        Self::Bytes,
    ];

    /// The phase of a report that one is about.
    pub const PHASES: [(Self, usize); 5] = [
        (Self::Close, phase::CLOSE),
        (Self::Drain, phase::DRAIN),
        (Self::Freeze, phase::FREEZE),
        (Self::Adopt, phase::ADOPT),
        (Self::Open, phase::OPEN),
    ];

    /// For tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iops => "IOPS",
            Self::Pause => "pause, us",
            Self::Close => "close, us",
            Self::Drain => "drain, us",
            Self::Freeze => "freeze, us",
            Self::Adopt => "adopt, us",
            Self::Open => "open, us",
            Self::Gap => "longest gap, us",
            Self::QuietGap => "longest gap without it, us",
            Self::Whole => "whole duration, us",
            Self::Bytes => "bytes",
        }
    }
}

/// The numbers of one side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What is compared, and under which conditions.
    pub setup: String,
    /// Whose numbers: [`OURS`], or the name of a peer.
    pub subject: String,
    /// What is counted.
    pub metric: Metric,
    /// Where on a curve, as a number of devices.
    pub at: Option<u64>,
    /// One for each round, in their order.
    pub values: Vec<f64>,
}

/// What the rounds of one side say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    /// The first and the third quartile.
    pub quartiles: (f64, f64),
    /// The smallest and the largest.
    pub range: (f64, f64),
}

impl Spread {
    /// Of these values; `None` without one.
    pub fn of(values: &[f64]) -> Option<Self> {
        let at = |part: f64| quantile(values, part);
        Some(Self {
            median: at(0.5)?,
            quartiles: (at(0.25)?, at(0.75)?),
            range: (at(0.0)?, at(1.0)?),
        })
    }
}

impl Series {
    /// Its spread.
    pub fn spread(&self) -> Option<Spread> {
        Spread::of(&self.values)
    }

    /// The spread of the ratios of its values to another one's, round by round.
    pub fn to(&self, other: &Self) -> Option<Spread> {
        let pairs = self.values.iter().zip(&other.values);
        Spread::of(&pairs.map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
    }

    /// Whether it is about the same as another one, by another subject.
    pub fn is_beside(&self, other: &Self) -> bool {
        (&self.setup, self.metric, self.at) == (&other.setup, other.metric, other.at)
            && self.subject != other.subject
    }
}

/// The value below which this part of the values lies, between neighbours in proportion.
pub fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = part * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted.get(place.floor() as usize)?, sorted.get(place.ceil() as usize)?);
    Some(below + (above - below) * place.fract())
}

/// Collects what the rounds of one setup bring.
#[derive(Debug, Default)]
pub struct Rounds {
    series: Vec<Series>,
}

impl Rounds {
    /// Adds a number of this round.
    pub fn add(&mut self, setup: &str, subject: &str, metric: Metric, at: Option<u64>, value: f64) {
        let same = |one: &&mut Series| {
            one.setup == setup && one.subject == subject && one.metric == metric && one.at == at
        };
        match self.series.iter_mut().find(same) {
            Some(one) => one.values.push(value),
            None => self.series.push(Series {
                setup: setup.to_owned(),
                subject: subject.to_owned(),
                metric,
                at,
                values: vec![value],
            }),
        }
    }

    /// All that was added, in the order in which each was added first.
    pub fn end(self) -> Vec<Series> {
        self.series
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(subject: &str, values: &[f64]) -> Series {
        Series {
            setup: "read".to_owned(),
            subject: subject.to_owned(),
            metric: Metric::Iops,
            at: None,
            values: values.to_vec(),
        }
    }

    #[test]
    fn a_ratio_is_that_of_each_round_and_not_of_the_medians() {
        // The host was busy in the second round, and both sides have felt it.
        let (ours, theirs) =
            (series(OURS, &[100.0, 10.0, 120.0]), series("peer", &[100.0, 20.0, 100.0]));
        let ratio = ours.to(&theirs).expect("three rounds");
        assert_eq!((ratio.median, ratio.range), (1.0, (0.5, 1.2)));
        assert_eq!(ratio.quartiles, (0.75, 1.1));
        assert!(ours.is_beside(&theirs) && !ours.is_beside(&ours));
        assert_eq!(series(OURS, &[]).spread(), None);
    }

    #[test]
    fn a_quantile_lies_between_its_neighbours_in_proportion() {
        assert_eq!(quantile(&[4.0, 1.0, 3.0, 2.0], 0.5), Some(2.5));
        assert_eq!(quantile(&[1.0, 2.0], 0.99), Some(1.99));
        assert_eq!(quantile(&[7.0], 0.99), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn what_the_rounds_bring_is_kept_by_side_and_kind() {
        let mut rounds = Rounds::default();
        for round in [1.0, 2.0] {
            rounds.add("swap", OURS, Metric::Pause, None, round);
            rounds.add("swap", "peer", Metric::Pause, None, 10.0 * round);
            rounds.add("swap", OURS, Metric::Pause, Some(16), 100.0 * round);
        }
        let series = rounds.end();
        let values: Vec<_> = series.iter().map(|one| one.values.clone()).collect();
        assert_eq!(values, [vec![1.0, 2.0], vec![10.0, 20.0], vec![100.0, 200.0]]);
    }
}
