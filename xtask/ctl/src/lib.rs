// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Drives Atom on the machine it runs on: the library behind `atomctl`.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`control`] | Atom's control device: everything Atom can be asked for |
//! | [`drain`] | how the live payload gives up what it owes |
//! | [`module_file`] | a payload's file, and whether it fits before anything is loaded |
//! | [`kmod`] | inserting and removing kernel modules |
//! | [`upgrade`] | warm and cold upgrades, the soak, the way back, and recovering from a tool that died |
//! | [`node`] | what an upgrade needs of a machine, so that tests can stand in for it |
//! | [`journal`] | what was attempted on this machine, on its disk |
//! | [`package`] | what the scripts of a payload's package ask for |
//! | [`boot`], [`live`] | from a machine that has just started to one that serves, and back; what was committed last |
//! | [`configuration`] | what the operator has chosen in a file |
//! | [`release`] | which of two versions is the newer one |
//! | [`metrics`] | what a monitoring system wants to know |
//! | [`trace`], [`html`] | what the devices did around an upgrade, and a page that shows it |
//! | [`volume`] | commands to the payload: the only module that knows what volumes are |
//! | [`uevents`] | what payloads tell of themselves |
//! | [`report`] | the JSON documents, to write and to read |
//! | [`text`] | the same documents for people |
//! | [`commands`] | the command line, one file for each verb |
//!
//! ```no_run
//! use atomctl::{control::DEFAULT_DEADLINE, node, places::Places, report::Mode, upgrade};
//!
//! # fn main() -> atomctl::problem::Result<()> {
//! let machine = node::Local::open()?;
//! let options = upgrade::Options {
//!     mode: Mode::Warm,
//!     deadline: DEFAULT_DEADLINE,
//!     keep_parked: false,
//!     old: None,
//!     places: Places::standard(&node::kernel_release()?),
//! };
//! let report = upgrade::run(&machine, "payload_1_1_0.ko".as_ref(), &options)?;
//! println!("{}: I/O was held for {} us", report.outcome, report.pause_us);
//! # Ok(())
//! # }
//! ```

#![deny(missing_docs, unsafe_code)]

mod blank;
pub mod boot;
mod caller;
mod canary;
pub mod commands;
pub mod configuration;
pub mod control;
mod critical;
pub mod drain;
mod failpoint;
pub mod html;
pub mod journal;
pub mod kmod;
pub mod live;
pub mod metrics;
pub mod module_file;
pub mod node;
pub mod package;
pub mod places;
pub mod problem;
mod progress;
pub mod quantity;
pub mod release;
pub mod report;
#[expect(unsafe_code, reason = "the system calls that have no safe wrapper")]
mod sys;
pub mod text;
pub mod trace;
pub mod uevents;
pub mod upgrade;
pub mod volume;
