// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl history`

use super::output::Output;
use crate::control::Control;
use crate::problem::{Exit, Result};
use crate::report::History;
use crate::text;

pub(super) fn run(output: &Output) -> Result<Exit> {
    let control = Control::open()?;
    output.show(&History::new(&control.reports()?), text::history)?;
    Ok(Exit::Done)
}
