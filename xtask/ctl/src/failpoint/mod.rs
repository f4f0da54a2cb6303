// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Failpoints of the tool: the steps that change something, at which a build with the feature `failpoints` can fail, take
//! its time, or die.
//!
//! They are set by the environment variable `ATOMCTL_FAILPOINTS`, as `armed.rs` says. A build without the feature has
//! nothing of it, and to meet a point is `Ok(())`.

#[cfg(feature = "failpoints")]
use crate::problem::Problem;
use crate::problem::Result;

#[cfg(feature = "failpoints")]
mod armed;
#[cfg(all(test, feature = "failpoints"))]
mod tests;

#[cfg(feature = "failpoints")]
pub(crate) use armed::{meet_in, prepare};

macro_rules! points {
    ($($name:ident = $text:literal: $what:literal;)+) => {
        /// A step.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Point {
            $(
                #[doc = $what]
                $name,
            )+
        }

        #[cfg(feature = "failpoints")]
        impl Point {
            /// All of them.
            pub(crate) const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

points! {
    UpgradeClaim = "upgrade.claim": "The right to change what runs is claimed.";
    UpgradeSettings = "upgrade.settings": "Atom's settings are read or changed.";
    UpgradeInsert = "upgrade.insert": "A module is inserted.";
    UpgradeSwitch = "upgrade.switch": "A warm handoff.";
    UpgradeWait = "upgrade.wait": "The end of a soak, or an event before it, is waited for.";
    UpgradeCanary = "upgrade.canary": "A device is read during a soak.";
    UpgradeCommit = "upgrade.commit": "A soak is ended for the new payload.";
    UpgradeCritical = "upgrade.critical": "From here on nothing may wait for I/O.";
    UpgradeAbandon = "upgrade.abandon": "The first half of a cold handoff.";
    UpgradeRemove = "upgrade.remove": "A module is removed.";
    UpgradeAdopt = "upgrade.adopt": "The second half of a cold handoff.";
    PackageAnnounce = "package.announce": "A package announces itself.";
    PackageUpgrade = "package.upgrade": "A package was installed, and its payload is about to be upgraded to.";
}

/// Points in the journal: of its disk, and of the memory before it, which is also where the locks are.
#[cfg(feature = "failpoints")]
pub(crate) const JOURNAL: [&str; 14] = [
    "journal.read",
    "journal.append",
    "journal.truncate",
    "journal.sync",
    "journal.sync_names",
    "journal.rename",
    "spool.lock",
    "spool.read",
    "spool.append",
    "spool.truncate",
    "spool.sync",
    "spool.sync_names",
    "spool.rename",
    "spool.remove",
];

/// Comes to a step. What is injected is an error of it.
#[cfg(feature = "failpoints")]
pub(crate) fn meet(point: Point) -> Result<()> {
    meet_in(point.name()).map_err(|error| {
        Problem::undone(
            format!("The step {} was not carried out", point.name()),
            error.to_string(),
            "this is a failpoint: try again without it",
        )
    })
}

/// The same where there are none.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn meet(_point: Point) -> Result<()> {
    Ok(())
}
