// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Small writes, each made durable by a flush before the next, and read back.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context as _, Result};
use nix::fcntl::OFlag;

const BLOCK: usize = 4096;
/// Blocks that are written in turn.
const BLOCKS: u64 = 32;

/// Writes and flushes until it is stopped.
pub struct Flushes {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    flushes: AtomicU64,
    slowest_us: AtomicU64,
}

/// What it did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Writes that were flushed, read back and found right.
    pub flushes: u64,
    /// The longest time from a flush's beginning to its end.
    pub slowest: Duration,
}

impl Flushes {
    /// Starts on a device, past the page cache. Whoever else writes there must keep off the first 32 blocks.
    pub fn start(device: &str) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_DIRECT.bits())
            .open(device)
            .with_context(|| format!("cannot open {device}"))?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let name = device.to_owned();
        let thread = std::thread::Builder::new()
            .name("flushes".to_owned())
            .spawn(move || work(&file, &theirs).with_context(|| format!("flushes of {name}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Flushes that have ended.
    pub fn count(&self) -> u64 {
        self.shared.flushes.load(Ordering::Relaxed)
    }

    /// Stops. An error when a write or a flush failed, or a byte was wrong.
    pub fn stop(mut self) -> Result<Done> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or_else(|| anyhow!("stopped twice"))?;
        thread.join().map_err(|_| anyhow!("the flushing thread panicked"))??;
        let slowest = Duration::from_micros(self.shared.slowest_us.load(Ordering::Relaxed));
        Ok(Done { flushes: self.count(), slowest })
    }
}

impl Drop for Flushes {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn work(file: &File, shared: &Shared) -> Result<()> {
    // O_DIRECT wants memory and offset aligned to the block.
    let mut memory = vec![0u8; 2 * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let block = memory.get_mut(start..start + BLOCK).context("no aligned memory")?;
    let mut round = 0u64;
    while !shared.stop.load(Ordering::Relaxed) {
        let mark = (round % 251) as u8 + 1;
        let at = (round % BLOCKS) * BLOCK as u64;
        block.fill(mark);
        file.write_all_at(block, at).with_context(|| format!("write {round}"))?;
        let begun = Instant::now();
        file.sync_data().with_context(|| format!("flush {round}"))?;
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.slowest_us.fetch_max(took, Ordering::Relaxed);
        block.fill(0);
        file.read_exact_at(block, at).with_context(|| format!("read {round}"))?;
        ensure!(block.iter().all(|byte| *byte == mark), "write {round} was not kept");
        round += 1;
        shared.flushes.store(round, Ordering::Relaxed);
    }
    Ok(())
}
