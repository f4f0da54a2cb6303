// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl` with failpoints, for tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(atomctl::commands::main(std::env::args_os()).code())
}
