// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Points that are armed: the variable `ATOMCTL_FAILPOINTS`, and what happens at them.
//!
//! ```text
//! ATOMCTL_FAILPOINTS="journal.sync=error:EIO@2;upgrade.insert=kill;upgrade.switch=delay:500"
//! ATOMCTL_FAILPOINTS=list
//! ```
//!
//! | kind | what happens |
//! | --- | --- |
//! | `kill` | the tool kills itself, also from the process that writes its journal |
//! | `error:NAME` | the step fails with this error, and is not carried out |
//! | `delay:MS` | the step comes so many milliseconds later |
//!
//! With `@N` it happens at the Nth time only, else each time. `list` prints the names and ends the program.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::{Point, JOURNAL};
use crate::problem::{Problem, Result};

const VARIABLE: &str = "ATOMCTL_FAILPOINTS";

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    Kill,
    Error(Errno),
    Delay(Duration),
}

/// A point that was set.
#[derive(Debug)]
pub(super) struct Armed {
    pub(super) point: String,
    pub(super) fault: Fault,
    /// At which time, from 1 on; 0: each time.
    pub(super) at: u64,
    passed: AtomicU64,
}

impl Armed {
    /// Whether it happens this time.
    pub(super) fn strikes(&self) -> bool {
        let time = self.passed.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        self.at == 0 || self.at == time
    }
}

static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();
/// The process of the tool, for those beside it.
static TOOL: OnceLock<Pid> = OnceLock::new();

/// Names of all points.
pub(super) fn names() -> Vec<String> {
    let own = Point::ALL.iter().map(|point| point.name().to_owned());
    own.chain(JOURNAL.map(str::to_owned)).collect()
}

/// Reads the variable. True when the points were to be listed and were.
pub(crate) fn prepare() -> Result<bool> {
    let text = std::env::var(VARIABLE).unwrap_or_default();
    if text == "list" {
        names().iter().for_each(|name| println!("{name}"));
        return Ok(true);
    }
    let armed = parse(&text).map_err(|why| {
        Problem::usage(
            format!("{VARIABLE} was not understood"),
            why,
            "write POINT=kill, POINT=error:EIO or POINT=delay:MS, each with @N for one time only",
        )
    })?;
    // The first one to read it has read the same.
    let _ = (ARMED.set(armed), TOOL.set(Pid::this()));
    Ok(false)
}

/// Reads a value of the variable. The error is for people.
pub(super) fn parse(text: &str) -> std::result::Result<Vec<Armed>, String> {
    text.split(';').map(str::trim).filter(|entry| !entry.is_empty()).map(entry).collect()
}

fn entry(text: &str) -> std::result::Result<Armed, String> {
    let wrong = |what: &str| format!("{what} in {text:?}");
    let (point, fault) = text.split_once('=').ok_or_else(|| wrong("no kind"))?;
    if !names().iter().any(|name| name == point) {
        return Err(wrong("no such point"));
    }
    let (fault, at) = match fault.split_once('@') {
        None => (fault, 0),
        Some((fault, at)) => {
            let at = at.parse().ok().filter(|at| *at > 0);
            (fault, at.ok_or_else(|| wrong("no time"))?)
        }
    };
    let fault = match fault.split_once(':') {
        None if fault == "kill" => Fault::Kill,
        Some(("error", name)) => Fault::Error(errno(name).ok_or_else(|| wrong("no error"))?),
        Some(("delay", ms)) => {
            let ms = ms.parse().map_err(|_| wrong("no number"))?;
            Fault::Delay(Duration::from_millis(ms))
        }
        _ => return Err(wrong("no such kind")),
    };
    Ok(Armed { point: point.to_owned(), fault, at, passed: AtomicU64::new(0) })
}

/// The error of a name, as `EIO`.
fn errno(name: &str) -> Option<Errno> {
    (1..=133).map(Errno::from_raw).find(|errno| format!("{errno:?}") == name)
}

/// Comes to the point of this name.
pub(crate) fn meet_in(name: &str) -> io::Result<()> {
    let armed = ARMED.get().map_or(&[][..], Vec::as_slice);
    for one in armed.iter().filter(|one| one.point == name) {
        if one.strikes() {
            happen(one.fault)?;
        }
    }
    Ok(())
}

fn happen(fault: Fault) -> io::Result<()> {
    match fault {
        Fault::Kill => {
            if let Some(tool) = TOOL.get() {
                kill(*tool, Signal::SIGKILL)?;
            }
            kill(Pid::this(), Signal::SIGKILL)?;
            Ok(())
        }
        Fault::Error(errno) => Err(errno.into()),
        Fault::Delay(time) => {
            sleep(time);
            Ok(())
        }
    }
}
