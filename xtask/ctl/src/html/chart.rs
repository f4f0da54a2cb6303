// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the devices did around the pause, drawn.

use std::fmt::Write;

use super::around::{Around, Part};
use crate::quantity::show_micros;

const WIDTH: f64 = 800.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 22.0;
const HEIGHT: f64 = 150.0;
const NARROWEST: f64 = 2.0;

/// Requests in flight, their latency, and both in numbers.
pub(super) fn sections(around: &Around) -> String {
    let in_flight: Vec<(f64, f64)> =
        around.in_flight.iter().map(|(at, n)| (*at, *n as f64)).collect();
    format!(
        "<section>\n<h2>Requests in flight</h2>\n<p class=\"faint\">On all devices together, each millisecond. Time counts from \
         the moment in which I/O began to be held.</p>\n{}</section>\n\
         <section>\n<h2>Latency</h2>\n<p class=\"faint\">The mean of the requests that were completed in ten milliseconds, \
         from their start to their end: requests that waited in the pause count with their wait.</p>\n{}</section>\n\
         <section>\n<h2>Before, during and after</h2>\n{}</section>\n",
        Chart::new(around, &in_flight, count).steps(),
        Chart::new(around, &around.latency, short_time).bars(),
        numbers(around),
    )
}

fn numbers(around: &Around) -> String {
    let mut text = "<table><tr><th></th><th class=\"n\">time</th><th class=\"n\">completed</th><th class=\"n\">per second</th>\
                    <th class=\"n\">mean latency</th><th class=\"n\">most in flight</th>\
                    <th class=\"n\">longest without a completion</th></tr>\n"
        .to_owned();
    for (name, part) in ["before", "I/O held", "after"].iter().zip(&around.parts) {
        let Part { us, completed, latency, in_flight, gap } = *part;
        let rate = if us > 0.0 { completed as f64 * 1e6 / us } else { 0.0 };
        let micros = |us: f64| show_micros(us.max(0.0) as u64);
        let _ = writeln!(
            text,
            "<tr><td>{name}</td><td class=\"n\">{}</td><td class=\"n\">{completed}</td><td class=\"n\">{rate:.0}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{in_flight}</td><td class=\"n\">{}</td></tr>",
            micros(us),
            latency.map_or_else(|| "-".to_owned(), micros),
            micros(gap)
        );
    }
    text.push_str("</table>\n<p class=\"faint\">As far as samples of a millisecond tell.</p>\n");
    text
}

/// One drawing of values over the time.
struct Chart<'a> {
    values: &'a [(f64, f64)],
    from: f64,
    to: f64,
    top: f64,
    pause: f64,
    show: fn(f64) -> String,
}

impl<'a> Chart<'a> {
    fn new(around: &Around, values: &'a [(f64, f64)], show: fn(f64) -> String) -> Self {
        let times = || around.in_flight.iter().map(|(at, _)| *at);
        let highest = values.iter().fold(0.0, |most: f64, (_, value)| most.max(*value));
        let grid = step(highest, 4.0);
        Self {
            values,
            from: times().fold(f64::INFINITY, f64::min),
            to: times().fold(f64::NEG_INFINITY, f64::max),
            top: if grid > 0.0 { (highest / grid).ceil() * grid } else { 1.0 },
            pause: around.pause,
            show,
        }
    }

    fn x(&self, at: f64) -> f64 {
        LEFT + (at - self.from) / (self.to - self.from).max(1.0) * WIDTH
    }

    fn y(&self, value: f64) -> f64 {
        TOP + HEIGHT - value / self.top * HEIGHT
    }

    fn steps(&self) -> String {
        let mut path = String::new();
        let mut last = None;
        for (at, value) in self.values {
            let (x, y) = (self.x(*at), self.y(*value));
            let _ = match last {
                None => write!(path, "M{x:.1} {y:.1}"),
                // A run of equal values is one line.
                Some(before) if before == *value => Ok(()),
                Some(_) => write!(path, "H{x:.1}V{y:.1}"),
            };
            last = Some(*value);
        }
        let (first, end, floor) = (self.x(self.from), self.x(self.to), self.y(0.0));
        let _ = write!(path, "H{end:.1}");
        self.framed(&format!(
            "<path class=\"area\" d=\"{path}V{floor:.1}H{first:.1}Z\"/><path class=\"line\" d=\"{path}\"/>\n"
        ))
    }

    fn bars(&self) -> String {
        let width = (self.x(9_000.0) - self.x(0.0)).max(NARROWEST);
        let mut svg = String::new();
        for (at, value) in self.values {
            let y = self.y(*value);
            let _ = writeln!(
                svg,
                "<rect class=\"bar\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
                self.x(*at) - width / 2.0,
                self.y(0.0) - y,
                (self.show)(*value)
            );
        }
        self.framed(&svg)
    }

    fn framed(&self, drawn: &str) -> String {
        let (begin, end) = (self.x(0.0), self.x(self.pause).max(self.x(0.0) + NARROWEST));
        let floor = TOP + HEIGHT;
        let mut svg = self.grid();
        // The words stand where there is room for them.
        let (place, anchor) =
            if end < LEFT + WIDTH - 160.0 { (end + 6.0, "start") } else { (begin - 6.0, "end") };
        let _ = writeln!(
            svg,
            "<rect class=\"held\" x=\"{begin:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{HEIGHT}\"/>{drawn}\
             <line class=\"edge\" x1=\"{begin:.1}\" x2=\"{begin:.1}\" y1=\"{}\" y2=\"{floor}\"/>\
             <line class=\"edge\" x1=\"{end:.1}\" x2=\"{end:.1}\" y1=\"{}\" y2=\"{floor}\"/>\
             <text class=\"heldtext\" x=\"{place:.1}\" y=\"12\" text-anchor=\"{anchor}\">I/O held: {}</text>",
            end - begin,
            TOP - 16.0,
            TOP - 16.0,
            show_micros(self.pause as u64)
        );
        format!(
            "<figure><svg viewBox=\"0 0 {} {}\" role=\"img\">\n{svg}</svg></figure>\n",
            LEFT + WIDTH + 16.0,
            floor + 26.0
        )
    }

    fn grid(&self) -> String {
        let mut svg = String::new();
        let right = LEFT + WIDTH;
        let rows = step(self.top, 4.0);
        for value in ticks(0.0, self.top * 1.001, rows) {
            let y = self.y(value);
            let _ = writeln!(
                svg,
                "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"faint\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                (self.show)(value)
            );
        }
        let columns = step(self.to - self.from, 8.0);
        for at in ticks(self.from, self.to, columns) {
            let sign = if at > 0.0 { "+" } else { "" };
            let _ = writeln!(
                svg,
                "<text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{sign}{}</text>",
                self.x(at),
                TOP + HEIGHT + 18.0,
                short_time(at)
            );
        }
        svg
    }
}

/// A round distance, so that some `wanted` of them fit: 1, 2 or 5 with zeros. 0 when there is nothing to divide.
pub(super) fn step(whole: f64, wanted: f64) -> f64 {
    if whole <= 0.0 || !whole.is_finite() {
        return 0.0;
    }
    let rough = whole / wanted;
    let unit = 10f64.powf(rough.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0].into_iter().find(|times| times * unit >= rough);
    (times.unwrap_or(10.0) * unit).max(1.0)
}

/// The multiples of `step` from `from` to `to`; none when there is no step. Between numbers that are very large and close to
/// each other a step may be lost in rounding, so no more of them come than [`step`] can have meant.
pub(super) fn ticks(from: f64, to: f64, step: f64) -> impl Iterator<Item = f64> {
    const MOST: u32 = 16;
    let first = (from / step).ceil();
    (0..MOST)
        .map(move |number| (first + f64::from(number)) * step)
        .take_while(move |at| step > 0.0 && *at <= to)
}

/// A time as short as it can be written.
pub(super) fn short_time(us: f64) -> String {
    let (value, unit) = match us.abs() {
        0.0 => return "0".to_owned(),
        small if small < 1e3 => (us, "us"),
        middle if middle < 1e6 => (us / 1e3, "ms"),
        _ => (us / 1e6, "s"),
    };
    let digits = format!("{value:.2}");
    format!("{} {unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

fn count(value: f64) -> String {
    format!("{value:.0}")
}
