// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Whether the thread that asks Atom is still alive.
//!
//! A fault in a payload kills the thread that called it, and nobody else: the helpers of that thread would
//! keep the process, its open files and whoever waits for it for ever.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;

use crate::problem::Exit;

/// The thread that made it. Only the first thread of a process is followed: the end of any other one may be
/// as it should be.
#[derive(Debug)]
pub(crate) struct Caller {
    stat: Option<File>,
}

impl Caller {
    /// The calling thread. Without `/proc` it is taken to live for ever.
    pub(crate) fn remember() -> Self {
        let first = fs::read_link("/proc/thread-self").is_ok_and(|link| {
            let mut parts = link.iter();
            parts.next().is_some_and(|process| parts.next_back() == Some(process))
        });
        Self { stat: if first { Self::stat().ok() } else { None } }
    }

    fn stat() -> io::Result<File> {
        File::open("/proc/thread-self/stat")
    }

    /// True when it has ended. Allocates nothing.
    pub(crate) fn has_ended(&self) -> bool {
        // The state stands behind the name, which has at most 64 bytes.
        let mut bytes = [0; 128];
        let Some(stat) = &self.stat else {
            return false;
        };
        match stat.read_at(&mut bytes, 0) {
            Ok(length) => state(bytes.get(..length).unwrap_or_default())
                .is_some_and(|state| matches!(state, b'Z' | b'X')),
            Err(error) => error.raw_os_error() == Some(Errno::ESRCH as i32),
        }
    }

    /// Ends the process when the thread has ended, as whoever waits for it expects.
    pub(crate) fn follow(&self) {
        if self.has_ended() {
            // What it was doing is Atom's to undo.
            eprintln!(
                "atomctl was killed in the kernel: read the kernel log (dmesg), and look at atomctl status and \
                 atomctl recover"
            );
            std::process::exit(Exit::Attention.code().into());
        }
    }
}

/// The state of a task, by the first bytes of its `stat`.
fn state(stat: &[u8]) -> Option<u8> {
    let end = stat.windows(2).rposition(|pair| pair == b") ")?;
    stat.get(end.saturating_add(2)).copied()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_is_alive_until_it_has_ended() {
        let of_this_thread = || Caller { stat: Some(Caller::stat().unwrap()) };
        assert!(!of_this_thread().has_ended());
        let gone = thread::spawn(of_this_thread).join().unwrap();
        // The kernel may be about to take it away while its end is known already.
        while !gone.has_ended() {
            thread::yield_now();
        }
    }

    #[test]
    fn a_thread_that_is_not_the_first_is_not_followed() {
        let other = thread::spawn(Caller::remember).join().unwrap();
        assert!(other.stat.is_none() && !other.has_ended());
    }

    #[test]
    fn a_name_with_a_bracket_does_not_hide_the_state() {
        assert_eq!(state(b"12 (a) Z b) S 1 2"), Some(b'S'));
        assert_eq!(state(b"12 (atomctl) Z 1"), Some(b'Z'));
        assert_eq!(state(b"12"), None);
    }
}
