// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Requests that the test variant `stuck` keeps without ending them.

use std::time::Duration;

use anyhow::Result;
use atomctl::control::Control;
use atomctl::volume;

use crate::wait;

/// How long it may take until so many have come.
const PATIENCE: Duration = Duration::from_secs(30);
/// Looks in a row that must find them. A request that is being served is owed as well, and one look cannot tell; but
/// it ends at once, and one that is kept does not.
const LOOKS: u32 = 10;

/// Has the live payload keep the next requests of an operation, and returns when it does.
pub fn keep(control: &Control, op: u8, requests: u32) -> Result<()> {
    volume::hold(control, op, requests)?;
    let mut looks = 0;
    wait::until(&format!("{requests} requests are kept"), PATIENCE, || {
        let owed: u32 = control.devices()?.iter().map(|device| device.owed).sum();
        looks = if owed >= requests { looks + 1 } else { 0 };
        Ok(looks >= LOOKS)
    })
}
