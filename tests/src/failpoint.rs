// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The failpoints of modules that were built with them, through debugfs. What a line means is in `tests/failpoint/src/line.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::mount::{mount, MsFlags};

pub use atom_failpoint::fault::{Fault, Kind};
pub use atom_failpoint::trigger::Trigger;

/// Where the modules with failpoints are on a guest.
pub const MODULES: &str = "/lib/atom/failpoints";

const DEBUGFS: &str = "/sys/kernel/debug";

/// A failpoint as its module shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The module that has it, as `atom` or `payload_2_0_0`.
    pub module: String,
    /// Its name: `atom.switch.freeze`.
    pub name: String,
    /// What it can do.
    pub kinds: Vec<Kind>,
    /// Whether it is armed.
    pub armed: bool,
    /// How often somebody came to it since it was armed last.
    pub passed: u64,
    /// How often it struck then.
    pub hit: u64,
    /// How many hang in it now.
    pub waiting: u64,
}

impl Point {
    fn read(module: &str, line: &str) -> Option<Self> {
        let (name, rest) = line.split_once(' ')?;
        let value = |key: &str| {
            let words = rest.split(' ').filter_map(|word| word.split_once('='));
            words.filter(|(name, _)| *name == key).map(|(_, value)| value).next()
        };
        let count = |key: &str| value(key)?.parse().ok();
        Some(Self {
            module: module.to_owned(),
            name: name.to_owned(),
            kinds: value("kinds")?.split(',').map(Kind::named).collect::<Option<_>>()?,
            armed: value("armed")? != "no",
            passed: count("passed")?,
            hit: count("hit")?,
            waiting: count("waiting")?,
        })
    }
}

/// An error of this number.
pub const fn error(errno: Errno) -> Fault {
    Fault { kind: Kind::Error, argument: errno as u32 }
}

/// So many milliseconds more.
pub const fn delay(ms: u32) -> Fault {
    Fault { kind: Kind::Delay, argument: ms }
}

/// A fault without an argument, or with the one that harms: an error is `EIO`, a delay 20 ms, wrong data the first byte.
pub const fn of(kind: Kind) -> Fault {
    match kind {
        Kind::Error => error(Errno::EIO),
        Kind::Delay => delay(20),
        Kind::NoMemory | Kind::Hang | Kind::Data | Kind::Oops => Fault { kind, argument: 0 },
    }
}

/// The points of a loaded module.
pub fn list(module: &str) -> Result<Vec<Point>> {
    let path = file(module)?;
    let text =
        fs::read_to_string(&path).with_context(|| format!("{module} has no {}", path.display()))?;
    let read = |line| Point::read(module, line).with_context(|| format!("no point: {line:?}"));
    text.lines().map(read).collect()
}

/// One point as it is now.
pub fn find(module: &str, name: &str) -> Result<Point> {
    let mut points = list(module)?.into_iter();
    points.find(|point| point.name == name).with_context(|| format!("{module} has no {name}"))
}

/// Arms a point of a module. What was counted before is forgotten.
pub fn arm(module: &str, name: &str, fault: Fault, trigger: Trigger) -> Result<()> {
    let when = trigger.to_string().replace(',', " ");
    set(module, &format!("{name} {fault}{when}"))
}

/// Lets whoever hangs in a point go on, and nobody hang in it any more.
pub fn release(module: &str, name: &str) -> Result<()> {
    set(module, &format!("{name} release"))
}

/// Disarms every point of a module; whoever hangs goes on.
pub fn off(module: &str) -> Result<()> {
    set(module, "off")
}

/// Writes a line. The error is the kernel's.
pub fn set(module: &str, line: &str) -> Result<()> {
    let path = file(module)?;
    fs::write(&path, line).with_context(|| format!("{}: {line:?}", path.display()))
}

/// The file of a module.
fn file(module: &str) -> Result<PathBuf> {
    let empty = fs::read_dir(DEBUGFS).map_or(true, |mut entries| entries.next().is_none());
    if empty {
        mount(Some("debugfs"), DEBUGFS, Some("debugfs"), MsFlags::empty(), Some("mode=700"))
            .context("no debugfs")?;
    }
    Ok(Path::new(DEBUGFS).join(module).join("failpoints"))
}

#[cfg(test)]
mod tests {
    use atom_failpoint::fault::Kinds;
    use atom_failpoint::line::carry_out;
    use atom_failpoint::point::Failpoint;

    use super::*;

    #[test]
    fn what_a_module_shows_is_read() {
        let kinds = Kinds::NONE.with(Kind::Error).with(Kind::Hang);
        let point = Failpoint::new("atom.drain.wait", kinds);
        let read = || Point::read("atom", &point.to_string()).unwrap();
        assert!(!read().armed);
        assert_eq!(read().kinds, [Kind::Error, Kind::Hang]);
        carry_out(&[&point], b"atom.drain.wait error=5 chance=500 seed=7").unwrap();
        while point.pass().is_none() {}
        let read = read();
        assert!(read.armed && read.hit == 1 && read.passed >= 1 && read.waiting == 0);
        assert_eq!((read.module.as_str(), read.name.as_str()), ("atom", "atom.drain.wait"));
        assert_eq!(Point::read("atom", "atom.drain.wait kinds=what armed=no"), None);
    }
}
