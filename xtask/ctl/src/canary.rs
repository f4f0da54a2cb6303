// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Reads the first and the last block of a device past the page cache, to see whether it answers.
//!
//! The reads are made by a thread of their own. When one does not come back, the thread is left to it and the
//! next read gets another one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use nix::libc::O_DIRECT;

use crate::caller::Caller;
use crate::quantity::show_micros;

/// Length of a read: a multiple of every logical block.
const BLOCK_BYTES: usize = 4096;
const SECTOR_BYTES: u64 = 512;
/// How often the thread looks whether anybody needs it.
const IDLE: Duration = Duration::from_secs(1);
const STACK_BYTES: usize = 128 << 10;

/// The reading thread, when there is one.
#[derive(Debug, Default)]
pub(crate) struct Canary {
    reader: Mutex<Option<Reader>>,
}

#[derive(Debug)]
struct Reader {
    wishes: Sender<(PathBuf, u64)>,
    answers: Receiver<io::Result<()>>,
}

impl Canary {
    /// Reads the first and the last block, each of which may take `limit`. The error says what is wrong.
    pub(crate) fn read(
        &self,
        device: &Path,
        capacity_sectors: u64,
        limit: Duration,
    ) -> Result<(), String> {
        for at in places(capacity_sectors) {
            self.read_at(device, at, limit)?;
        }
        Ok(())
    }

    fn read_at(&self, device: &Path, at: u64, limit: Duration) -> Result<(), String> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = |why: &str| Err(format!("a read of {} at byte {at} {why}", device.display()));
        let at_work = match reader.take() {
            Some(at_work) => at_work,
            None => match Reader::start() {
                Ok(started) => started,
                Err(error) => return wrong(&format!("could not be made: {error}")),
            },
        };
        if at_work.wishes.send((device.to_owned(), at)).is_err() {
            return wrong("could not be made: its thread has ended");
        }
        match at_work.answers.recv_timeout(limit) {
            Ok(answer) => {
                *reader = Some(at_work);
                answer.or_else(|error| wrong(&format!("failed: {error}")))
            }
            Err(RecvTimeoutError::Timeout) => {
                let us = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
                wrong(&format!("has not come back after {}", show_micros(us)))
            }
            Err(RecvTimeoutError::Disconnected) => wrong("ended its thread"),
        }
    }
}

impl Reader {
    fn start() -> io::Result<Self> {
        let (wishes, to_do) = channel::<(PathBuf, u64)>();
        let (done, answers) = channel();
        let caller = Caller::remember();
        Builder::new().stack_size(STACK_BYTES).spawn(move || loop {
            match to_do.recv_timeout(IDLE) {
                Ok((path, at)) if done.send(read_block(&path, at)).is_ok() => {}
                Err(RecvTimeoutError::Timeout) => caller.follow(),
                _ => return,
            }
        })?;
        Ok(Self { wishes, answers })
    }
}

/// Where a device is read, in bytes. One that is smaller than a read is not.
fn places(capacity_sectors: u64) -> Vec<u64> {
    let block = BLOCK_BYTES as u64;
    let blocks = capacity_sectors.saturating_mul(SECTOR_BYTES) / block;
    match blocks {
        0 => Vec::new(),
        1 => vec![0],
        blocks => vec![0, (blocks - 1).saturating_mul(block)],
    }
}

fn read_block(path: &Path, at: u64) -> io::Result<()> {
    let device: File = OpenOptions::new().read(true).custom_flags(O_DIRECT).open(path)?;
    let mut memory = vec![0u8; BLOCK_BYTES * 2];
    let begin = memory.as_ptr().align_offset(BLOCK_BYTES);
    let buffer = memory
        .get_mut(begin..begin.saturating_add(BLOCK_BYTES))
        .ok_or_else(|| io::Error::other("its memory cannot be aligned"))?;
    device.read_exact_at(buffer, at)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("atomctl-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn the_first_and_the_last_block_are_read_and_a_tiny_device_is_not() {
        assert_eq!(places(7), [0u64; 0]);
        assert_eq!(places(8), [0]);
        assert_eq!(places(2048), [0, (1 << 20) - 4096]);
        assert_eq!(places(2049), [0, (1 << 20) - 4096]);
    }

    #[test]
    fn a_read_past_the_end_fails_and_the_next_one_works() {
        let folder = folder("canary");
        let path = folder.join("device");
        fs::write(&path, vec![1; 8192]).unwrap();
        let canary = Canary::default();
        let limit = Duration::from_secs(10);
        let failed = canary.read(&path, 64, limit).unwrap_err();
        // Some file systems have no O_DIRECT, and then say so for every read.
        if !failed.contains("Invalid argument") {
            assert!(failed.contains("at byte 28672"), "{failed}");
            assert_eq!(canary.read(&path, 16, limit), Ok(()));
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_read_that_hangs_is_noticed_and_others_go_on_without_it() {
        let folder = folder("canary-hangs");
        let pipe = folder.join("pipe");
        // Opening a pipe for reading waits for a writer, as a read of a device waits for its payload.
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let canary = Canary::default();
        let hung = canary.read(&pipe, 8, Duration::from_millis(50)).unwrap_err();
        assert!(hung.contains("has not come back after 50.00 ms"), "{hung}");
        let missing = canary.read(&folder.join("none"), 8, Duration::from_secs(10)).unwrap_err();
        assert!(missing.contains("No such file"), "{missing}");
        drop(OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&pipe));
        fs::remove_dir_all(&folder).unwrap();
    }
}
