// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Files on a file system: each is written, synced, dropped from the page cache, read back and compared.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{anyhow, ensure, Result};
use nix::fcntl::{posix_fadvise, PosixFadviseAdvice};

/// Files that exist at a time.
const FILES: u64 = 24;
/// Largest file.
const MOST_BYTES: u64 = 192 << 10;

/// Writes and checks files until it is stopped.
pub struct Files {
    folder: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<u64>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    rounds: AtomicU64,
}

/// What a file workload did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Files that were written and found right.
    pub checked: u64,
}

impl Files {
    /// Starts on a folder of a mounted file system.
    pub fn start(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let shared = Arc::new(Shared::default());
        let (theirs, place) = (Arc::clone(&shared), folder.to_owned());
        let thread = std::thread::Builder::new()
            .name("files".to_owned())
            .spawn(move || work(&place, &theirs))?;
        Ok(Self { folder: folder.to_owned(), shared, thread: Some(thread) })
    }

    /// Files that were written and found right so far.
    pub fn checked(&self) -> u64 {
        self.shared.rounds.load(Ordering::Relaxed)
    }

    /// An error when the workload has ended, which it does by itself only at an error or a wrong byte.
    pub fn check(&mut self) -> Result<()> {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Ok(());
        }
        let thread = self.thread.take().ok_or_else(|| anyhow!("stopped already"))?;
        let rounds = thread.join().map_err(|_| anyhow!("the file workload panicked"))??;
        Err(anyhow!("the file workload ended by itself after {rounds} files"))
    }

    /// Stops, and reads every file once more. An error when any operation failed or any byte was wrong.
    pub fn stop(mut self) -> Result<Done> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or_else(|| anyhow!("stopped twice"))?;
        let rounds = thread.join().map_err(|_| anyhow!("the file workload panicked"))??;
        ensure!(rounds > 0, "the file workload did nothing");
        for round in rounds.saturating_sub(FILES)..rounds {
            check(&path_of(&self.folder, round), round)?;
        }
        Ok(Done { checked: rounds })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn work(folder: &Path, shared: &Shared) -> Result<u64> {
    let mut round = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let path = path_of(folder, round);
        let mut file = File::create(&path)?;
        file.write_all(&content(round))?;
        file.sync_all()?;
        drop(file);
        check(&path, round)?;
        // An older one as well, which has been on the device for a while.
        if round >= FILES / 2 {
            check(&path_of(folder, round - FILES / 2), round - FILES / 2)?;
        }
        round += 1;
        shared.rounds.store(round, Ordering::Relaxed);
    }
    Ok(round)
}

fn check(path: &Path, round: u64) -> Result<()> {
    let mut file = OpenOptions::new().read(true).open(path)?;
    // Clean pages leave the cache, so that the device is read.
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    let mut found = Vec::new();
    file.read_to_end(&mut found)?;
    let wanted = content(round);
    let wrong = found.iter().zip(&wanted).position(|(found, wanted)| found != wanted);
    ensure!(
        wrong.is_none() && found.len() == wanted.len(),
        "{}: {} bytes instead of {}, the first wrong one at {wrong:?}",
        path.display(),
        found.len(),
        wanted.len()
    );
    Ok(())
}

fn path_of(folder: &Path, round: u64) -> PathBuf {
    folder.join(format!("file-{}", round % FILES))
}

/// The content of the file of a round: different for each round, of a length that changes.
fn content(round: u64) -> Vec<u8> {
    let mut state = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        // xorshift64, Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let bytes = 1 + next() % MOST_BYTES;
    let mut content = Vec::with_capacity(bytes as usize + 8);
    while (content.len() as u64) < bytes {
        content.extend_from_slice(&next().to_le_bytes());
    }
    content.truncate(bytes as usize);
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_wrong_byte_is_found() {
        let path = std::env::temp_dir().join(format!("atom-files-{}", std::process::id()));
        let mut bytes = content(3);
        fs::write(&path, &bytes).expect("a temporary file");
        assert!(check(&path, 3).is_ok());
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).expect("a temporary file");
        assert!(check(&path, 3).is_err());
        assert!(check(&path, 4).is_err());
        let _ = fs::remove_file(&path);
    }
}
