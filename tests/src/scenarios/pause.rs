// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the pause is made of, as the kernel's function tracer sees it.

use std::fs;

use anyhow::{ensure, Context as _, Result};
use atomctl::report::Mode;

use super::Context;
use crate::load::fio::{Fio, Shape};
use crate::site::{Site, Spec};

const TRACING: &str = "/sys/kernel/tracing";
const DEVICES: usize = 16;
/// The functions that the pause is judged by.
const TRACED: &[&str] = &[
    "blk_mq_quiesce_queue_nowait",
    "blk_mq_unquiesce_queue",
    "synchronize_rcu",
    "synchronize_rcu_expedited",
    "synchronize_srcu",
    "load_module",
    "free_module",
    "request_module",
    "__request_module",
    "kmem_cache_create_usercopy",
];

pub fn the_pause_is_one_expedited_grace_period_and_loads_nothing(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("1.0.0")?;
    let mut loads = Vec::new();
    for index in 0..DEVICES {
        let device = site.volume(&format!("v{index}"), Spec::ram(16).depth(8))?;
        if index < 2 {
            loads.push(Fio::start(&device, Shape { depth: 16, bytes: 4 << 20, verify: true })?);
        }
    }
    context.run(&["mount", "-t", "tracefs", "tracefs", TRACING])?;
    let known = fs::read_to_string(format!("{TRACING}/available_filter_functions"))?;
    let traced: Vec<&str> = TRACED
        .iter()
        .copied()
        .filter(|name| known.lines().any(|line| line.split_whitespace().next() == Some(name)))
        .collect();
    for name in ["synchronize_rcu", "synchronize_rcu_expedited", "load_module"] {
        ensure!(traced.contains(&name), "the kernel does not trace {name}");
    }
    write("set_ftrace_filter", &traced.join("\n"))?;
    write("current_tracer", "function")?;

    for (version, round) in [("1.1.0", 0), ("1.0.0", 1), ("1.1.0", 2), ("1.0.0", 3)] {
        context.step(&format!("round {round}, to {version}"));
        write("trace", "")?;
        write("tracing_on", "1")?;
        let report = site.upgrade(version, Mode::Warm)?;
        write("tracing_on", "0")?;
        judge(&fs::read_to_string(format!("{TRACING}/trace"))?)?;

        let phase = |name: &str| report.phases_us.get(name).unwrap_or(0);
        let inside: u64 = ["close", "drain", "freeze", "adopt", "open"].map(phase).iter().sum();
        // Each phase is rounded down to a microsecond.
        ensure!(
            inside <= report.pause_us && report.pause_us <= inside + 10,
            "the phases do not add up to the pause: {report:?}"
        );
        ensure!(report.devices == DEVICES as u32, "{} devices", report.devices);
        context.fact(&format!("phases_us_{round}"), &report.phases_us);
    }
    write("current_tracer", "nop")?;
    for load in loads {
        load.stop()?;
    }
    site.leave()
}

/// The pause lies between the first gate that closes and the last that opens. What counts is what the task waits for
/// that hands over: the kernel frees the init code of the module that was just loaded whenever it likes, after a grace
/// period of its own (`do_free_init`).
fn judge(trace: &str) -> Result<()> {
    let lines = || trace.lines().filter(|line| !line.starts_with('#'));
    let hands_over = lines()
        .find(|line| called(line) == Some("blk_mq_quiesce_queue_nowait"))
        .and_then(task)
        .with_context(|| format!("no gate closed: {trace}"))?;
    let calls: Vec<&str> =
        lines().filter(|line| task(line) == Some(hands_over)).filter_map(called).collect();
    let first = calls
        .iter()
        .position(|name| *name == "blk_mq_quiesce_queue_nowait")
        .with_context(|| format!("no gate closed: {trace}"))?;
    let last = calls
        .iter()
        .rposition(|name| *name == "blk_mq_unquiesce_queue")
        .with_context(|| format!("no gate opened: {trace}"))?;
    let pause = &calls[first..=last];
    let count = |name: &str| pause.iter().filter(|call| **call == name).count();
    ensure!(count("blk_mq_quiesce_queue_nowait") == DEVICES, "gates closed: {pause:?}");
    ensure!(count("blk_mq_unquiesce_queue") == DEVICES, "gates opened: {pause:?}");
    ensure!(count("synchronize_rcu_expedited") == 1, "grace periods: {pause:?}");
    for name in ["synchronize_rcu", "synchronize_srcu", "load_module", "__request_module"] {
        ensure!(count(name) == 0, "{name} in the pause: {pause:?}");
    }
    Ok(())
}

/// The task in such a line.
fn task(line: &str) -> Option<&str> {
    line.split(" [").next().map(str::trim)
}

/// The function in a line such as ` task-1 [000] d..1. 12.3: name <-caller`.
fn called(line: &str) -> Option<&str> {
    line.split(": ").nth(1)?.split_whitespace().next()
}

fn write(file: &str, text: &str) -> Result<()> {
    fs::write(format!("{TRACING}/{file}"), text).with_context(|| format!("{TRACING}/{file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(inside: &[&str]) -> String {
        let gates = |name: &str| format!(" t-1 [0] d..1. 1.0: {name} <-x\n").repeat(DEVICES);
        let calls: String =
            inside.iter().map(|name| format!(" t-1 [0] d..1. 1.0: {name} <-x\n")).collect();
        let close = gates("blk_mq_quiesce_queue_nowait");
        format!("# head: x y\n{close}{calls}{}", gates("blk_mq_unquiesce_queue"))
    }

    #[test]
    fn a_second_or_an_ordinary_grace_period_in_the_pause_is_noticed() {
        assert!(judge(&trace(&["synchronize_rcu_expedited"])).is_ok());
        assert!(judge(&trace(&[])).is_err());
        assert!(judge(&trace(&["synchronize_rcu_expedited"; 2])).is_err());
        assert!(judge(&trace(&["synchronize_rcu_expedited", "synchronize_rcu"])).is_err());
        assert!(judge(&trace(&["synchronize_rcu_expedited", "load_module"])).is_err());
        let ours = " t-1 [0] d..1. 1.0: synchronize_rcu_expedited";
        let other = "  kworker/0:1-9     [0] d..1. 1.0: synchronize_rcu <-do_free_init\n";
        let both =
            trace(&["synchronize_rcu_expedited"]).replacen(ours, &format!("{other}{ours}"), 1);
        assert!(both.contains(other) && judge(&both).is_ok());
    }
}
