// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Failpoints: places in a module's code at which a fault can be injected by name.
//!
//! Atom and the payload include these files and list their points in a `points.rs` of their own. Only a build with
//! `--cfg failpoints` has anything of it: in every other one a point is nothing, and to meet it is `Ok(())`.
//!
//! | file | one reason to exist |
//! | --- | --- |
//! | `fault.rs`, `trigger.rs`, `point.rs`, `line.rs` | pure: what a point does, when, how it is counted, and how it is set. Also a crate of the host, `lib.rs` |
//! | `debugfs.rs` | the file in debugfs, and carrying out a fault; all `unsafe` |
//! | `absent.rs` | a module without failpoints |

#[cfg(not(failpoints))]
mod absent;
#[cfg(failpoints)]
mod debugfs;
#[cfg(failpoints)]
#[allow(dead_code, unreachable_pub, reason = "the host has these files as a library")]
mod fault;
#[cfg(failpoints)]
#[allow(dead_code, unreachable_pub, reason = "as above")]
mod line;
#[cfg(failpoints)]
#[allow(dead_code, unreachable_pub, reason = "as above")]
mod point;
#[cfg(failpoints)]
#[allow(dead_code, unreachable_pub, reason = "as above")]
mod trigger;

#[cfg(not(failpoints))]
pub(crate) use absent::{Failpoint, Shown};
#[cfg(failpoints)]
pub(crate) use {
    debugfs::Shown,
    fault::{Kind, Kinds},
    point::Failpoint,
};

/// Lists the points of a module: `NAME = "module.step.operation": Kind | Kind;`, each with its comment and condition.
#[cfg(failpoints)]
macro_rules! failpoints {
    ($($(#[$attribute:meta])* $name:ident = $text:literal: $($kind:ident)|+;)+) => {
        $(
            $(#[$attribute])*
            pub(crate) static $name: crate::failpoint::Failpoint = crate::failpoint::Failpoint::new(
                $text,
                crate::failpoint::Kinds::NONE$(.with(crate::failpoint::Kind::$kind))+,
            );
        )+

        /// All of them.
        #[allow(unused_doc_comments, reason = "they are there with the conditions")]
        pub(crate) static ALL: &[&crate::failpoint::Failpoint] = &[$($(#[$attribute])* &$name),+];
    };
}

/// The same where there are none.
#[cfg(not(failpoints))]
macro_rules! failpoints {
    ($($(#[$attribute:meta])* $name:ident = $text:literal: $($kind:ident)|+;)+) => {
        $(
            $(#[$attribute])*
            pub(crate) const $name: crate::failpoint::Failpoint = crate::failpoint::Failpoint;
        )+

        /// All of them.
        pub(crate) const ALL: &[&crate::failpoint::Failpoint] = &[];
    };
}

pub(crate) use failpoints;
