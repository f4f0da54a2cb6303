// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Failpoints as the matrix uses them: which there are, how each kind is armed, whether one has struck.

use anyhow::Result;

use super::axes::Fault;
use crate::failpoint::{self, Point};

/// Whether a module that is loaded has failpoints.
pub fn has(module: &str) -> bool {
    failpoint::list(module).is_ok()
}

/// What a module can fail with.
pub fn faults(module: &str) -> Result<Vec<Fault>> {
    let faults = |point: Point| -> Vec<Fault> {
        point.kinds.iter().map(|kind| Fault::new(&point.name, kind.name())).collect()
    };
    Ok(failpoint::list(module)?.into_iter().flat_map(faults).collect())
}

/// How often a fault happened at a point of a module; 0 once the module is gone.
pub fn hits(module: &str, name: &str) -> u64 {
    failpoint::find(module, name).map_or(0, |point| point.hit)
}

/// Arms a fault.
pub fn arm(module: &str, fault: &Fault) -> Result<()> {
    failpoint::set(module, &line(fault))
}

/// What is written to arm a fault. Most strike once; one in the path of I/O some times.
fn line(fault: &Fault) -> String {
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
