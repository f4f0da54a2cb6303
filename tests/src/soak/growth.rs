// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Whether a series of numbers grows with the number of upgrades.
//!
//! What the kernel says of its memory is noisy: caches fill and empty, frees wait for a grace period, and one sample may be far
//! off. A leak is small and never stops. So nothing here looks at single samples:
//!
//! - the **slope** is the median of the slopes between all pairs of samples (Theil and Sen), which a quarter of wild samples
//!   does not move;
//! - a series **grows** when the line with this slope rises by more than is allowed, and does so in both halves: who leaks in each
//!   upgrade leaks in both, while a table that is enlarged once rises in one of them;
//! - it is **stepped** when its end is higher than its beginning by more than a step may be, though it does not grow.
//!
//! The noise of a series is what neighbours differ by. A rise that is within three times the noise says nothing.

use serde::{Deserialize, Serialize};

/// Samples below which nothing is judged: a median of slopes needs some.
pub const FEWEST: usize = 8;

/// Of the rise that is allowed, the part that must be seen in each half: a half of it would be there at a steady slope.
const IN_EACH_HALF: f64 = 0.25;
/// Rises within so many times the noise are noise. With normally distributed noise, one series in 400 is beyond it by chance,
/// and must then still be so in both halves.
const BEYOND_NOISE: f64 = 3.0;
/// What the median of absolute deviations is multiplied by to estimate a standard deviation.
const OF_NORMAL: f64 = 1.4826;

/// A sample: how many upgrades had been done, and what was counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub upgrades: u64,
    pub value: f64,
}

/// By how much a series may rise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Whatever the number of upgrades is.
    pub floor: f64,
    /// With each upgrade, besides.
    pub per_upgrade: f64,
    /// Once and for all, as a multiple of the above.
    pub step: f64,
}

/// What a series does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Course {
    /// Nothing that matters.
    Steady,
    /// It rises with the upgrades.
    Grows,
    /// It rose once, and by too much.
    Stepped,
}

/// A series that was judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// Median of the first third of the samples.
    pub first: f64,
    /// Median of the last third.
    pub last: f64,
    /// Slope of the whole.
    pub per_upgrade: f64,
    /// What it may rise by from its first sample to its last.
    pub allowed: f64,
    pub course: Course,
}

/// Judges a series in the order of its upgrades. None: there is too little of it.
pub fn judge(points: &[Point], limit: &Limit) -> Option<Judgement> {
    let (first, last) = (points.first()?, points.last()?);
    if points.len() < FEWEST || last.upgrades <= first.upgrades {
        return None;
    }
    let third = points.len() / 3;
    let (begin, end) = (points.get(..third)?, points.get(points.len() - third..)?);
    let (begin, end) = (middle(values(begin)), middle(values(end)));
    let allowed = limit.floor + limit.per_upgrade * (last.upgrades - first.upgrades) as f64;
    let noise = BEYOND_NOISE * noise(points);
    let slope = slope(points);
    let (early, late) = points.split_at(points.len() / 2);
    let in_halves = [early, late].iter().all(|half| rise(half) > IN_EACH_HALF * allowed);
    let grows = in_halves && rise(points) > allowed.max(noise);
    let course = match grows {
        true => Course::Grows,
        false if end - begin > (limit.step * allowed).max(noise) => Course::Stepped,
        false => Course::Steady,
    };
    Some(Judgement { first: begin, last: end, per_upgrade: slope, allowed, course })
}

/// What a line of the median slope rises by from the first sample to the last.
fn rise(points: &[Point]) -> f64 {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return 0.0 };
    slope(points) * last.upgrades.saturating_sub(first.upgrades) as f64
}

fn slope(points: &[Point]) -> f64 {
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (at, one) in points.iter().enumerate() {
        for other in points.iter().skip(at + 1).filter(|other| other.upgrades > one.upgrades) {
            slopes.push((other.value - one.value) / (other.upgrades - one.upgrades) as f64);
        }
    }
    middle(slopes)
}

/// The standard deviation of single samples, from what neighbours differ by: neither a slope nor a step changes it much.
fn noise(points: &[Point]) -> f64 {
    let apart = points.iter().zip(points.iter().skip(1)).map(|(one, next)| next.value - one.value);
    let apart: Vec<f64> = apart.collect();
    let usual = middle(apart.clone());
    let off = apart.iter().map(|one| (one - usual).abs()).collect();
    OF_NORMAL * middle(off) / std::f64::consts::SQRT_2
}

fn values(points: &[Point]) -> Vec<f64> {
    points.iter().map(|point| point.value).collect()
}

/// The median; 0 of nothing. Of an even number the upper one of the two in the middle.
fn middle(mut values: Vec<f64>) -> f64 {
    let half = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    // A run has hundreds of series with ten thousands of slopes each: they are not sorted.
    *values.select_nth_unstable_by(half, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Limit = Limit { floor: 40.0, per_upgrade: 0.02, step: 2.0 };
    const SPAN: u64 = 9000;

    /// A sample after each 50th upgrade, of which `of` says the value.
    fn series(of: impl Fn(u64) -> f64) -> Vec<Point> {
        (0..=SPAN / 50).map(|n| Point { upgrades: 1000 + 50 * n, value: of(50 * n) }).collect()
    }

    fn course(points: &[Point]) -> Course {
        judge(points, &LIMIT).expect("enough samples").course
    }

    fn allowed() -> f64 {
        LIMIT.floor + LIMIT.per_upgrade * SPAN as f64
    }

    #[test]
    fn too_few_samples_are_not_judged() {
        let points = series(|n| n as f64);
        assert_eq!(judge(&points[..FEWEST - 1], &LIMIT), None);
        assert!(judge(&points[..FEWEST], &LIMIT).is_some());
        let at_once = vec![Point { upgrades: 5, value: 1.0 }; 20];
        assert_eq!(judge(&at_once, &LIMIT), None);
    }

    #[test]
    fn an_object_in_each_twentieth_upgrade_is_found_and_measured() {
        let judged = judge(&series(|n| 1000.0 + (n / 20) as f64), &LIMIT).expect("enough");
        assert_eq!(judged.course, Course::Grows);
        assert!((judged.per_upgrade - 0.05).abs() < 0.002, "{judged:?}");
        assert!(judged.last > judged.first && judged.allowed == allowed());
    }

    #[test]
    fn a_short_run_finds_an_object_in_each_upgrade() {
        let points: Vec<Point> =
            (2..20).map(|n| Point { upgrades: 3 * n, value: 500.0 + 3.0 * n as f64 }).collect();
        let limit = Limit { floor: 40.0, ..LIMIT };
        assert_eq!(judge(&points, &limit).expect("enough").course, Course::Grows);
    }

    #[test]
    fn what_may_not_change_at_all_is_not_one_more_at_the_end() {
        let exact = Limit { floor: 0.5, per_upgrade: 0.0, step: 1.0 };
        let one_more = series(|n| if n > SPAN / 2 { 8.0 } else { 7.0 });
        assert_eq!(judge(&one_more, &exact).expect("enough").course, Course::Stepped);
        let for_a_moment = series(|n| if n == 500 { 90.0 } else { 7.0 });
        assert_eq!(judge(&for_a_moment, &exact).expect("enough").course, Course::Steady);
    }

    #[test]
    fn an_enlarged_table_is_a_step_and_no_growth() {
        for part in [0.3, 0.5, 0.7] {
            let at = (SPAN as f64 * part) as u64;
            let by = |size: f64| series(move |n| if n > at { 500.0 + size } else { 500.0 });
            assert_eq!(course(&by(1.9 * allowed())), Course::Steady, "at {part}");
            assert_eq!(course(&by(2.1 * allowed())), Course::Stepped, "at {part}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn noise_alone_is_steady(noise in prop::collection::vec(-0.5f64..0.5, 181), height in 1.0f64..2000.0) {
            let points = series(|n| 5000.0 + height * noise[(n / 50) as usize]);
            prop_assert_eq!(course(&points), Course::Steady);
        }

        #[test]
        fn a_leak_is_found_in_noise_of_half_its_size(
            noise in prop::collection::vec(-0.5f64..0.5, 181),
            leak in 1.3f64..50.0,
        ) {
            let rise = leak * allowed();
            let points = series(|n| {
                rise * (n as f64 / SPAN as f64) + rise / 2.0 * noise[(n / 50) as usize]
            });
            prop_assert_eq!(course(&points), Course::Grows);
        }

        #[test]
        fn a_leak_is_found_beside_wild_samples(
            wild in prop::collection::vec((0usize..181, 0.0f64..1e6), 0..20),
            leak in 1.5f64..50.0,
        ) {
            let rise = leak * allowed();
            let mut points = series(|n| rise * (n as f64 / SPAN as f64));
            for (at, value) in wild {
                points[at].value = value;
            }
            prop_assert_eq!(course(&points), Course::Grows);
        }

        #[test]
        fn wild_samples_alone_are_steady(wild in prop::collection::vec((0usize..181, 0.0f64..1e6), 0..20)) {
            let mut points = series(|_| 700.0);
            for (at, value) in wild {
                points[at].value = value;
            }
            prop_assert_eq!(course(&points), Course::Steady);
        }

        #[test]
        fn what_shrinks_is_steady(fall in 0.0f64..1e5, noise in prop::collection::vec(-0.5f64..0.5, 181)) {
            let points = series(|n| 1e6 - fall * (n as f64 / SPAN as f64) + noise[(n / 50) as usize]);
            prop_assert_eq!(course(&points), Course::Steady);
        }

        #[test]
        fn a_step_is_never_taken_for_growth(at in 0u64..SPAN, by in 0.0f64..1e6) {
            let points = series(|n| if n > at { by } else { 0.0 });
            prop_assert_ne!(course(&points), Course::Grows);
        }
    }
}
