// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl status`

use super::output::Output;
use crate::control::Control;
use crate::node::kernel_release;
use crate::problem::{Exit, Result};
use crate::report::StatusDocument;
use crate::text;

pub(super) fn run(output: &Output) -> Result<Exit> {
    let control = Control::open()?;
    let document = StatusDocument::new(
        &kernel_release()?,
        &control.status()?,
        &control.payloads()?,
        &control.devices()?,
    );
    output.show(&document, text::status)?;
    Ok(Exit::Done)
}
