// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the devices did around an upgrade: requests in flight, completions and their latency.
//!
//! A thread looks at the block layer's counters every millisecond. It must not disturb what it looks at: its memory is
//! there and locked before, it allocates nothing while it is at work, and nobody waits for it. The samples are kept beside
//! the journal, of the last few attempts that asked for them.

mod counters;
mod sampler;
mod store;

use serde::{Deserialize, Serialize};

pub use sampler::{Sampler, AFTER, BEFORE};
pub use store::{read, write};

/// All devices together at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(from = "[u64; 4]", into = "[u64; 4]")]
pub struct Sample {
    /// When: nanoseconds of the kernel's monotonic clock.
    pub at_ns: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// Requests that have been completed since the devices exist.
    pub completed: u64,
    /// How long all of these took together, in milliseconds.
    pub took_ms: u64,
}

impl From<[u64; 4]> for Sample {
    fn from([at_ns, in_flight, completed, took_ms]: [u64; 4]) -> Self {
        Self { at_ns, in_flight, completed, took_ms }
    }
}

impl From<Sample> for [u64; 4] {
    fn from(sample: Sample) -> Self {
        [sample.at_ns, sample.in_flight, sample.completed, sample.took_ms]
    }
}

/// The samples of one attempt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trace {
    /// [`Trace::SCHEMA`].
    pub schema: String,
    /// Number of the attempt.
    pub attempt: u64,
    /// The kernel's name for the time since the machine was started.
    pub boot: String,
    /// Each `[nanoseconds of the monotonic clock, requests in flight, requests completed, milliseconds they took]`.
    pub samples: Vec<Sample>,
}

impl Trace {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "atom.trace/1";
}
