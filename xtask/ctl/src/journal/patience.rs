// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Waits for a disk for as long as that is worth it.
//!
//! A write that does not come back cannot be given up: it keeps its thread, and with it the process and whoever waits for
//! that. So it is made by a process of its own, for which nobody waits.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::wait::waitpid;

use crate::sys;

/// How long a process aside may wait for its turn and do its work, in seconds.
const LIFE_S: u32 = 60;
const DONE: &str = "done";
const STACK_BYTES: usize = 256 << 10;

/// Writes, in a process of its own.
pub(super) fn write(patience: Duration, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let (read, write) = io::pipe()?;
    let (mut read, write) = (File::from(OwnedFd::from(read)), File::from(OwnedFd::from(write)));
    let child = sys::aside(&write, LIFE_S, || match work() {
        Ok(()) => DONE.to_owned(),
        Err(error) => error.to_string(),
    })?;
    drop(write);
    let word = wait_for(&mut read, patience)?;
    // It has ended, or is about to.
    let _ = waitpid(child, None);
    match word.as_str() {
        DONE => Ok(()),
        "" => Err(io::Error::other("its writer was killed")),
        why => Err(io::Error::other(why.to_owned())),
    }
}

/// All that comes through a pipe.
fn wait_for(pipe: &mut File, patience: Duration) -> io::Result<String> {
    let begun = Instant::now();
    let mut word = Vec::new();
    loop {
        let left = patience.saturating_sub(begun.elapsed());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
            return Err(no_answer(patience));
        }
        let mut bytes = [0; 512];
        match pipe.read(&mut bytes)? {
            0 => return Ok(String::from_utf8_lossy(&word).into_owned()),
            length => word.extend_from_slice(bytes.get(..length).unwrap_or_default()),
        }
    }
}

/// Reads, in a thread of its own: the kernel gives up a read for a process that ends.
pub(super) fn read<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, answer) = channel();
    Builder::new().stack_size(STACK_BYTES).spawn(move || {
        // Whoever asked may not wait any more.
        let _ = done.send(work());
    })?;
    answer.recv_timeout(patience).unwrap_or_else(|error| {
        Err(match error {
            RecvTimeoutError::Timeout => no_answer(patience),
            RecvTimeoutError::Disconnected => io::Error::other("its thread has ended"),
        })
    })
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
        assert_eq!(error.to_string(), "its writer was killed");
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
