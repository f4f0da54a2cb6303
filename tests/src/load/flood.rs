// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! An application that keeps many requests in flight, from one thread, and notices for how long nothing comes back.
//!
//! Each request is submitted by a call of its own, and what has come back is looked at after each: a device that carries out
//! requests within the call would otherwise answer for all of them at once.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use io_uring::{opcode, types, IoUring};

use super::gaps::{Gaps, Watched};
use crate::queue::open_direct;
use crate::random::Random;

const BLOCK: usize = 4096;

/// Reads and writes in turns, at random places, past the page cache.
pub struct Flood(Watched);

impl Flood {
    /// Starts with at most so many requests in flight, on the first `bytes` of a device.
    pub fn start(device: &str, depth: u32, bytes: u64) -> Result<Self> {
        let file = open_direct(device)?;
        let blocks = bytes / BLOCK as u64;
        ensure!(blocks > 0 && depth > 0, "nothing to do on {bytes} bytes at depth {depth}");
        Ok(Self(Watched::start("flood", device, move |gaps| work(&file, depth, blocks, gaps))?))
    }

    /// Begins a window in which each request is kept.
    pub fn open_kept_window(&self) {
        self.0.open_kept_window();
    }

    /// Begins a window; the gap that is under way counts from here.
    pub fn open_window(&self) {
        self.0.open_window();
    }

    /// The requests of the window that were kept: when each came back, since it began, and how long it took.
    pub fn kept(&self) -> Vec<(Duration, Duration)> {
        self.0.kept()
    }

    /// The longest gap since the window began, including one that has not ended.
    pub fn longest_gap(&self) -> Duration {
        self.0.longest_gap()
    }

    /// Requests that came back.
    pub fn done(&self) -> u64 {
        self.0.done()
    }

    /// An error when a request has failed.
    pub fn check(&mut self) -> Result<()> {
        self.0.check()
    }

    /// Stops. An error when any request failed.
    pub fn stop(self) -> Result<u64> {
        self.0.stop()
    }
}

fn work(file: &File, depth: u32, blocks: u64, gaps: &Gaps) -> Result<()> {
    let depth = depth as usize;
    let mut ring = IoUring::new(u32::try_from(depth.next_power_of_two())?)
        .context("the kernel has no io_uring")?;
    // Never given back: when one request fails, others are still in flight.
    let memory = vec![0u8; (depth + 1) * BLOCK].leak();
    let start = memory.as_ptr().align_offset(BLOCK);
    let mut begun = vec![Instant::now(); depth];
    let mut free: Vec<usize> = (0..depth).collect();
    let mut chance = Random::mixed(&[blocks, depth as u64]);
    let mut writes = false;
    while !gaps.ends() || free.len() < depth {
        match (!gaps.ends()).then(|| free.pop()).flatten() {
            Some(slot) => {
                let at = start + slot * BLOCK;
                let block = memory.get_mut(at..at + BLOCK).context("no aligned memory")?;
                let fd = types::Fd(file.as_raw_fd());
                let place = chance.number() % blocks * BLOCK as u64;
                writes = !writes;
                let entry = match writes {
                    true => {
                        opcode::Write::new(fd, block.as_ptr(), BLOCK as u32).offset(place).build()
                    }
                    false => opcode::Read::new(fd, block.as_mut_ptr(), BLOCK as u32)
                        .offset(place)
                        .build(),
                };
                if let Some(begun) = begun.get_mut(slot) {
                    *begun = Instant::now();
                }
                // SAFETY: The block is the request's alone until it has come back: its slot is not free before. The memory is
                // never given back, and the file is open as long as the ring exists.
                unsafe { ring.submission().push(&entry.user_data(slot as u64)) }
                    .context("no room in the ring")?;
                ring.submit()?;
            }
            None => drop(ring.submit_and_wait(1)?),
        }
        for entry in ring.completion() {
            let slot = usize::try_from(entry.user_data())?;
            ensure!(entry.result() == BLOCK as i32, "a request ended with {}", entry.result());
            gaps.came_back(*begun.get(slot).context("an answer to nothing")?);
            free.push(slot);
        }
    }
    Ok(())
}
