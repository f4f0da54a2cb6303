// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the block layer itself says of a device.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use anyhow::{ensure, Context as _, Result};
use nix::fcntl::OFlag;

/// Bytes of a block of the functions below.
pub const BLOCK: usize = 4096;

/// Counts since the device exists (`Documentation/block/stat.rst`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    pub reads: u64,
    pub writes: u64,
    pub discards: u64,
    pub discarded_sectors: u64,
    pub flushes: u64,
}

impl Stat {
    /// Requests that have ended.
    pub fn requests(&self) -> u64 {
        self.reads + self.writes + self.discards + self.flushes
    }
}

/// What has ended on a device.
pub fn stat(device: &str) -> Result<Stat> {
    let numbers = numbers(device, "stat")?;
    let at = |index: usize| numbers.get(index).copied().context("a short stat");
    Ok(Stat {
        reads: at(0)?,
        writes: at(4)?,
        discards: at(11)?,
        discarded_sectors: at(13)?,
        flushes: at(15)?,
    })
}

/// Tags that are taken, on all hardware queues: requests that have not ended, held ones included. The file `inflight`
/// leaves out those that were not dispatched.
pub fn in_flight(device: &str) -> Result<u64> {
    Ok(hardware(device)?.iter().map(|queue| queue.taken).sum())
}

/// A hardware queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// The kind of its requests: `default`, `read` or `poll`.
    pub kind: String,
    /// Tags that are taken.
    pub taken: u64,
}

/// The hardware queues of a device.
pub fn hardware(device: &str) -> Result<Vec<Hardware>> {
    let folder = format!("/sys/kernel/debug/block/{}", device.trim_start_matches("/dev/"));
    let mut queues = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("no {folder}"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("hctx") {
            let read = |name: &str| std::fs::read_to_string(entry.path().join(name));
            // With a scheduler a request has a tag of that one's first; without, the file is empty.
            let (tags, scheduled) = (read("tags")?, read("sched_tags")?);
            let taken = busy(&scheduled).or_else(|| busy(&tags));
            let taken = taken.with_context(|| format!("{:?}: {tags}", entry.path()))?;
            queues.push(Hardware { kind: read("type")?.trim().to_owned(), taken });
        }
    }
    ensure!(!queues.is_empty(), "{folder} has no hardware queue");
    Ok(queues)
}

/// The first line `busy=N`: that of the ordinary tags.
fn busy(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.trim().strip_prefix("busy="))?.parse().ok()
}

/// A number of the queue, as `discard_max_bytes`.
pub fn limit(device: &str, name: &str) -> Result<u64> {
    let name = format!("queue/{name}");
    numbers(device, &name)?.first().copied().with_context(|| format!("{device}: no {name}"))
}

/// Writes a block past the page cache, and returns when it is done.
pub fn write_block(device: &str, block: u64, byte: u8) -> Result<()> {
    let (file, mut memory, start) = direct(device)?;
    let data = memory.get_mut(start..start + BLOCK).context("no aligned memory")?;
    data.fill(byte);
    file.write_all_at(data, block * BLOCK as u64).with_context(|| format!("{device}, {block}"))
}

/// Reads a block past the page cache.
pub fn read_block(device: &str, block: u64) -> Result<Vec<u8>> {
    let (file, mut memory, start) = direct(device)?;
    let data = memory.get_mut(start..start + BLOCK).context("no aligned memory")?;
    file.read_exact_at(data, block * BLOCK as u64).with_context(|| format!("{device}, {block}"))?;
    Ok(data.to_vec())
}

/// Writes blocks past the page cache in one request, each full of its own word.
pub fn write_words(device: &str, block: u64, words: &[u64]) -> Result<()> {
    let (file, mut memory, start) = direct_of(device, words.len())?;
    let data = memory.get_mut(start..start + words.len() * BLOCK).context("no aligned memory")?;
    for (place, word) in data.chunks_exact_mut(BLOCK).zip(words) {
        place.chunks_exact_mut(8).for_each(|bytes| bytes.copy_from_slice(&word.to_le_bytes()));
    }
    file.write_all_at(data, block * BLOCK as u64).with_context(|| format!("{device}, {block}"))
}

/// Reads so many blocks past the page cache in one request: each word, or `None` for a block that is not full of one.
pub fn read_words(device: &str, block: u64, count: usize) -> Result<Vec<Option<u64>>> {
    let (file, mut memory, start) = direct_of(device, count)?;
    let data = memory.get_mut(start..start + count * BLOCK).context("no aligned memory")?;
    file.read_exact_at(data, block * BLOCK as u64).with_context(|| format!("{device}, {block}"))?;
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
    let words = data.chunks_exact(BLOCK).map(|block| {
        let mut words = block.chunks_exact(8).map(word);
        let first = words.next().flatten();
        first.filter(|first| words.all(|other| other == Some(*first)))
    });
    Ok(words.collect())
}

/// A device to be read and written past the page cache.
pub fn open_direct(device: &str) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_DIRECT.bits())
        .open(device)
        .with_context(|| format!("cannot open {device}"))
}

/// O_DIRECT wants memory and offset aligned to the block.
fn direct(device: &str) -> Result<(File, Vec<u8>, usize)> {
    direct_of(device, 1)
}

/// The same with memory for so many blocks.
fn direct_of(device: &str, blocks: usize) -> Result<(File, Vec<u8>, usize)> {
    let file = open_direct(device)?;
    let memory = vec![0u8; (blocks + 1) * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    Ok((file, memory, start))
}

fn numbers(device: &str, name: &str) -> Result<Vec<u64>> {
    let path = format!("/sys/block/{}/{name}", device.trim_start_matches("/dev/"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    text.split_whitespace().map(|word| word.parse().with_context(|| path.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tags_that_are_taken_are_read_from_the_kernels_words() {
        let text =
            "nr_tags=8\nnr_reserved_tags=0\nactive_queues=0\n\nbitmap_tags:\ndepth=8\nbusy=3\n\
                    cleared=2\nbits_per_word=8\n";
        assert_eq!(busy(text), Some(3));
        assert_eq!(busy("nr_tags=8\n"), None);
    }
}
