// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! All that was measured, on one HTML page with drawings.

use std::fmt::{Display, Write};

use anyhow::{anyhow, Result};
use atom_tests::bench::series::{Metric, Series};
use atom_tests::bench::window::Trace;
use atom_tests::bench::Document;
use plotters::prelude::*;

use super::targets;

const SIZE: (u32, u32) = (860, 320);
/// Bars of a histogram for each factor of ten.
const BARS: f64 = 20.0;

/// The page. `about` says what was measured, on what, and when.
pub fn of(documents: &[Document], about: &str) -> Result<String> {
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Atom: measurements</title>\n\
         <style>\nbody {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em; color: #222 }}\n\
         table {{ border-collapse: collapse }}\ntd, th {{ border-bottom: 1px solid #ddd; padding: .2em .8em; text-align: left }}\n\
         .no {{ color: #a00; font-weight: bold }}\n.faint {{ color: #666 }}\n</style>\n<h1>Measurements</h1>\n\
         <p class=\"faint\">{}</p>\n",
        escaped(about)
    );
    text.push_str(
        "<h2>Targets</h2>\n<table><tr><th>what</th><th>wanted</th><th>measured</th><th></th></tr>\n",
    );
    for one in targets::judge(documents) {
        let word = match (&one.measured, one.is_reached) {
            (None, _) => "<td class=\"faint\">not measured</td>",
            (Some(_), true) => "<td>reached</td>",
            (Some(_), false) => "<td class=\"no\">not reached</td>",
        };
        let measured = one.measured.as_deref().unwrap_or("-");
        let (what, wanted) = (escaped(one.what), escaped(&one.wanted));
        let _ =
            writeln!(text, "<tr><td>{what}</td><td>{wanted}</td><td>{measured}</td>{word}</tr>");
    }
    text.push_str("</table>\n");
    for document in documents {
        let _ = writeln!(text, "<h2>{}</h2>", escaped(document.suite.name()));
        for drawing in drawings(document)? {
            text.push_str(&drawing);
        }
        for trace in &document.traces {
            let _ = writeln!(
                text,
                "<h3>{}: {}, reads around a change</h3>\n{}",
                escaped(&trace.setup),
                escaped(&trace.subject),
                around(trace)?
            );
        }
    }
    text.push_str("</html>\n");
    Ok(text)
}

/// One for each setup with each metric.
fn drawings(document: &Document) -> Result<Vec<String>> {
    let mut seen: Vec<(&str, Metric)> = Vec::new();
    let mut all = Vec::new();
    for one in &document.series {
        let key = (one.setup.as_str(), one.metric);
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let same = |other: &&Series| (other.setup.as_str(), other.metric) == key;
        let series: Vec<&Series> = document.series.iter().filter(same).collect();
        let drawing = match (one.metric, one.at) {
            (_, Some(_)) => curves(&series)?,
            (Metric::Iops, None) => medians(&series)?,
            _ => histogram(&series)?,
        };
        all.push(format!(
            "<h3>{}: {}</h3>\n{drawing}\n",
            escaped(&one.setup),
            escaped(one.metric.name())
        ));
    }
    Ok(all)
}

/// How often which value, by factors.
fn histogram(series: &[&Series]) -> Result<String> {
    let bar = |value: f64| (value.max(1.0).log10() * BARS).floor() as i32;
    let values = || series.iter().flat_map(|one| &one.values).copied();
    let (low, high) = (
        values().map(bar).min().ok_or_else(|| anyhow!("no value"))?,
        values().map(bar).max().ok_or_else(|| anyhow!("no value"))? + 1,
    );
    let count = |one: &Series, at: i32| one.values.iter().filter(|v| bar(**v) == at).count() as u32;
    let most =
        series.iter().flat_map(|one| (low..high).map(|at| count(one, at))).max().unwrap_or(1);
    let edge = |at: i32| 10f64.powf(f64::from(at) / BARS);
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d((edge(low)..edge(high)).log_scale(), 0..most + 1)
            .map_err(failed)?;
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh().y_desc("rounds").draw().map_err(failed)?;
        for (index, one) in series.iter().enumerate() {
            let color = Palette99::pick(index);
            let bars = (low..high).filter(|at| count(one, *at) > 0).map(|at| {
                let corners = [(edge(at), 0), (edge(at + 1), count(one, at))];
                Rectangle::new(corners, color.mix(0.6).filled())
            });
            let drawn = chart.draw_series(bars).map_err(failed)?;
            drawn.label(one.subject.clone()).legend(move |(x, y)| {
                Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.mix(0.6).filled())
            });
        }
        let mut labels = chart.configure_series_labels();
        labels.border_style(BLACK.mix(0.2)).background_style(WHITE.mix(0.8));
        labels.draw().map_err(failed)
    })
}

/// Medians over sizes, both by factors.
fn curves(series: &[&Series]) -> Result<String> {
    let mut subjects: Vec<&str> = series.iter().map(|one| one.subject.as_str()).collect();
    subjects.dedup();
    subjects.sort_unstable();
    subjects.dedup();
    let points = |subject: &str| -> Vec<(f64, f64)> {
        let theirs = series.iter().filter(|one| one.subject == subject);
        theirs.filter_map(|one| Some((one.at? as f64, one.spread()?.median.max(1.0)))).collect()
    };
    let all: Vec<(f64, f64)> = subjects.iter().flat_map(|subject| points(subject)).collect();
    let least = |of: fn(&(f64, f64)) -> f64| all.iter().map(of).fold(f64::INFINITY, f64::min);
    let most = |of: fn(&(f64, f64)) -> f64| all.iter().map(of).fold(1.0, f64::max);
    let (x, y) = ((least(|p| p.0), most(|p| p.0)), (least(|p| p.1), most(|p| p.1)));
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(
                (x.0 / 1.2..x.1 * 1.2).log_scale(),
                (y.0 / 1.5..y.1 * 1.5).log_scale(),
            )
            .map_err(failed)?;
        chart.configure_mesh().draw().map_err(failed)?;
        for (index, subject) in subjects.iter().enumerate() {
            let color = Palette99::pick(index);
            let line = LineSeries::new(points(subject), color.stroke_width(2)).point_size(3);
            let drawn = chart.draw_series(line).map_err(failed)?;
            drawn.label(*subject).legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2))
            });
        }
        let mut labels = chart.configure_series_labels();
        labels.border_style(BLACK.mix(0.2)).background_style(WHITE.mix(0.8));
        labels.draw().map_err(failed)
    })
}

/// How long each read took, over the time, with the change behind it.
fn around(trace: &Trace) -> Result<String> {
    let millis = |us: f64| us / 1000.0;
    let reads: Vec<(f64, f64)> =
        trace.reads.iter().map(|(at, took)| (millis(*at), took.max(1.0))).collect();
    let end = reads.iter().fold(millis(trace.change.1), |end, (at, _)| end.max(*at));
    let low = reads.iter().fold(f64::INFINITY, |low, (_, took)| low.min(*took)).min(1000.0);
    let high = reads.iter().fold(1.0, |high: f64, (_, took)| high.max(*took));
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..end, (low / 1.5..high * 1.5).log_scale())
            .map_err(failed)?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc("ms").y_desc("us").draw().map_err(failed)?;
        let corners = [(millis(trace.change.0), low / 1.5), (millis(trace.change.1), high * 1.5)];
        let change = Rectangle::new(corners, Palette99::pick(1).mix(0.2).filled());
        chart.draw_series([change]).map_err(failed)?;
        let dots = reads.iter().map(|read| Circle::new(*read, 1, Palette99::pick(0).filled()));
        chart.draw_series(dots).map_err(failed)?;
        Ok(())
    })
}

/// A table: one number for each side.
fn medians(series: &[&Series]) -> Result<String> {
    let mut text = "<table>\n".to_owned();
    for one in series {
        let Some(spread) = one.spread() else { continue };
        writeln!(
            text,
            "<tr><td>{}</td><td>{:.0}</td><td class=\"faint\">{:.0} to {:.0}</td></tr>",
            escaped(&one.subject),
            spread.median,
            spread.range.0,
            spread.range.1
        )?;
    }
    text.push_str("</table>");
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw(paint: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        paint(&area)?;
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

fn failed(error: impl Display) -> anyhow::Error {
    anyhow!("the page cannot be drawn: {error}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use atom_tests::bench::window::Trace;
    use atom_tests::bench::{How, Suite, SCHEMA};

    use super::*;

    #[test]
    fn each_setup_is_drawn_with_all_who_are_in_it() {
        let series = |setup: &str, subject: &str, metric, at, values: &[f64]| Series {
            setup: setup.to_owned(),
            subject: subject.to_owned(),
            metric,
            at,
            values: values.to_vec(),
        };
        let document = Document {
            schema: SCHEMA.to_owned(),
            suite: Suite::Pause,
            how: How::Quick,
            kernel: "7.2".to_owned(),
            commit: String::new(),
            processors: 2,
            series: vec![
                series("swap <1>", "atom", Metric::Pause, None, &[500.0, 700.0, 0.0]),
                series("swap <1>", "a peer", Metric::Pause, None, &[50_000.0]),
                series("devices", "atom", Metric::Pause, Some(1), &[500.0]),
                series("devices", "atom", Metric::Pause, Some(128), &[900.0]),
                series("read", "atom", Metric::Iops, None, &[5000.0]),
            ],
            traces: vec![Trace {
                setup: "swap <1>".to_owned(),
                subject: "atom".to_owned(),
                change: (1000.0, 2000.0),
                reads: vec![(500.0, 40.0), (2100.0, 1100.0)],
            }],
        };
        let page = of(&[document], "measured on a <machine>").expect("a page");
        assert_eq!(page.matches("<svg").count(), 3, "{page}");
        for part in
            ["swap &lt;1&gt;", "a peer", "a &lt;machine&gt;", "<td>5000</td>", "not measured"]
        {
            assert!(page.contains(part), "no {part} in {page}");
        }
    }
}
