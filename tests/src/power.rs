// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What outlives the power: the notes of a scenario, and the words in which the host and the guest speak of it.
//!
//! A scenario whose machine is booted several times runs anew in each boot. What it notes ([`Context::note`]) goes over
//! the line to the host at once, and the host gives it to the next boot. The line is no disk: what has gone over it is
//! not lost with the power. So a flush that was noted was acknowledged before the cut.
//!
//! A note takes its time to the host. What must be known to the instant, what was going on at the cut, goes over a serial
//! line of its own: a [`Mark`] has reached the host's file before the guest goes on. So the last one in the file is true
//! of the cut.
//!
//! [`Context::note`]: crate::scenarios::Context::note

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::fcntl::OFlag;
use nix::sys::termios::tcdrain;

/// What a line with a note begins with, on standard output.
pub const NOTE: &str = "note: ";
/// Where the host puts the notes of the boot before.
pub const FILE: &str = "/run/atom-notes";
/// What a note with a wish begins with.
const READY: &str = "ready to be cut";
/// The serial line for marks, in a guest whose power will be cut.
const MARKS: &str = "/dev/ttyS1";

/// The notes of the boot before; none in the first one.
pub fn notes() -> Result<Vec<String>> {
    if !fs::exists(FILE)? {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(FILE).with_context(|| format!("cannot read {FILE}"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// What is going on. The greater one is the narrower one: a switch is a part of an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Nothing but load.
    Load,
    /// An upgrade: modules come or go, or a switch.
    Upgrade,
    /// One payload hands over to the next, and I/O is held for a part of it.
    Switch,
}

impl Moment {
    const ALL: [Self; 3] = [Self::Load, Self::Upgrade, Self::Switch];

    /// Its mark.
    const fn code(self) -> u8 {
        match self {
            Self::Load => b'.',
            Self::Upgrade => b'u',
            Self::Switch => b's',
        }
    }

    fn of(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|moment| moment.code() == code)
    }

    /// What the last of these marks says; without any there is nothing but load.
    pub fn last(marks: &[u8]) -> Result<Self> {
        let Some(code) = marks.last() else { return Ok(Self::Load) };
        Self::of(*code).with_context(|| format!("nobody understands the mark {code:#x}"))
    }
}

/// The guest's end of the line for marks.
#[derive(Debug)]
pub struct Marks(File);

impl Marks {
    /// Opens the line.
    pub fn open() -> Result<Self> {
        let file = OpenOptions::new().write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(MARKS);
        Ok(Self(file.with_context(|| format!("no line for marks at {MARKS}"))?))
    }

    /// Tells what is going on from now on. The host has it when this returns.
    pub fn mark(&self, moment: Moment) -> Result<()> {
        (&self.0).write_all(&[moment.code()]).context("no mark")?;
        tcdrain(&self.0).context("a mark was not sent")
    }
}

/// What a scenario wants of the cut, in a note that lets the host go ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The host waits for a random time up to this one, in milliseconds when it is noted.
    pub within: Duration,
    /// It waits again until at least this is going on.
    pub during: Moment,
}

impl Wish {
    /// The note.
    pub fn note(&self) -> String {
        format!("{READY} {} {}", self.within.as_millis(), char::from(self.during.code()))
    }

    /// The wish in a note, if it is one.
    pub fn read(note: &str) -> Option<Self> {
        let (within, during) = note.strip_prefix(READY)?.trim_start().split_once(' ')?;
        let within = Duration::from_millis(within.parse().ok()?);
        let [during] = during.as_bytes() else { return None };
        Some(Self { within, during: Moment::of(*during)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_read_as_it_was_noted_and_another_note_is_none() {
        for during in Moment::ALL {
            let wish = Wish { within: Duration::from_millis(740), during };
            assert_eq!(Wish::read(&wish.note()), Some(wish));
        }
        for note in ["flushed 1 2", READY, "ready to be cut 7", "ready to be cut 7 x", ""] {
            assert_eq!(Wish::read(note), None, "{note}");
        }
    }

    #[test]
    fn the_last_mark_counts_and_a_switch_is_a_part_of_an_upgrade() {
        assert_eq!(Moment::last(b"").ok(), Some(Moment::Load));
        assert_eq!(Moment::last(b".us").ok(), Some(Moment::Switch));
        assert_eq!(Moment::last(b".usu.").ok(), Some(Moment::Load));
        assert!(Moment::last(b".u?").is_err());
        assert!(Moment::Switch > Moment::Upgrade && Moment::Upgrade > Moment::Load);
    }
}
