// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Writers that know what must be there after a power cut.
//!
//! Each writer has a region of the device, in blocks of 4 KiB. In round 0 it writes every block of it, in each later round
//! a few, and ends the round with a flush. Which blocks, and with what, follows from the seed, so that whoever knows the
//! seed and the last round that was flushed knows for every block the oldest round that it may be of. The next round may
//! have been written in part; no other may.
//!
//! Which round was the last is known from outside and from the blocks: what somebody was told may be late, but a writer
//! begins a round only when the one before has been flushed.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use anyhow::{ensure, Context as _, Result};
use nix::fcntl::OFlag;

use super::rounds::{last_ended, Rounds};
use crate::random::Random;

/// Bytes of a block.
const BLOCK: usize = 4096;
/// Blocks of each region.
const BLOCKS: u64 = 512;
/// Most blocks of a round after the first.
const MOST: u64 = 24;
/// Bytes at the beginning of a block that say what it is.
const HEADER: usize = 24;

/// Starts `writers` on `device`. After each flush of a writer `flushed` is called with its number and the round.
pub fn start(
    device: &str,
    seed: u64,
    writers: u64,
    flushed: impl Fn(u64, u64) + Send + Sync + 'static,
) -> Result<Rounds> {
    let files = (0..writers).map(|_| open(device)).collect::<Result<Vec<_>>>()?;
    let work = move |writer, round| {
        let file = files.get(writer as usize).context("no file")?;
        work(file, seed, writer, round)
    };
    Rounds::start("durable", writers, work, flushed)
}

/// Looks whether everything that `writers` have flushed is on the device: for each the last round that is known. Returns how
/// many blocks are of a round that was not flushed.
pub fn verify(device: &str, seed: u64, flushed: &[u64]) -> Result<u64> {
    let file = open(device)?;
    let mut newer = 0;
    for (writer, known) in (0..).zip(flushed.iter().copied()) {
        let mut found = Vec::new();
        for block in 0..BLOCKS {
            let round = read(&file, seed, writer, block)
                .with_context(|| format!("block {block} of writer {writer}"))?;
            found.push(round);
        }
        let last = last_ended(known, found.iter().copied().max());
        let mut oldest = vec![0; BLOCKS as usize];
        for round in 1..=last {
            for block in blocks_of(seed, writer, round) {
                oldest[block as usize] = round;
            }
        }
        let next = blocks_of(seed, writer, last + 1);
        for ((block, oldest), round) in (0..).zip(oldest).zip(found) {
            let in_flight = round == last + 1 && next.contains(&block);
            ensure!(
                round == oldest || in_flight,
                "block {block} of writer {writer} is of round {round}, but round {oldest} of it was flushed; the \
                 last flush was that of round {last}, and that of round {known} was told"
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

fn work(file: &File, seed: u64, writer: u64, round: u64) -> Result<()> {
    let mut memory = vec![0u8; 2 * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let data = memory.get_mut(start..start + BLOCK).context("no aligned memory")?;
    for block in blocks_of(seed, writer, round) {
        fill(data, seed, writer, block, round);
        file.write_all_at(data, place(writer, block))?;
    }
    file.sync_data().context("the flush")
}

/// The blocks that a writer writes in a round.
fn blocks_of(seed: u64, writer: u64, round: u64) -> Vec<u64> {
    if round == 0 {
        return (0..BLOCKS).collect();
    }
    let mut random = Random::mixed(&[seed, writer, round]);
    let count = 1 + random.below(MOST);
    (0..count).map(|_| random.below(BLOCKS)).collect()
}

fn place(writer: u64, block: u64) -> u64 {
    (writer * BLOCKS + block) * BLOCK as u64
}

fn fill(data: &mut [u8], seed: u64, writer: u64, block: u64, round: u64) {
    let (header, rest) = data.split_at_mut(HEADER);
    let words = [Random::mixed(&[seed, writer]).number(), block, round];
    for (place, word) in header.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let mut random = Random::mixed(&[seed, writer, block, round]);
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
        let rounds = start(device, 7, 2, |_, _| {}).expect("writers");
        wait::until("rounds", Duration::from_secs(60), || Ok(rounds.fewest() > 3)).expect("rounds");
        let flushed = rounds.stop().expect("stopped");
        assert_eq!(verify(device, 7, &flushed).expect("all is there"), 0);
        // The last rounds may have been flushed without that anybody was told.
        let told_late = [flushed[0] - 2, flushed[1] - 2];
        let of_last = |writer| -> u64 {
            let mut blocks = blocks_of(7, writer, flushed[writer as usize]);
            blocks.sort_unstable();
            blocks.dedup();
            blocks.len() as u64
        };
        let newer = verify(device, 7, &told_late).expect("all is there");
        assert_eq!(newer, of_last(0) + of_last(1));
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
        // One after that says that the round before it was flushed, of which nothing is there.
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
