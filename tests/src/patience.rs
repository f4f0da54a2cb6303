// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! How long to wait. The limits in scenarios are those of the stock kernel; on a debug kernel everything takes several times
//! as long, and the host says how many times.

use std::sync::OnceLock;
use std::time::Duration;

use crate::guest::command_line::CommandLine;

/// How many times as long as on the stock kernel something may take.
pub fn factor() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    *FACTOR.get_or_init(|| {
        let line = CommandLine::read().ok();
        let told = line.and_then(|line| line.value("patience").and_then(|n| n.parse().ok()));
        told.unwrap_or(1)
    })
}

/// A limit for this kernel.
pub fn scaled(limit: Duration) -> Duration {
    limit * factor()
}
