// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The long soak: thousands of upgrades in one boot, under verified load, and nothing that grows.
//!
//! A run is a sequence of *blocks* of upgrades. After each block the memory of the kernel is sampled, and a line goes into
//! the record. The rule that judges growth looks at the record alone, so that the host can judge a run while it goes on.
//!
//! - [`mix`]: the volumes and the load on them;
//! - [`plan`]: what an operator's year is made of, from a seed;
//! - [`ways`]: carrying one attempt out;
//! - [`sample`]: what is counted of the kernel;
//! - [`run`]: the loop, and what must hold after each attempt;
//! - [`record`]: the lines that a run leaves;
//! - [`growth`]: whether a series of numbers grows;
//! - [`report`]: what came of it, as a document and as a table;
//! - [`background`]: a run in a process of its own, which outlives whoever looks at it.

pub mod background;
pub mod growth;
pub mod mix;
pub mod plan;
pub mod record;
pub mod report;
pub mod run;
pub mod sample;
mod ways;
