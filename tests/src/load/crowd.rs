// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Many writers, each with one request in flight: as soon as nothing ends any more, every tag is taken.
//!
//! Each has a block of its own, writes it, reads it back and compares, past the page cache. No two blocks are neighbours:
//! the block layer would make one request of two that wait, and so leave a tag free.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{anyhow, ensure, Context as _, Result};
use nix::fcntl::OFlag;

const BLOCK: usize = 4096;

/// Writers that go on until they are stopped. They use every other one of the device's first blocks.
pub struct Crowd {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    checked: AtomicU64,
}

impl Crowd {
    /// Starts so many writers on a device.
    pub fn start(device: &str, writers: u64) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut threads = Vec::new();
        for writer in 0..writers {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(OFlag::O_DIRECT.bits())
                .open(device)
                .with_context(|| format!("cannot open {device}"))?;
            let theirs = Arc::clone(&shared);
            let name = device.to_owned();
            threads.push(std::thread::Builder::new().name("crowd".to_owned()).spawn(
                move || {
                    work(&file, writer, &theirs)
                        .with_context(|| format!("writer {writer} of {name}"))
                },
            )?);
        }
        Ok(Self { shared, threads })
    }

    /// Writes that were read back and found right.
    pub fn checked(&self) -> u64 {
        self.shared.checked.load(Ordering::Relaxed)
    }

    /// An error when a writer has ended, which it does by itself only at an error or a wrong byte.
    pub fn check(&mut self) -> Result<()> {
        let Some(ended) = self.threads.iter().position(JoinHandle::is_finished) else {
            return Ok(());
        };
        let thread = self.threads.swap_remove(ended);
        thread.join().map_err(|_| anyhow!("a writer panicked"))??;
        Err(anyhow!("a writer ended by itself"))
    }

    /// Stops. An error when any operation failed or any byte was wrong.
    pub fn stop(mut self) -> Result<u64> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            thread.join().map_err(|_| anyhow!("a writer panicked"))??;
        }
        ensure!(self.checked() > 0, "the writers did nothing");
        Ok(self.checked())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn work(file: &File, writer: u64, shared: &Shared) -> Result<()> {
    // O_DIRECT wants memory and offset aligned to the block.
    let mut memory = vec![0u8; 2 * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let block = memory.get_mut(start..start + BLOCK).context("no aligned memory")?;
    let at = 2 * writer * BLOCK as u64;
    let mut round = writer;
    while !shared.stop.load(Ordering::Relaxed) {
        let mark = (round % 251) as u8 + 1;
        block.fill(mark);
        file.write_all_at(block, at).with_context(|| format!("write {round}"))?;
        block.fill(0);
        file.read_exact_at(block, at).with_context(|| format!("read {round}"))?;
        ensure!(block.iter().all(|byte| *byte == mark), "write {round} was not kept");
        shared.checked.fetch_add(1, Ordering::Relaxed);
        round += 1;
    }
    Ok(())
}
