// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! How what was measured grows with what it was measured at: the exponent of a power, which is 0 for what stays, 1 for what
//! grows in proportion, and 2 for its square.

use std::fmt::Write;

use atom_tests::bench::series::{Metric, Series};

/// What times and memory are looked at for; the phases of a pause are in it.
const METRICS: [Metric; 3] = [Metric::Pause, Metric::Whole, Metric::Bytes];

/// One curve.
struct Curve<'a> {
    setup: &'a str,
    subject: &'a str,
    metric: Metric,
    /// Where it was measured, and the median there.
    points: Vec<(f64, f64)>,
}

/// The exponents of all curves, as a table in Markdown; nothing where there is no curve.
pub fn table(series: &[Series]) -> String {
    let mut rows = String::new();
    for curve in curves(series) {
        let (Some(whole), Some(end)) = (curve.exponent(), curve.end().exponent()) else {
            continue;
        };
        let (Some(first), Some(last)) = (curve.points.first(), curve.points.last()) else {
            continue;
        };
        let _ = writeln!(
            rows,
            "| {} | {} | {} | {} to {} | {whole:.2} | {end:.2} |",
            curve.setup,
            curve.subject,
            curve.metric.name(),
            first.0,
            last.0
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "Grows like a power of the number, with this exponent over all sizes, and from the last but one to the last:\n\n\
         | setup | whose | what | from, to | exponent | at the end |\n\
         | --- | --- | --- | --- | ---: | ---: |\n{rows}"
    )
}

fn curves(series: &[Series]) -> Vec<Curve<'_>> {
    let mut curves: Vec<Curve<'_>> = Vec::new();
    for one in series.iter().filter(|one| METRICS.contains(&one.metric)) {
        let (Some(at), Some(spread)) = (one.at, one.spread()) else { continue };
        // What is not there yet, as memory that was lying ready, has no place on a curve of this kind.
        if at == 0 || spread.median <= 0.0 {
            continue;
        }
        let point = (at as f64, spread.median);
        let known = curves.iter_mut().find(|curve| {
            (curve.setup, curve.subject, curve.metric)
                == (one.setup.as_str(), one.subject.as_str(), one.metric)
        });
        match known {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve {
                setup: &one.setup,
                subject: &one.subject,
                metric: one.metric,
                points: vec![point],
            }),
        }
    }
    for curve in &mut curves {
        curve.points.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    curves
}

impl Curve<'_> {
    /// Its last two points.
    fn end(&self) -> Self {
        let begin = self.points.len().saturating_sub(2);
        Self { points: self.points.get(begin..).unwrap_or_default().to_vec(), ..*self }
    }

    /// The slope of the line through the logarithms that is nearest to them, by least squares. `None`: too few points.
    fn exponent(&self) -> Option<f64> {
        let logs: Vec<(f64, f64)> = self.points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
        let count = logs.len() as f64;
        let middle_x = logs.iter().map(|log| log.0).sum::<f64>() / count;
        let middle_y = logs.iter().map(|log| log.1).sum::<f64>() / count;
        let across: f64 = logs.iter().map(|(x, y)| (x - middle_x) * (y - middle_y)).sum();
        let along: f64 = logs.iter().map(|(x, _)| (x - middle_x).powi(2)).sum();
        (logs.len() > 1 && along > 0.0).then(|| across / along)
    }
}

#[cfg(test)]
mod tests {
    use atom_tests::bench::series::OURS;

    use super::*;

    fn curve(metric: Metric, of: impl Fn(f64) -> f64) -> Vec<Series> {
        [1u64, 16, 128, 1024]
            .into_iter()
            .map(|at| Series {
                setup: "devices".to_owned(),
                subject: OURS.to_owned(),
                metric,
                at: Some(at),
                values: vec![of(at as f64); 3],
            })
            .collect()
    }

    #[test]
    fn a_power_has_its_exponent_wherever_it_is_looked_at() {
        for (exponent, shown) in [(0.0, "0.00"), (0.5, "0.50"), (1.0, "1.00"), (2.0, "2.00")] {
            let text = table(&curve(Metric::Whole, |at| 7.0 * at.powf(exponent)));
            let row =
                format!("| devices | atom | whole duration, us | 1 to 1024 | {shown} | {shown} |");
            assert!(text.contains(&row), "{row} in {text}");
        }
    }

    #[test]
    fn what_begins_flat_and_ends_steep_shows_at_the_end() {
        let text = table(&curve(Metric::Pause, |at| 1000.0 + at * at));
        let row = text.lines().last().unwrap();
        let numbers: Vec<f64> =
            row.split('|').filter_map(|cell| cell.trim().parse().ok()).collect();
        assert!(numbers[0] < 1.2 && numbers[1] > 1.9, "{row}");
    }

    #[test]
    fn nothing_is_said_of_what_has_no_size_or_is_a_part_of_something_else() {
        let mut alone = curve(Metric::Pause, |at| at);
        alone.truncate(1);
        assert_eq!(table(&alone), "");
        assert_eq!(table(&curve(Metric::Freeze, |at| at)), "");
        let empty = curve(Metric::Bytes, |at| if at < 100.0 { 0.0 } else { at });
        assert!(table(&empty).contains("128 to 1024 | 1.00 | 1.00"), "{}", table(&empty));
        assert_eq!(table(&[]), "");
    }
}
