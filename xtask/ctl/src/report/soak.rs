// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What was seen in the time after a switch in which one switch goes back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Handoff;

/// A soak, as the tool has watched it.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SoakReport {
    /// How long the new payload was to be watched.
    pub asked_us: u64,
    /// How long it was watched.
    pub watched_us: u64,
    /// Devices of which the first and the last block were read, each time counted.
    pub canary_reads: u64,
    /// Requests that ended with an error, by device. Devices without any are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, u64>,
    /// The same in an equal time before the switch.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors_before: BTreeMap<String, u64>,
    /// What was wrong with the new payload; null when nothing was.
    pub trouble: Option<String>,
    /// The switch back, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back: Option<Handoff>,
}
