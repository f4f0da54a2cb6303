// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! How the live payload gives up what it owes.

use std::fmt;
use std::time::Duration;

use atom_abi::control::policy;

/// What happens to the requests that the live payload still owes at the deadline of a drain.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum AtDeadline {
    /// The handoff is undone, and the payload keeps them.
    #[default]
    Abort,
    /// The payload lets go of them, and the next one gets them.
    Reissue,
    /// The payload lets go of them, and they fail.
    Fail,
    /// They are left as they are, for ever. Only for a payload that is forsaken.
    Leave,
}

impl AtDeadline {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Abort, Self::Reissue, Self::Fail, Self::Leave];

    /// The number that the control device takes.
    pub fn code(self) -> u32 {
        match self {
            Self::Abort => policy::ABORT,
            Self::Reissue => policy::REISSUE,
            Self::Fail => policy::FAIL,
            Self::Leave => policy::LEAVE,
        }
    }

    /// The policy behind a number of the control device.
    pub fn of_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.code() == code & policy::AT_DEADLINE)
    }

    /// Its name, as it is given and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Abort => "abort",
            Self::Reissue => "reissue",
            Self::Fail => "fail",
            Self::Leave => "leave",
        }
    }

    /// The policy of this name.
    pub fn parse(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.name() == name)
            .ok_or_else(|| format!("{name:?} is no policy: use abort, reissue, fail or leave"))
    }
}

impl fmt::Display for AtDeadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The terms of one drain. A time alone stands for a drain that is undone when it has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drain {
    /// How long it may take.
    pub deadline: Duration,
    /// What happens then.
    pub at_deadline: AtDeadline,
    /// The live payload is not asked for anything, see [`policy::FORSAKE`].
    pub forsake: bool,
}

/// Why requests cannot be left to a payload that is asked, and what to do.
pub const NOT_LEFT: (&str, &str) = (
    "a payload that is asked would still end the requests that --at-deadline leave leaves as they are for ever",
    "add --forsake if it is not to be asked any more, or choose abort, reissue or fail",
);

impl Drain {
    /// Whether Atom takes such terms: requests are left only where the payload is not asked any more.
    pub fn is_possible(&self) -> bool {
        self.at_deadline != AtDeadline::Leave || self.forsake
    }

    /// The number that the control device takes.
    pub fn policy(&self) -> u32 {
        self.at_deadline.code() | if self.forsake { policy::FORSAKE } else { 0 }
    }
}

impl From<Duration> for Drain {
    fn from(deadline: Duration) -> Self {
        Self { deadline, at_deadline: AtDeadline::Abort, forsake: false }
    }
}

impl fmt::Display for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.at_deadline, if self.forsake { ", forsaken" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_alone_means_that_nothing_is_taken_back() {
        let drain = Drain::from(Duration::from_secs(1));
        assert_eq!(drain.policy(), 0);
        assert_eq!(Drain { forsake: true, ..drain }.policy(), policy::FORSAKE);
    }

    #[test]
    fn requests_are_left_only_to_a_payload_that_is_not_asked_any_more() {
        for at_deadline in AtDeadline::ALL {
            let drain = Drain { at_deadline, ..Duration::from_secs(1).into() };
            assert_eq!(drain.is_possible(), at_deadline != AtDeadline::Leave);
            assert!(Drain { forsake: true, ..drain }.is_possible());
        }
    }

    #[test]
    fn names_and_numbers_lead_back_to_the_policy() {
        for policy in AtDeadline::ALL {
            assert_eq!(AtDeadline::parse(policy.name()), Ok(policy));
            assert_eq!(AtDeadline::of_code(policy.code() | policy::FORSAKE), Some(policy));
        }
        assert!(AtDeadline::parse("hope").is_err());
        assert_eq!(AtDeadline::of_code(9), None);
    }
}
