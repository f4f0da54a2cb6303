// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What was measured, as a table in Markdown, as it goes into the documents.

use std::fmt::Write;

use atom_tests::bench::series::{quantile, Metric, Series, OURS};
use atom_tests::bench::{Document, How};

use super::growth;

/// In a second of a clock that counts there are so many instructions.
const INSTRUCTIONS: f64 = 1e9;

/// All of a document; `accel` is how the guest's processor was made.
pub fn of(document: &Document, accel: &str) -> String {
    let rounds = document.series.iter().map(|one| one.values.len()).max().unwrap_or(0);
    let mut text = format!(
        "Kernel {}, {accel}, {} processors, up to {rounds} rounds.\n\n",
        document.kernel, document.processors
    );
    for metric in Metric::ALL {
        let series: Vec<&Series> =
            document.series.iter().filter(|one| one.metric == metric).collect();
        if series.is_empty() {
            continue;
        }
        text.push_str(&match (metric, document.how) {
            (Metric::Iops, How::Counted) => counted(&series),
            (Metric::Iops, _) => beside(&series),
            _ => alone(metric, &series),
        });
        text.push('\n');
    }
    let growth = growth::table(&document.series);
    if !growth.is_empty() {
        text.push_str(&growth);
        text.push('\n');
    }
    text
}

/// Ours and each peer's, with the ratio of each pair.
fn beside(series: &[&Series]) -> String {
    let mut text =
        "| setup | peer | ours, IOPS | theirs, IOPS | ratio | middle half | all pairs |\n\
                    | --- | --- | ---: | ---: | ---: | --- | --- |\n"
            .to_owned();
    for (ours, theirs) in pairs(series) {
        let (Some(one), Some(other), Some(ratio)) =
            (ours.spread(), theirs.spread(), ours.to(theirs))
        else {
            continue;
        };
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {:.0} | {:.2} | {:.2} to {:.2} | {:.2} to {:.2} |",
            ours.setup,
            theirs.subject,
            one.median,
            other.median,
            ratio.median,
            ratio.quartiles.0,
            ratio.quartiles.1,
            ratio.range.0,
            ratio.range.1
        );
    }
    text
}

/// The same in instructions.
fn counted(series: &[&Series]) -> String {
    let mut text = "Instructions of the whole guest, fio and servers included.\n\n\
                    | setup | peer | ours, per request | theirs, per request | speed, ours to theirs |\n\
                    | --- | --- | ---: | ---: | ---: |\n"
        .to_owned();
    for (ours, theirs) in pairs(series) {
        let (Some(one), Some(other), Some(ratio)) =
            (ours.spread(), theirs.spread(), ours.to(theirs))
        else {
            continue;
        };
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {:.0} | {:.2} |",
            ours.setup,
            theirs.subject,
            INSTRUCTIONS / one.median,
            INSTRUCTIONS / other.median,
            ratio.median
        );
    }
    text
}

/// Ours with each of the others that are beside it.
fn pairs<'a>(series: &[&'a Series]) -> Vec<(&'a Series, &'a Series)> {
    let ours = series.iter().filter(|one| one.subject == OURS);
    ours.flat_map(|one| {
        series.iter().filter(|other| one.is_beside(other)).map(|other| (*one, *other))
    })
    .collect()
}

/// Times and sizes: each side for itself.
fn alone(metric: Metric, series: &[&Series]) -> String {
    let mut text = format!(
        "| {} | whose | rounds | median | middle half | 99th percentile | largest |\n\
         | --- | --- | ---: | ---: | --- | ---: | ---: |\n",
        metric.name()
    );
    for one in series {
        let (Some(spread), Some(high)) = (one.spread(), quantile(&one.values, 0.99)) else {
            continue;
        };
        let at = one.at.map(|at| format!(", {at}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "| {}{at} | {} | {} | {:.0} | {:.0} to {:.0} | {high:.0} | {:.0} |",
            one.setup,
            one.subject,
            one.values.len(),
            spread.median,
            spread.quartiles.0,
            spread.quartiles.1,
            spread.range.1
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use atom_tests::bench::{Suite, SCHEMA};

    use super::*;

    fn series(subject: &str, metric: Metric, values: &[f64]) -> Series {
        Series {
            setup: "read".to_owned(),
            subject: subject.to_owned(),
            metric,
            at: None,
            values: values.to_vec(),
        }
    }

    fn document(how: How) -> Document {
        Document {
            schema: SCHEMA.to_owned(),
            suite: Suite::Path,
            how,
            kernel: "7.2".to_owned(),
            commit: String::new(),
            processors: 2,
            series: vec![
                series(OURS, Metric::Iops, &[150.0, 50.0, 100.0]),
                series("peer", Metric::Iops, &[100.0, 100.0, 100.0]),
                series(OURS, Metric::Pause, &[1000.0, 3000.0]),
            ],
            traces: Vec::new(),
        }
    }

    #[test]
    fn each_peer_has_a_row_with_the_ratio_of_the_pairs() {
        let text = of(&document(How::Quick), "TCG");
        assert!(text.starts_with("Kernel 7.2, TCG, 2 processors, up to 3 rounds."), "{text}");
        assert!(
            text.contains("| read | peer | 100 | 100 | 1.00 | 0.75 to 1.25 | 0.50 to 1.50 |\n"),
            "{text}"
        );
        assert!(
            text.contains("| read | atom | 2 | 2000 | 1500 to 2500 | 2980 | 3000 |\n"),
            "{text}"
        );
    }

    #[test]
    fn a_clock_that_counts_says_instructions_of_a_request() {
        let text = of(&document(How::Counted), "TCG");
        assert!(text.contains("| read | peer | 10000000 | 10000000 | 1.00 |\n"), "{text}");
    }
}
