// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Requests that the test variant `stuck` keeps without ending them.

use std::time::Duration;

use anyhow::Result;
use atomctl::control::Control;
use atomctl::volume;

use crate::wait;

/// How long it may take until so many have come.
const PATIENCE: Duration = Duration::from_secs(30);
/// Looks in a row that must find them. A request that is being served is owed as well, and one look cannot tell; but
/// it ends at once, and one that is kept does not.
const LOOKS: u32 = 10;
/// Looks in a row, of two milliseconds and more, after which fewer are not going to be more.
const STILL: u32 = 1000;

/// Has the live payload keep the next requests of an operation, and returns when it does.
///
/// fio waits for all of its requests before each pass over its blocks: when the first of those that are kept are the last of a
/// pass, no more come. Then they are let go of, and the next ones are kept.
pub fn keep(control: &Control, op: u8, requests: u32) -> Result<()> {
    volume::hold(control, op, requests)?;
    let mut watch = Watch::default();
    wait::until(&format!("{requests} requests are kept"), PATIENCE, || {
        let owed = control.devices()?.iter().map(|device| device.owed).sum();
        match watch.look(owed, requests) {
            Seen::Kept => return Ok(true),
            Seen::TooFew => {
                volume::release(control)?;
                volume::hold(control, op, requests)?;
            }
            Seen::Nothing => {}
        }
        Ok(false)
    })
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Nothing yet.
    Nothing,
    /// All are kept.
    Kept,
    /// Some are kept, and no more come.
    TooFew,
}

/// The looks so far.
#[derive(Default)]
struct Watch {
    owed: u32,
    /// Looks in a row that have found the same number.
    same: u32,
    /// Looks in a row that have found enough.
    enough: u32,
}

impl Watch {
    fn look(&mut self, owed: u32, wanted: u32) -> Seen {
        self.same = if owed == self.owed { self.same + 1 } else { 0 };
        self.owed = owed;
        self.enough = if owed >= wanted { self.enough + 1 } else { 0 };
        if self.enough >= LOOKS {
            return Seen::Kept;
        }
        if owed > 0 && owed < wanted && self.same >= STILL {
            *self = Self::default();
            return Seen::TooFew;
        }
        Seen::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(all: impl IntoIterator<Item = u32>) -> Vec<Seen> {
        let mut watch = Watch::default();
        all.into_iter()
            .map(|owed| watch.look(owed, 3))
            .filter(|seen| *seen != Seen::Nothing)
            .collect()
    }

    #[test]
    fn requests_are_kept_when_they_are_found_again_and_again() {
        assert_eq!(looks([3; LOOKS as usize]), [Seen::Kept]);
        assert_eq!(looks([3, 5, 2].repeat(100)), []);
    }

    #[test]
    fn a_load_that_makes_no_more_before_the_first_have_ended_is_let_go_on() {
        let before_a_pass = [1, 2].into_iter().chain([2; STILL as usize]);
        let next = [0, 1, 3].into_iter().chain([3; LOOKS as usize - 1]);
        assert_eq!(looks(before_a_pass.chain(next)), [Seen::TooFew, Seen::Kept]);
    }

    #[test]
    fn a_load_that_has_not_begun_is_waited_for() {
        assert_eq!(looks([0; 3 * STILL as usize]), []);
    }
}
