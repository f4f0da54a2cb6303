// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The phases of an upgrade along the time, drawn: first all of it, then the time in which I/O was held.

use std::fmt::Write;

use atom_abi::control::phase;

use super::escaped;
use crate::quantity::show_micros;
use crate::report::UpgradeReport;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 10.0;
const BAR: f64 = 34.0;
/// A phase that is there is seen, however short it was.
const NARROWEST: f64 = 1.5;
/// What a label needs of width, per letter.
const LETTER: f64 = 7.2;
const COLOURS: usize = 7;

/// What is known of each phase, for whoever reads it the first time.
const MEANINGS: [(&str, &str); 10] = [
    ("prepare", "the new payload gets ready; I/O is served"),
    ("close", "the gates close on all queues"),
    ("drain", "the old payload ends the requests that it owes"),
    ("freeze", "the old payload writes its state"),
    ("held", "no payload is there"),
    ("adopt", "the new payload takes over the state and the devices"),
    ("open", "the gates open, and the requests that waited go on"),
    ("release", "what the old payload had is given back; I/O is served"),
    ("rmmod", "the old module is removed, within held"),
    ("insmod", "the new module is inserted, within held"),
];

/// A phase on the time line.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Span<'a> {
    pub(super) name: &'a str,
    /// Microseconds since the beginning.
    pub(super) begin: u64,
    pub(super) us: u64,
    pub(super) held: bool,
}

/// The phases one after the other. Those within another one are left out.
pub(super) fn spans(report: &UpgradeReport) -> Vec<Span<'_>> {
    const ORDER: [usize; phase::COUNT] = [
        phase::PREPARE,
        phase::CLOSE,
        phase::DRAIN,
        phase::FREEZE,
        phase::HELD,
        phase::ADOPT,
        phase::OPEN,
        phase::RELEASE,
    ];
    let mut at = 0u64;
    let mut spans = Vec::new();
    for index in ORDER {
        let known = report.phases_us.iter().find(|(name, _)| Some(name) == phase::NAMES.get(index));
        if let Some((name, us)) = known {
            let held = index != phase::PREPARE && index != phase::RELEASE;
            spans.push(Span { name, begin: at, us, held });
            at = at.saturating_add(us);
        }
    }
    spans
}

/// When I/O was held, in microseconds since the beginning.
pub(super) fn held(spans: &[Span<'_>]) -> Option<(u64, u64)> {
    let first = spans.iter().find(|span| span.held)?;
    let last = spans.iter().rfind(|span| span.held)?;
    Some((first.begin, last.begin.saturating_add(last.us)))
}

/// The drawing with its table.
pub(super) fn section(report: &UpgradeReport) -> String {
    let spans = spans(report);
    if spans.is_empty() {
        return String::new();
    }
    let mut text = "<section>\n<h2>Phases</h2>\n".to_owned();
    text.push_str(&drawing(&spans));
    text.push_str("<table><tr><th>phase</th><th class=\"n\">took</th><th>what happens</th></tr>\n");
    for (name, us) in report.phases_us.iter() {
        let place = spans.iter().position(|span| span.name == name);
        let key = place.map_or_else(String::new, |place| {
            format!("<i class=\"key {}\"></i>", colour(&spans, place))
        });
        let meaning =
            MEANINGS.iter().find(|(known, _)| *known == name).map_or("", |(_, what)| what);
        let _ = writeln!(
            text,
            "<tr><td>{key}{}</td><td class=\"n\">{}</td><td class=\"faint\">{meaning}</td></tr>",
            escaped(name),
            show_micros(us)
        );
    }
    text.push_str("</table>\n</section>\n");
    text
}

fn colour(spans: &[Span<'_>], place: usize) -> String {
    match spans.get(place) {
        Some(span) if span.held => {
            let number = spans.iter().take(place).filter(|span| span.held).count();
            format!("p{}", number % COLOURS)
        }
        _ => "served".to_owned(),
    }
}

fn drawing(spans: &[Span<'_>]) -> String {
    let end = spans.last().map_or(0, |span| span.begin.saturating_add(span.us));
    let mut svg = String::new();
    let all = Scale { from: 0, to: end };
    let Some((begun, ended)) = held(spans) else {
        return framed(&(row(spans, spans, &all, 26.0) + &axis(&all, 26.0 + BAR)), 100.0);
    };
    if (begun, ended) == (0, end) {
        let _ = writeln!(
            svg,
            "<text class=\"heldtext\" x=\"{LEFT}\" y=\"16\">I/O held: {}</text>",
            show_micros(end)
        );
        svg.push_str(&row(spans, spans, &all, 26.0));
        svg.push_str(&axis(&all, 26.0 + BAR));
        return framed(&svg, 90.0);
    }
    let detail = Scale { from: begun, to: ended };
    let (top, below) = (26.0, 150.0);
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"16\" class=\"faint\">all of it, {}</text>",
        show_micros(end)
    );
    svg.push_str(&row(spans, spans, &all, top));
    // From the pause in the whole to the pause alone.
    let (from, to) = (all.x(begun), all.x(ended).max(all.x(begun) + NARROWEST));
    let right = LEFT + WIDTH;
    let foot = top + BAR + 22.0;
    let _ = writeln!(
        svg,
        "<polygon class=\"held\" points=\"{from:.1},{foot} {to:.1},{foot} {right},{below} {LEFT},{below}\"/>\
         <rect class=\"held\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"22\"/>\
         <text class=\"heldtext\" x=\"{LEFT}\" y=\"{:.1}\">I/O held: {}</text>",
        top + BAR,
        to - from,
        below - 10.0,
        show_micros(ended.saturating_sub(begun))
    );
    svg.push_str(&axis(&all, top + BAR));
    let inner: Vec<Span<'_>> = spans.iter().filter(|span| span.held).cloned().collect();
    svg.push_str(&row(&inner, spans, &detail, below));
    svg.push_str(&axis(&detail, below + BAR));
    framed(&svg, below + BAR + 30.0)
}

/// From microseconds to places.
struct Scale {
    from: u64,
    to: u64,
}

impl Scale {
    fn x(&self, us: u64) -> f64 {
        let whole = self.to.saturating_sub(self.from).max(1) as f64;
        LEFT + us.saturating_sub(self.from) as f64 / whole * WIDTH
    }
}

fn row(drawn: &[Span<'_>], all: &[Span<'_>], scale: &Scale, y: f64) -> String {
    let mut svg = String::new();
    for span in drawn {
        let place = all.iter().position(|one| one.name == span.name).unwrap_or(0);
        let x = scale.x(span.begin);
        let width = (scale.x(span.begin.saturating_add(span.us)) - x).max(NARROWEST);
        let (name, took) = (escaped(span.name), show_micros(span.us));
        let _ = writeln!(
            svg,
            "<rect class=\"{}\" x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\"><title>{name}: {took}</title></rect>",
            colour(all, place)
        );
        let middle = x + width / 2.0;
        let letters = |text: &str| text.chars().count() as f64 * LETTER;
        if letters(span.name).max(letters(&took)) < width {
            let class = if span.held { "inheld" } else { "inserved" };
            let _ = writeln!(
                svg,
                "<text class=\"{class} strong\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>\
                 <text class=\"{class}\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{took}</text>",
                y + 15.0,
                y + 29.0
            );
        }
    }
    svg
}

fn axis(scale: &Scale, y: f64) -> String {
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>",
        LEFT + WIDTH
    );
    let whole = scale.to.saturating_sub(scale.from);
    let step = super::chart::step(whole as f64, 6.0);
    for at in super::chart::ticks(0.0, whole as f64, step) {
        let x = scale.x(scale.from.saturating_add(at as u64));
        let anchor = if at == 0.0 { "start" } else { "middle" };
        if x < LEFT + WIDTH - 20.0 {
            let _ = writeln!(
                svg,
                "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y}\" y2=\"{:.1}\"/>\
                 <text class=\"faint\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                y + 5.0,
                y + 18.0,
                super::chart::short_time(at)
            );
        }
    }
    svg
}

fn framed(svg: &str, height: f64) -> String {
    format!(
        "<figure><svg viewBox=\"0 0 {} {height}\" role=\"img\" aria-label=\"Phases along the time\">\n{svg}</svg></figure>\n",
        WIDTH + 2.0 * LEFT
    )
}
