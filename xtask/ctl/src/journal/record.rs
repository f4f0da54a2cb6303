// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the journal says of an attempt.

use std::fmt;
use std::time::{Duration, SystemTime};

use nix::time::{clock_gettime, ClockId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::report::Mode;

/// One line of the journal.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// Something is about to be changed.
    Began(Began),
    /// What became of it.
    Ended(Ended),
    /// What became of an attempt whose tool has died.
    Settled(Settled),
    /// Something that a later release has written.
    #[serde(other)]
    Unknown,
}

/// Who made an attempt: the number grows with each, also over restarts of the machine.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// Its number.
    pub attempt: u64,
    /// The kernel's name for the time since the machine was started.
    pub boot: String,
}

/// When something was written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Moment {
    /// By the wall clock, in UTC, as RFC 3339 puts it.
    pub at: String,
    /// By the clock that counts since the machine was started, in nanoseconds.
    pub monotonic_ns: u64,
}

impl Moment {
    /// The present one.
    pub fn now() -> Self {
        Self::of(SystemTime::now())
    }

    /// The one that was so many nanoseconds after the machine was started.
    pub(super) fn since_start(ns: u64) -> Self {
        let now = Self::now();
        let ago = Duration::from_nanos(now.monotonic_ns.saturating_sub(ns));
        let wall = SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
        Self { monotonic_ns: ns, ..Self::of(wall) }
    }

    fn of(wall: SystemTime) -> Self {
        let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).ok();
        let ns = monotonic.and_then(|time| u64::try_from(Duration::from(time).as_nanos()).ok());
        Self {
            at: humantime::format_rfc3339_millis(wall).to_string(),
            monotonic_ns: ns.unwrap_or_default(),
        }
    }
}

/// An attempt that is about to change something.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Began {
    /// Which one.
    #[serde(flatten)]
    pub identity: Identity,
    /// When.
    #[serde(flatten)]
    pub moment: Moment,
    /// What is attempted.
    pub kind: Kind,
    /// Warm or cold, where that can be chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// On whose behalf.
    pub origin: Origin,
    /// Who called the tool.
    pub user: String,
    /// The process at work.
    pub process: Process,
    /// Version that is live; empty when none is.
    pub from: String,
    /// Version that is to be live, or what was named instead of one.
    pub to: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// Version of the tool.
    pub tool: String,
}

/// A process, so that it is not taken for a later one of the same number.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub id: u32,
    /// When it started, in the kernel's ticks since the machine was started.
    pub started: u64,
}

/// How an attempt has ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Ended {
    /// Which one.
    #[serde(flatten)]
    pub identity: Identity,
    /// When.
    #[serde(flatten)]
    pub moment: Moment,
    /// In a word: that of the report, or `failed`.
    pub outcome: String,
    /// The exit code of the tool.
    pub exit_code: u8,
    /// Why it is not what was asked for.
    pub reason: Option<String>,
    /// The whole document that the tool has printed.
    pub report: Value,
}

/// What somebody found of an attempt that has no end.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Settled {
    /// Which one.
    #[serde(flatten)]
    pub identity: Identity,
    /// When.
    #[serde(flatten)]
    pub moment: Moment,
    /// The attempt that found it.
    pub by: u64,
    /// Version that serves since then; empty when none does.
    pub live: String,
    /// In a word: `finished` or `undone`, or `held` when no payload serves.
    pub outcome: String,
}

/// What is attempted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Another payload is to serve.
    Upgrade,
    /// A parked payload is to serve again.
    Rollback,
    /// The live payload is to give the devices to Atom.
    Abandon,
    /// A payload is to take over what Atom holds.
    Adopt,
    /// What a dead tool has left is to be undone or finished.
    Recover,
    /// A payload is to be inserted.
    Load,
    /// A payload is to be removed.
    Unload,
    /// The live payload is to stay.
    Commit,
    /// Something that a later release does.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Upgrade => "upgrade",
            Self::Rollback => "rollback",
            Self::Abandon => "abandon",
            Self::Adopt => "adopt",
            Self::Recover => "recover",
            Self::Load => "load",
            Self::Unload => "unload",
            Self::Commit => "commit",
            Self::Unknown => "unknown",
        })
    }
}

/// On whose behalf something is attempted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Somebody at this machine.
    #[default]
    Operator,
    /// The scripts of a package.
    Package,
    /// A rollout over many machines.
    Fleet,
    /// The start of the machine.
    Boot,
    /// Atom itself, for a reason of its own.
    Atom,
    /// Somebody that a later release knows.
    #[serde(other)]
    #[value(skip)]
    Unknown,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "operator",
            Self::Package => "package",
            Self::Fleet => "fleet",
            Self::Boot => "boot",
            Self::Atom => "atom",
            Self::Unknown => "unknown",
        })
    }
}

impl Record {
    /// Which attempt it is about.
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Began(record) => Some(&record.identity),
            Self::Ended(record) => Some(&record.identity),
            Self::Settled(record) => Some(&record.identity),
            Self::Unknown => None,
        }
    }
}
