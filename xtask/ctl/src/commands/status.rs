// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! `atomctl status`

use atom_abi::control::Settings;

use super::history;
use super::output::Output;
use crate::control::Control;
use crate::node::kernel_release;
use crate::problem::{Exit, Result};
use crate::report::{LastAttempt, StatusDocument};
use crate::text;

pub(super) fn run(output: &Output) -> Result<Exit> {
    output.show(&read()?, text::status)?;
    Ok(Exit::Done)
}

/// What Atom and the journal say.
pub(super) fn read() -> Result<StatusDocument> {
    let control = Control::open()?;
    let status = control.status()?;
    let mut document =
        StatusDocument::new(&kernel_release()?, &status, &control.payloads()?, &control.devices()?);
    if status.abi.minor_max > 0 {
        document = document.with_settings(&control.settings(&Settings::DEFAULT)?);
    }
    document.last_attempt = LastAttempt::of(&history::read().attempts);
    Ok(document)
}
