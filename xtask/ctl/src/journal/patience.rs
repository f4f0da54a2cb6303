// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Waits for a disk for as long as that is worth it.
//!
//! What does not come back from a disk cannot be given up: it keeps its thread, and with it the process and whoever waits
//! for that. That goes for a write, and for a look into a folder as well, since somebody else may wait for the disk with
//! that folder locked. So it is done by a process of its own, for which nobody waits.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::wait::waitpid;

use crate::sys;

/// How long a process aside may wait for its turn and do its work, in seconds.
const LIFE_S: u32 = 60;
/// What the word of a process aside begins with: its work is done, and the
/// length of what it has read follows, 8 bytes, little-endian, and that itself; or why it is not.
const DONE: u8 = b'+';
const FAILED: u8 = b'-';
/// As much as a pipe holds, see pipe(7).
const PIPE_BYTES: usize = 64 << 10;

/// Writes, in a process of its own.
pub(super) fn write(patience: Duration, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    read(patience, || work().map(|()| Vec::new())).map(drop)
}

/// Reads, in a process of its own, what `work` returns.
pub(super) fn read(
    patience: Duration,
    work: impl FnOnce() -> io::Result<Vec<u8>>,
) -> io::Result<Vec<u8>> {
    let (read, write) = io::pipe()?;
    let (mut read, write) = (File::from(OwnedFd::from(read)), File::from(OwnedFd::from(write)));
    let child = sys::aside(&write, LIFE_S, || match work() {
        Ok(bytes) => {
            let mut word = vec![DONE];
            word.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            word.extend_from_slice(&bytes);
            word
        }
        Err(error) => {
            let mut word = vec![FAILED];
            word.extend_from_slice(error.to_string().as_bytes());
            word
        }
    })?;
    drop(write);
    let word = wait_for(&mut read, patience)?;
    // It has ended, or is about to.
    let _ = waitpid(child, None);
    understood(&word)
}

/// What a process aside has said. One that was killed in the middle of it has not said it.
fn understood(word: &[u8]) -> io::Result<Vec<u8>> {
    let killed = || io::Error::other("its process was killed");
    match word.split_first().ok_or_else(killed)? {
        (&DONE, rest) => {
            let (length, bytes) = rest.split_first_chunk().ok_or_else(killed)?;
            let whole = u64::from_le_bytes(*length) == bytes.len() as u64;
            whole.then(|| bytes.to_vec()).ok_or_else(killed)
        }
        (_, why) => Err(io::Error::other(String::from_utf8_lossy(why).into_owned())),
    }
}

/// All that comes through a pipe.
fn wait_for(pipe: &mut File, patience: Duration) -> io::Result<Vec<u8>> {
    let begun = Instant::now();
    let mut word = Vec::new();
    let mut bytes = vec![0; PIPE_BYTES];
    loop {
        let left = patience.saturating_sub(begun.elapsed());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
            return Err(no_answer(patience));
        }
        match pipe.read(&mut bytes)? {
            0 => return Ok(word),
            length => word.extend_from_slice(bytes.get(..length).unwrap_or_default()),
        }
    }
}

fn no_answer(patience: Duration) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, format!("no answer after {patience:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_the_writer_meets_is_told() {
        assert!(write(LONG, || Ok(())).is_ok());
        let error = write(LONG, || Err(io::Error::other("full"))).unwrap_err();
        assert_eq!(error.to_string(), "full");
        let error = write(LONG, || std::process::abort()).unwrap_err();
        assert_eq!(error.to_string(), "its process was killed");
    }

    #[test]
    fn what_was_read_comes_back_whole_also_when_it_is_long() {
        let long: Vec<u8> = (0..PIPE_BYTES * 3 + 1).map(|number| number as u8).collect();
        assert_eq!(read(LONG, || Ok(long.clone())).unwrap(), long);
        assert_eq!(read(LONG, || Ok(Vec::new())).unwrap(), b"");
    }

    #[test]
    fn what_a_process_that_was_killed_had_said_is_not_taken_for_the_whole() {
        let whole = [&[DONE][..], &3u64.to_le_bytes(), b"abc"].concat();
        assert_eq!(understood(&whole).unwrap(), b"abc");
        for end in 0..whole.len() {
            let error = understood(&whole[..end]).unwrap_err();
            assert_eq!(error.to_string(), "its process was killed", "after {end} bytes");
        }
    }

    #[test]
    fn a_writer_that_does_not_come_back_is_left_to_it() {
        let error = write(Duration::from_millis(20), || {
            // It is gone soon after the test.
            nix::unistd::alarm::set(2);
            nix::unistd::pause();
            Ok(())
        });
        assert_eq!(error.unwrap_err().to_string(), "no answer after 20ms");
    }
}
