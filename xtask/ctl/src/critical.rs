// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The time in which Atom holds I/O, and this process must not wait for it.

use std::fs;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::mman::{mlockall, munlockall, MlockAllFlags};
use nix::sys::signal::SigSet;

use crate::problem::{Problem, Result};
use crate::sys;

const OOM_SCORE: &str = "/proc/self/oom_score_adj";
const NEVER: &str = "-1000";

/// Holders of locked memory: the first locks it, the last unlocks it.
static HOLDERS: Mutex<u32> = Mutex::new(0);

/// While it exists, this process has all of its memory present and locked, so that no page fault reads from a
/// disk.
#[derive(Debug)]
pub struct Locked(());

impl Locked {
    /// Locks the memory, also what is yet to be allocated.
    pub fn enter() -> Result<Self> {
        let mut holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        if *holders == 0 {
            mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)
                .map_err(|errno| refused("lock its memory", errno))?;
        }
        *holders = holders.saturating_add(1);
        Ok(Self(()))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let mut holders = HOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        *holders = holders.saturating_sub(1);
        if *holders == 0 {
            let _ = munlockall();
        }
    }
}

/// While it exists, this process
///
/// - has all of its memory present and locked, so that no page fault reads from a held disk;
/// - lets no allocation, also none that the kernel makes for it, wait for I/O;
/// - is not interrupted, because a hang-up of the terminal must not leave the I/O held;
/// - is the last to be killed when memory is short.
///
/// Dropping it takes all of this back in reverse.
#[derive(Debug)]
pub struct Critical {
    signals: SigSet,
    oom_score: Option<String>,
    /// The last to go: what is taken back above allocates.
    _memory: Locked,
}

impl Critical {
    /// Begins it. On an error nothing has changed.
    pub fn enter() -> Result<Self> {
        let memory = Locked::enter()?;
        sys::set_io_flusher(true)
            .map_err(|errno| refused("keep its allocations from waiting for I/O", errno))?;
        let signals = SigSet::thread_get_mask()
            .and_then(|mask| SigSet::all().thread_block().map(|()| mask))
            .map_err(|errno| {
                let _ = sys::set_io_flusher(false);
                refused("block its signals", errno)
            })?;
        let oom_score =
            fs::read_to_string(OOM_SCORE).ok().filter(|_| fs::write(OOM_SCORE, NEVER).is_ok());
        Ok(Self { signals, oom_score, _memory: memory })
    }
}

fn refused(what: &str, errno: Errno) -> Problem {
    Problem::refused(
        format!("This process cannot {what}"),
        errno.desc(),
        "run this as root, without a limit on locked memory (ulimit -l unlimited)",
    )
}

impl Drop for Critical {
    fn drop(&mut self) {
        if let Some(score) = &self.oom_score {
            let _ = fs::write(OOM_SCORE, score.trim());
        }
        let _ = self.signals.thread_set_mask();
        let _ = sys::set_io_flusher(false);
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn signals_wait_within_and_everything_is_as_before_afterwards() {
        let score = || fs::read_to_string(OOM_SCORE).ok();
        let (mask, before) = (SigSet::thread_get_mask().unwrap(), score());
        match Critical::enter() {
            Ok(critical) => {
                assert!(SigSet::thread_get_mask().unwrap().contains(Signal::SIGHUP));
                drop(critical);
            }
            // Without the capabilities nothing may have begun.
            Err(problem) => assert_eq!(problem.exit.code(), 3),
        }
        assert_eq!(SigSet::thread_get_mask().unwrap(), mask);
        assert_eq!(score(), before);
    }
}
