// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the kernel does in which order, by its own tracer.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::mount::{mount, MsFlags};

const TRACING: &str = "/sys/kernel/tracing";
/// The group of our probes.
const GROUP: &str = "atom_test";
/// Buffer of each processor. What does not fit any more is told by the kernel, and is an error here.
const BUFFER_KIB: &str = "16384";

/// A probe: its name, and where it is, in the words of `Documentation/trace/kprobetrace.rst`. The kernel refuses probes
/// in functions that `ftrace` does not know, as those of modules in Rust.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    pub name: &'static str,
    /// `p` at the function's beginning, `r` at its return.
    pub at: char,
    pub function: &'static str,
}

/// The tracer at work. Dropping it takes everything back.
pub struct Trace {
    events: Vec<String>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Microseconds of the monotonic clock.
    pub at_us: u64,
    pub name: String,
    /// What the kernel says of it.
    pub text: String,
}

impl Trace {
    /// Begins to trace the kernel's own `events`, as `block/block_rq_issue`, and these probes.
    pub fn start(events: &[&str], probes: &[Probe]) -> Result<Self> {
        if !Path::new(TRACING).join("trace").exists() {
            mount(Some("tracefs"), TRACING, Some("tracefs"), MsFlags::empty(), Some("mode=700"))
                .context("no tracefs")?;
        }
        let mut trace = Self { events: Vec::new() };
        write("trace", "")?;
        write("buffer_size_kb", BUFFER_KIB)?;
        // The clock of Atom's reports, one for all processors.
        write("trace_clock", "mono")?;
        for Probe { name, at, function } in probes {
            append("kprobe_events", &format!("{at}:{GROUP}/{name} {function}"))?;
        }
        let ours = probes.iter().map(|probe| format!("{GROUP}/{}", probe.name));
        for event in events.iter().map(|event| (*event).to_owned()).chain(ours) {
            write(&format!("events/{event}/enable"), "1")?;
            trace.events.push(event);
        }
        trace.restart()?;
        Ok(trace)
    }

    /// Forgets what has happened, and traces what happens from here on.
    pub fn restart(&self) -> Result<()> {
        write("tracing_on", "0")?;
        write("trace", "")?;
        write("tracing_on", "1")
    }

    /// What happened since the last restart, in order. Until the next one nothing is traced.
    pub fn take(&self) -> Result<Vec<Event>> {
        write("tracing_on", "0")?;
        self.so_far()
    }

    /// The same, and it is traced on.
    pub fn so_far(&self) -> Result<Vec<Event>> {
        let text = fs::read_to_string(file("trace"))?;
        anyhow::ensure!(!text.contains("LOST"), "the trace has lost events");
        Ok(parse(&text))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Whoever reads the trace afterwards finds what is missing; here is nobody to tell.
        let _ = write("tracing_on", "0");
        for event in &self.events {
            let _ = write(&format!("events/{event}/enable"), "0");
        }
        let _ = write("kprobe_events", "");
    }
}

/// Lines such as ` task-1 [000] d..1. 12.3: name: text`.
fn parse(text: &str) -> Vec<Event> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            // A task's name may have colons; behind the processor's number comes nothing of it.
            let (_, rest) = line.split_once("] ")?;
            let mut parts = rest.splitn(3, ": ");
            let (seconds, micros) = parts.next()?.rsplit(' ').next()?.split_once('.')?;
            let at_us = 1_000_000 * seconds.parse::<u64>().ok()? + micros.parse::<u64>().ok()?;
            let (name, text) = (parts.next()?, parts.next().unwrap_or_default());
            Some(Event { at_us, name: name.trim().to_owned(), text: text.to_owned() })
        })
        .collect()
}

fn file(name: &str) -> String {
    format!("{TRACING}/{name}")
}

fn write(name: &str, text: &str) -> Result<()> {
    fs::write(file(name), text).with_context(|| format!("{name}: {text}"))
}

fn append(name: &str, text: &str) -> Result<()> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new().append(true).open(file(name)).context(name.to_owned())?;
    file.write_all(text.as_bytes()).with_context(|| format!("{name}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_from_the_kernels_lines() {
        let text = "# tracer: nop\n#\n\
                    fio-12 [001] d..1. 12.345678: block_rq_issue: 259,0 W 4096 () 8 + 8 none,0,0 [fio]\n\
                    a: b-3 [000] ..... 12.345679: bind: (atom_device_bind+0x4/0x90)\n";
        let events = parse(text);
        assert_eq!(events[0].name, "block_rq_issue");
        assert!(events[0].text.starts_with("259,0 W"));
        assert_eq!((events[1].name.as_str(), events[1].at_us), ("bind", 12_345_679));
        assert_eq!(events.len(), 2);
    }
}
