// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The terms of an upgrade: what was asked for, and what that means on this machine.

use std::time::Duration;

use atom_abi::control::{payload_state, setting, Settings};

use super::Site;
use crate::drain::{AtDeadline, Drain, NOT_LEFT};
use crate::module_file::Refused;
use crate::node::Node;
use crate::problem::Result;
use crate::report::Mode;

/// How long a request may be owed during a soak when nobody says otherwise.
pub const DEFAULT_STALL: Duration = Duration::from_secs(5);
/// How much longer than the tool Atom waits for the commit, apart from one read of a canary.
const MARGIN: Duration = Duration::from_secs(10);

/// How the live payload gives up its requests, and how the next one is watched.
#[derive(Clone, Default, Debug)]
pub struct Terms {
    /// What happens at the deadline of the drain. Without a word: abort, and for a dead payload reissue.
    pub at_deadline: Option<AtDeadline>,
    /// The live payload is not asked for anything. Implied for a dead one.
    pub forsake: bool,
    /// Warm: how the next payload is watched before the commit. Without a word Atom's settings hold, which
    /// commit at once when nobody has changed them.
    pub soak: Option<Soak>,
}

/// How a new payload is watched after the switch to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Soak {
    /// For how long; zero: not at all.
    pub time: Duration,
    /// How long a request may be owed; zero: for ever.
    pub stall: Duration,
    /// How many requests more than in an equal time before may fail on each device.
    pub max_errors: u64,
    /// Whether the first and the last block of each device are read.
    pub canary: bool,
}

impl Soak {
    /// How long a canary may take to be read.
    pub(super) fn read_limit(&self) -> Duration {
        if self.stall.is_zero() {
            DEFAULT_STALL
        } else {
            self.stall
        }
    }

    fn margin(&self) -> Duration {
        MARGIN.saturating_add(self.read_limit())
    }

    /// Atom's side of it, which must work when this process has died.
    fn settings(&self, drain: &Drain) -> Settings {
        Settings {
            change: setting::SOAK,
            back_policy: AtDeadline::Reissue.code(),
            soak_ns: nanoseconds(self.time.saturating_add(self.margin())),
            stall_ns: nanoseconds(self.stall),
            back_deadline_ns: nanoseconds(drain.deadline),
            ..Settings::DEFAULT
        }
    }

    /// What this process does about a soak that Atom's settings ask for: it commits in good time.
    fn of_settings(settings: &Settings) -> Self {
        let whole = Duration::from_nanos(settings.soak_ns);
        let soak = Self {
            time: Duration::ZERO,
            stall: Duration::from_nanos(settings.stall_ns),
            max_errors: 0,
            canary: true,
        };
        Self { time: whole.saturating_sub(soak.margin()).max(whole / 2), ..soak }
    }
}

/// The terms on this machine.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    /// How the live payload gives up its requests.
    pub(super) drain: Drain,
    /// How the next one is watched.
    pub(super) soak: Option<Soak>,
    /// What Atom's settings have to be at the switch, when they are not.
    pub(super) settings: Option<Settings>,
    /// What is worth knowing about it.
    pub(super) notes: Vec<String>,
}

impl Terms {
    /// How the live payload gives up its requests, with what is worth knowing about it.
    pub(super) fn drain(
        &self,
        site: &Site,
        deadline: Duration,
    ) -> std::result::Result<(Drain, Vec<String>), Refused> {
        self.check(site)?;
        let dead = site.live().filter(|live| live.state == payload_state::DEAD);
        let silent = if dead.is_some() { AtDeadline::Reissue } else { AtDeadline::Abort };
        let drain = Drain {
            deadline,
            at_deadline: self.at_deadline.unwrap_or(silent),
            forsake: self.forsake || dead.is_some(),
        };
        if !drain.is_possible() {
            let (why, remedy) = NOT_LEFT;
            return Err(Refused::situation(why, remedy));
        }
        let note = dead.map(|dead| {
            format!(
                "payload {} is dead: it is not asked for anything (--forsake), and what it owes meets the policy \
                 {} (--at-deadline)",
                dead.version, drain.at_deadline
            )
        });
        Ok((drain, note.into_iter().collect()))
    }

    /// What they mean for the payload that is live. The outer error means that Atom could not be asked.
    pub(super) fn settle<N: Node>(
        &self,
        node: &N,
        site: &Site,
        deadline: Duration,
        mode: Mode,
    ) -> Result<std::result::Result<Settled, Refused>> {
        let (drain, mut notes) = match self.drain(site, deadline) {
            Ok(both) => both,
            Err(why) => return Ok(Err(why)),
        };
        if mode == Mode::Cold || site.status.abi.minor_max == 0 {
            return Ok(Ok(Settled { drain, soak: None, settings: None, notes }));
        }
        let standing = node.settings(&Settings::DEFAULT)?;
        let asked = self.soak.or((standing.soak_ns != 0).then(|| Soak::of_settings(&standing)));
        let soaks = asked.filter(|soak| !soak.time.is_zero());
        if drain.forsake && soaks.is_some() {
            notes.push(
                "there is no soak: nobody can go back to a payload that is not asked any more"
                    .to_owned(),
            );
        }
        let soak = soaks.filter(|_| !drain.forsake);
        let none = Settings { change: setting::SOAK, soak_ns: 0, ..standing };
        let settings = match (soak, self.soak) {
            (Some(soak), Some(_)) => Some(soak.settings(&drain)),
            (Some(_), None) => None,
            (None, _) => (standing.soak_ns != 0).then_some(none),
        };
        Ok(Ok(Settled { drain, soak, settings, notes }))
    }

    /// An Atom of ABI 1.0 knows deadlines and nothing else.
    fn check(&self, site: &Site) -> std::result::Result<(), Refused> {
        if site.status.abi.minor_max != 0 {
            return Ok(());
        }
        let mut unknown = Vec::new();
        if let Some(policy @ (AtDeadline::Reissue | AtDeadline::Fail)) = self.at_deadline {
            unknown.push(format!("--at-deadline {policy}"));
        }
        if self.forsake {
            unknown.push("--forsake".to_owned());
        }
        if self.soak.is_some_and(|soak| !soak.time.is_zero()) {
            unknown.push("--soak".to_owned());
        }
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Refused::situation(
            format!("the loaded Atom speaks ABI 1.0, which knows no {}", unknown.join(" and no ")),
            "leave it out, or load an Atom of ABI 1.1",
        ))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOAK: Soak = Soak {
        time: Duration::from_secs(30),
        stall: Duration::from_secs(2),
        max_errors: 0,
        canary: true,
    };

    #[test]
    fn atom_waits_longer_for_the_commit_than_the_tool_watches() {
        let settings = SOAK.settings(&Duration::from_secs(5).into());
        assert_eq!(settings.soak_ns, 42_000_000_000);
        assert_eq!(settings.stall_ns, 2_000_000_000);
        assert_eq!(settings.back_deadline_ns, 5_000_000_000);
        assert!(settings.is_valid());
    }

    #[test]
    fn a_soak_of_the_settings_is_watched_and_committed_before_its_end() {
        for seconds in [1, 10, 60, 3600] {
            let whole = Duration::from_secs(seconds);
            let settings =
                Settings { soak_ns: nanoseconds(whole), stall_ns: 0, ..Settings::DEFAULT };
            let soak = Soak::of_settings(&settings);
            assert!(!soak.time.is_zero() && soak.time < whole, "{soak:?}");
        }
    }
}
