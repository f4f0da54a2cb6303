// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The longest time in which an application gets nothing back: around a change of code, and in an equal time without one.
//!
//! The application is one thread that keeps as many requests in flight as the device takes, so that a second processor is left for
//! whoever changes the code, as on any machine that is not short of processors.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::load::flood::Flood;
use crate::wait;

/// What is in a window before the change and after it: longer than a scheduler's turn.
const MARGIN: Duration = Duration::from_millis(100);
/// How long it may take until so many requests have come back that it is warm.
const PATIENCE: Duration = Duration::from_secs(60);
const WARM: u64 = 2000;

/// The load on a device.
pub struct Application(Flood);

/// The longest gaps, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Gaps {
    /// With the change.
    pub with: f64,
    /// In as much time without it.
    pub without: f64,
}

/// Requests around a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// What is compared.
    pub setup: String,
    /// Whose change it was.
    pub subject: String,
    /// When the change began and ended, in microseconds since the window began.
    pub change: (f64, f64),
    /// When each request came back, and how long it took, in microseconds.
    pub reads: Vec<(f64, f64)>,
}

/// What a window has shown.
#[derive(Clone, Debug)]
pub struct Seen {
    pub gaps: Gaps,
    /// As in [`Trace`].
    pub change: (f64, f64),
    pub reads: Vec<(f64, f64)>,
}

impl Application {
    /// Starts with so many requests in flight, on the first `bytes` of the device.
    pub fn start(device: &str, depth: u32, bytes: u64) -> Result<Self> {
        let flood = Flood::start(device, depth, bytes)?;
        wait::until("the application is warm", PATIENCE, || Ok(flood.done() > WARM))?;
        Ok(Self(flood))
    }

    /// Makes the change within a window, and then watches for as long without one.
    pub fn around<T>(&mut self, change: impl FnOnce() -> Result<T>) -> Result<(T, Seen)> {
        let begun = Instant::now();
        self.0.open_kept_window();
        std::thread::sleep(MARGIN);
        let from = begun.elapsed();
        let changed = change()?;
        let to = begun.elapsed();
        std::thread::sleep(MARGIN);
        let (with, window) = (self.0.longest_gap(), begun.elapsed());
        let kept = self.0.kept();
        self.0.open_window();
        std::thread::sleep(window);
        let without = self.0.longest_gap();
        self.0.check()?;
        let gaps = Gaps { with: micros(with), without: micros(without) };
        let reads = kept.iter().map(|(at, took)| (micros(*at), micros(*took))).collect();
        Ok((changed, Seen { gaps, change: (micros(from), micros(to)), reads }))
    }

    /// Stops. An error when a request has failed.
    pub fn stop(self) -> Result<()> {
        self.0.stop().map(drop)
    }
}

/// A time in microseconds.
pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
