// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Writers that know what must be there after a power cut.
//!
//! Each writer has a region of the device, in blocks of 4 KiB. In round 0 it writes every block of it, in each later round
//! a few, and ends the round with a flush. Which blocks, and with what, follows from the seed, so that whoever knows the
//! seed and the last round that was flushed knows for every block the oldest round that it may be of. The next round may
//! have been written in part; no other may.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{anyhow, ensure, Context as _, Result};
use nix::fcntl::OFlag;

use crate::random::Random;

/// Bytes of a block.
const BLOCK: usize = 4096;
/// Blocks of each region.
const BLOCKS: u64 = 512;
/// Most blocks of a round after the first.
const MOST: u64 = 24;
/// Bytes at the beginning of a block that say what it is.
const HEADER: usize = 24;

/// Writers at work.
pub struct Durable {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

struct Shared {
    stop: AtomicBool,
    /// For each writer, rounds that were flushed.
    rounds: Vec<AtomicU64>,
}

impl Durable {
    /// Starts `writers` on `device`. After each flush of a writer `flushed` is called with its number and the round.
    pub fn start(
        device: &str,
        seed: u64,
        writers: u64,
        flushed: impl Fn(u64, u64) + Send + Sync + 'static,
    ) -> Result<Self> {
        let rounds = (0..writers).map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), rounds });
        let flushed = Arc::new(flushed);
        let mut threads = Vec::new();
        for writer in 0..writers {
            let file = open(device)?;
            let (theirs, tell) = (Arc::clone(&shared), Arc::clone(&flushed));
            let spawned = std::thread::Builder::new()
                .name("durable".to_owned())
                .spawn(move || work(&file, seed, writer, &theirs, &*tell));
            threads.push(spawned?);
        }
        Ok(Self { shared, threads })
    }

    /// The fewest rounds that a writer has flushed.
    pub fn rounds(&self) -> u64 {
        let each = self.shared.rounds.iter().map(|rounds| rounds.load(Ordering::SeqCst));
        each.min().unwrap_or(0)
    }

    /// An error when a writer has ended, which it does by itself only at an error.
    pub fn check(&mut self) -> Result<()> {
        let Some(at) = self.threads.iter().position(JoinHandle::is_finished) else { return Ok(()) };
        let ended = self.threads.remove(at).join().map_err(|_| anyhow!("a writer panicked"))?;
        ended.and(Err(anyhow!("a writer has ended by itself")))
    }

    /// Stops, and returns the last round that each writer has flushed.
    pub fn stop(self) -> Result<Vec<u64>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a writer panicked"))??;
        }
        Ok(self.shared.rounds.iter().map(|done| done.load(Ordering::SeqCst).max(1) - 1).collect())
    }
}

/// Looks whether everything that `writers` have flushed is on the device: for each the last round. Returns how many blocks
/// are of a round that was not flushed.
pub fn verify(device: &str, seed: u64, flushed: &[u64]) -> Result<u64> {
    let file = open(device)?;
    let mut newer = 0;
    for (writer, last) in (0..).zip(flushed) {
        let mut oldest = vec![0; BLOCKS as usize];
        for round in 1..=*last {
            for block in blocks_of(seed, writer, round) {
                oldest[block as usize] = round;
            }
        }
        let next = blocks_of(seed, writer, last + 1);
        for (block, oldest) in (0..).zip(oldest) {
            let round = read(&file, seed, writer, block)
                .with_context(|| format!("block {block} of writer {writer}"))?;
            let in_flight = round == last + 1 && next.contains(&block);
            ensure!(
                round == oldest || in_flight,
                "block {block} of writer {writer} is of round {round}, but round {oldest} of it was flushed, and \
                 the last flush was that of round {last}"
            );
            newer += u64::from(in_flight);
        }
    }
    Ok(newer)
}

/// Bytes that so many writers need of a device.
pub const fn bytes(writers: u64) -> u64 {
    writers * BLOCKS * BLOCK as u64
}

fn work(
    file: &File,
    seed: u64,
    writer: u64,
    shared: &Shared,
    flushed: &impl Fn(u64, u64),
) -> Result<()> {
    let mut memory = vec![0u8; 2 * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let data = memory.get_mut(start..start + BLOCK).context("no aligned memory")?;
    let mut round = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        for block in blocks_of(seed, writer, round) {
            fill(data, seed, writer, block, round);
            file.write_all_at(data, place(writer, block))
                .with_context(|| format!("round {round} of writer {writer}"))?;
        }
        file.sync_data().with_context(|| format!("the flush of round {round}"))?;
        flushed(writer, round);
        round += 1;
        if let Some(rounds) = shared.rounds.get(writer as usize) {
            rounds.store(round, Ordering::SeqCst);
        }
    }
    Ok(())
}

/// The blocks that a writer writes in a round.
fn blocks_of(seed: u64, writer: u64, round: u64) -> Vec<u64> {
    if round == 0 {
        return (0..BLOCKS).collect();
    }
    let mut random = Random::new(mixed(&[seed, writer, round]));
    let count = 1 + random.below(MOST);
    (0..count).map(|_| random.below(BLOCKS)).collect()
}

fn place(writer: u64, block: u64) -> u64 {
    (writer * BLOCKS + block) * BLOCK as u64
}

fn fill(data: &mut [u8], seed: u64, writer: u64, block: u64, round: u64) {
    let (header, rest) = data.split_at_mut(HEADER);
    let words = [mixed(&[seed, writer]), block, round];
    for (place, word) in header.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let mut random = Random::new(mixed(&[seed, writer, block, round]));
    for place in rest.chunks_exact_mut(8) {
        place.copy_from_slice(&random.number().to_le_bytes());
    }
}

/// Reads a block, which must be whole, and returns its round.
fn read(file: &File, seed: u64, writer: u64, block: u64) -> Result<u64> {
    let mut memory = vec![0u8; 2 * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let data = memory.get_mut(start..start + BLOCK).context("no aligned memory")?;
    file.read_exact_at(data, place(writer, block))?;
    let round = data.get(16..HEADER).and_then(|bytes| bytes.try_into().ok());
    let round = u64::from_le_bytes(round.context("a short block")?);
    let mut wanted = vec![0; BLOCK];
    fill(&mut wanted, seed, writer, block, round);
    let wrong = wanted.iter().zip(&*data).position(|(wanted, found)| wanted != found);
    ensure!(wrong.is_none(), "it claims round {round}, and byte {wrong:?} is wrong");
    Ok(round)
}

/// One number from several.
fn mixed(words: &[u64]) -> u64 {
    words.iter().fold(0, |state, word| Random::new(state ^ word.rotate_left(17)).number())
}

fn open(device: &str) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_DIRECT.bits())
        .open(device)
        .with_context(|| format!("cannot open {device}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wait;

    #[test]
    fn what_was_flushed_is_found_and_an_older_block_a_newer_one_and_a_torn_one_are_not_passed_over()
    {
        let path = std::env::temp_dir().join(format!("atom-durable-{}", std::process::id()));
        let device = path.to_str().expect("a path");
        std::fs::write(&path, vec![0; bytes(2) as usize]).expect("a temporary file");
        let durable = Durable::start(device, 7, 2, |_, _| {}).expect("writers");
        wait::until("rounds", Duration::from_secs(60), || Ok(durable.rounds() > 3))
            .expect("rounds");
        let flushed = durable.stop().expect("stopped");
        assert_eq!(verify(device, 7, &flushed).expect("all is there"), 0);
        assert!(verify(device, 8, &flushed).is_err());

        let file = OpenOptions::new().read(true).write(true).open(&path).expect("the file");
        let block = blocks_of(7, 1, flushed[1])[0];
        let mut right = vec![0; BLOCK];
        file.read_exact_at(&mut right, place(1, block)).expect("read");
        let mut data = vec![0; BLOCK];
        // The round after the last flushed one may be there, but only in its own blocks.
        let next = flushed[1] + 1;
        fill(&mut data, 7, 1, block, next);
        file.write_all_at(&data, place(1, block)).expect("written");
        let verified = verify(device, 7, &flushed);
        assert_eq!(verified.ok(), blocks_of(7, 1, next).contains(&block).then_some(1));
        fill(&mut data, 7, 1, block, flushed[1] + 2);
        file.write_all_at(&data, place(1, block)).expect("written");
        assert!(verify(device, 7, &flushed).is_err());
        fill(&mut data, 7, 1, block, 0);
        file.write_all_at(&data, place(1, block)).expect("written");
        assert!(verify(device, 7, &flushed).is_err());
        right[BLOCK - 1] ^= 1;
        file.write_all_at(&right, place(1, block)).expect("written");
        assert!(verify(device, 7, &flushed).is_err());
        let _ = std::fs::remove_file(&path);
    }
}
