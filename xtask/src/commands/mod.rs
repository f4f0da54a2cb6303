// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! One file for each command. They parse and print; the work is done in the topic modules.

pub mod atomctl;
pub mod bench;
pub mod build;
pub mod fleet;
pub mod fuzz;
pub mod package;
pub mod setup;
pub mod soak;
pub mod test;
pub mod vm;

pub mod upgrade;
