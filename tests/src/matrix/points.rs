// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The failpoints of the modules that are loaded, as they list them themselves.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::axes::Fault;

/// Where the kernel shows them.
const FOLDER: &str = "/sys/kernel/debug";

/// One line of a module's file: `POINT kinds=error,delay armed=off passed=3 hit=0 waiting=0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    pub name: String,
    pub kinds: Vec<String>,
    /// How often a fault happened at it.
    pub hit: u64,
    /// Tasks that hang at it.
    pub waiting: u64,
}

impl Point {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let name = words.next()?.to_owned();
        let mut point = Self { name, kinds: Vec::new(), hit: 0, waiting: 0 };
        for word in words {
            match word.split_once('=')? {
                ("kinds", kinds) => point.kinds = kinds.split(',').map(str::to_owned).collect(),
                ("hit", count) => point.hit = count.parse().ok()?,
                ("waiting", count) => point.waiting = count.parse().ok()?,
                _ => {}
            }
        }
        Some(point)
    }

    /// Its faults.
    pub fn faults(&self) -> impl Iterator<Item = Fault> + '_ {
        self.kinds.iter().map(|kind| Fault::new(&self.name, kind))
    }
}

fn file(module: &str) -> PathBuf {
    PathBuf::from(FOLDER).join(module).join("failpoints")
}

/// Whether a module that is loaded has failpoints.
pub fn has(module: &str) -> bool {
    file(module).exists()
}

/// The points of a module.
pub fn list(module: &str) -> Result<Vec<Point>> {
    let path = file(module);
    let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    let points: Option<Vec<Point>> = text.lines().map(Point::parse).collect();
    points.with_context(|| format!("nobody understands {}: {text}", path.display()))
}

/// How often a fault happened at a point of a module; 0 once the module is gone.
pub fn hits(module: &str, name: &str) -> u64 {
    let points = list(module).unwrap_or_default();
    points.iter().find(|point| point.name == name).map_or(0, |point| point.hit)
}

/// Gives a module's failpoints a line.
pub fn tell(module: &str, line: &str) -> Result<()> {
    fs::write(file(module), line).with_context(|| format!("{module} did not take {line:?}"))
}

/// What is written to arm a fault. Most strike once; one in the path of I/O some times.
pub fn line(fault: &Fault) -> String {
    let Fault { point, kind } = fault;
    let with = match kind.as_str() {
        "error" => "error=EIO",
        "delay" => "delay=200",
        "data" => "data=40",
        other => other,
    };
    let times = if fault.step() == "io" && kind != "oops" { 20 } else { 1 };
    format!("{point} {with} next={times}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_from_the_modules_own_line() {
        let line = "payload.adopt.bind kinds=error,delay,oops armed=error=5,next=1 passed=7 hit=2 waiting=1";
        let wanted = Point {
            name: "payload.adopt.bind".to_owned(),
            kinds: ["error", "delay", "oops"].map(str::to_owned).to_vec(),
            hit: 2,
            waiting: 1,
        };
        assert_eq!(Point::parse(line), Some(wanted));
        assert_eq!(Point::parse(""), None);
        assert_eq!(Point::parse("payload.adopt.bind kinds=error hit=x"), None);
        assert_eq!(Point::parse("payload.adopt.bind kinds"), None);
    }

    #[test]
    fn a_fault_in_the_path_of_io_strikes_some_times_and_others_once() {
        assert_eq!(
            line(&Fault::new("payload.adopt.begin", "error")),
            "payload.adopt.begin error=EIO next=1"
        );
        assert_eq!(
            line(&Fault::new("payload.queue.page", "no_memory")),
            "payload.queue.page no_memory next=20"
        );
        assert_eq!(
            line(&Fault::new("payload.queue.request", "oops")),
            "payload.queue.request oops next=1"
        );
    }
}
