// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Writers that work in rounds, each of which ends with something that outlives the power.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{anyhow, Context as _, Result};

/// Writers at work.
pub struct Rounds {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

struct Shared {
    stop: AtomicBool,
    /// For each writer, rounds that have ended.
    ended: Vec<AtomicU64>,
}

impl Rounds {
    /// Starts `writers` threads of this name. Each does one round of `work` after the other, with its number and that of
    /// the round, and after each `tell` is called with the same.
    pub fn start(
        name: &str,
        writers: u64,
        work: impl Fn(u64, u64) -> Result<()> + Send + Sync + 'static,
        tell: impl Fn(u64, u64) + Send + Sync + 'static,
    ) -> Result<Self> {
        let ended = (0..writers).map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), ended });
        let round = Arc::new(move |writer, round| -> Result<()> {
            work(writer, round).with_context(|| format!("round {round} of writer {writer}"))?;
            tell(writer, round);
            Ok(())
        });
        let mut threads = Vec::new();
        for writer in 0..writers {
            let (theirs, round) = (Arc::clone(&shared), Arc::clone(&round));
            let spawned = std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || theirs.go_on(writer, &*round));
            threads.push(spawned?);
        }
        Ok(Self { shared, threads })
    }

    /// The fewest rounds that a writer has ended.
    pub fn fewest(&self) -> u64 {
        let each = self.shared.ended.iter().map(|ended| ended.load(Ordering::SeqCst));
        each.min().unwrap_or(0)
    }

    /// An error when a writer has ended, which it does by itself only at an error.
    pub fn check(&mut self) -> Result<()> {
        let Some(at) = self.threads.iter().position(JoinHandle::is_finished) else { return Ok(()) };
        let ended = self.threads.remove(at).join().map_err(|_| anyhow!("a writer panicked"))?;
        ended.and(Err(anyhow!("a writer has ended by itself")))
    }

    /// Stops, and returns the last round that each writer has ended.
    pub fn stop(self) -> Result<Vec<u64>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a writer panicked"))??;
        }
        Ok(self.shared.ended.iter().map(|ended| ended.load(Ordering::SeqCst).max(1) - 1).collect())
    }
}

/// The last round of a writer that had ended for sure: the one that somebody was told of, which may be late, or the one
/// before the newest of which something is `found`.
pub(super) fn last_ended(told: u64, found: Option<u64>) -> u64 {
    told.max(found.unwrap_or(0).saturating_sub(1))
}

impl Shared {
    fn go_on(&self, writer: u64, work: &impl Fn(u64, u64) -> Result<()>) -> Result<()> {
        let mut round = 0;
        while !self.stop.load(Ordering::Relaxed) {
            work(writer, round)?;
            round += 1;
            if let Some(ended) = self.ended.get(writer as usize) {
                ended.store(round, Ordering::SeqCst);
            }
        }
        Ok(())
    }
}
