// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! One file for each command. They parse and print; the work is done in the topic modules.

pub mod bench;
pub mod build;
pub mod fuzz;
pub mod list;
pub mod package;
pub mod setup;
pub mod status;
pub mod test;
pub mod vm;

mod atomctl;
pub mod upgrade;
