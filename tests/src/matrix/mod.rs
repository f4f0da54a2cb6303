// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The matrix: every fault in every step of an upgrade, under every load, warm and cold, up and down, on every kind of volume.
//!
//! One description makes all of it: the [`axes`], the failpoints that the modules list themselves, and the [`rules`] that say
//! which combinations cannot be and why. The whole matrix takes hours, and what of it has passed is kept ([`record`]); the
//! pruned one is a covering of pairs ([`pairs`]), always the same one for the same points.
//!
//! After each cell ([`run`], [`judge`]):
//!
//! - the old or the new payload serves, as the report of the upgrade says;
//! - a retry without the fault succeeds;
//! - the oracle finds nothing on the device, and no request has failed;
//! - modules, devices, preserved objects, requests, descriptors and processes are as before;
//! - the journal has one entry of the upgrade, and it tells what happened;
//! - the kernel's log has nothing that must not be there.
//!
//! In a guest many cells run one after the other ([`stage`]). One that fails, or that leaves a dead payload behind as its fault
//! wants it, is the last one of its boot.

pub mod axes;
pub mod judge;
pub mod pairs;
pub mod plan;
pub mod points;
pub mod record;
pub mod report;
pub mod rules;
pub mod run;
pub mod stage;
pub mod tool;
pub mod workload;
pub mod world;
