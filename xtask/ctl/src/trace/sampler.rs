// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The thread that takes the samples.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{sync_channel, Receiver};
use std::sync::Arc;
use std::thread::{self, Builder};
use std::time::Duration;

use nix::sys::signal::SigSet;
use nix::time::{clock_gettime, ClockId};

use super::counters::Counters;
use super::Sample;
use crate::caller::Caller;
use crate::sys;

/// How long the devices are looked at before the upgrade begins.
pub const BEFORE: Duration = Duration::from_millis(500);
/// How long they are looked at after its end.
pub const AFTER: Duration = Duration::from_millis(500);
const PERIOD: Duration = Duration::from_millis(1);
/// So many samples are taken at most: some sixteen seconds.
const CAPACITY: usize = 16 << 10;
const STACK_BYTES: usize = 128 << 10;
/// How long the thread may take to come to its end.
const PATIENCE: Duration = Duration::from_secs(1);

/// Takes samples from its start to its end.
#[derive(Debug)]
pub struct Sampler {
    stop: Arc<AtomicBool>,
    samples: Receiver<Vec<Sample>>,
}

impl Sampler {
    /// Begins. Everything that it needs is there when this returns.
    pub fn start() -> io::Result<Self> {
        Self::start_on(Path::new("/sys/block"))
    }

    fn start_on(folder: &Path) -> io::Result<Self> {
        let counters = Counters::open(folder);
        let mut samples = vec![Sample::default(); CAPACITY];
        let stop = Arc::new(AtomicBool::new(false));
        let (done, receiver) = sync_channel(1);
        let theirs = Arc::clone(&stop);
        let caller = Caller::remember();
        // A signal must not end the process through this thread while the other one has blocked it.
        let mask = SigSet::thread_get_mask()?;
        SigSet::all().thread_block()?;
        let thread = Builder::new().stack_size(STACK_BYTES).spawn(move || {
            let _ = sys::set_io_flusher(true);
            let mut taken = 0;
            for place in &mut samples {
                if theirs.load(Ordering::Relaxed) {
                    break;
                }
                *place = counters.read(now_ns());
                taken += 1;
                thread::sleep(PERIOD);
                if taken % 1024 == 0 {
                    caller.follow();
                }
            }
            samples.truncate(taken);
            let _ = done.send(samples);
        });
        let _ = mask.thread_set_mask();
        thread.map(|_| Self { stop, samples: receiver })
    }

    /// Ends, and returns what was seen; nothing when the thread does not answer.
    pub fn end(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        self.samples.recv_timeout(PATIENCE).unwrap_or_default()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    time.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_in_the_order_of_time_until_the_end() {
        let sampler = Sampler::start_on(Path::new("/nonexistent")).unwrap();
        let begun = now_ns();
        while now_ns() < begun + 20_000_000 {
            thread::yield_now();
        }
        let samples = sampler.end();
        assert!(samples.len() > 1, "{}", samples.len());
        assert!(samples.windows(2).all(|pair| pair[0].at_ns < pair[1].at_ns));
    }
}
