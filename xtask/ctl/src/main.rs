// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl`, see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(atomctl::commands::main(std::env::args_os()).code())
}
