// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a drain waits for while it takes long, for whoever sits at the terminal.
//!
//! The lines are written by a thread that exists before the drain begins. Any disk may be held while it is at
//! work, so it allocates nothing, and nobody waits for it: when the terminal does not take its lines, only
//! the lines are late.

use std::fmt::{self, Write as _};
use std::io::{stderr, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use atom_abi::control::{stage, Status};
use nix::sys::signal::SigSet;

use crate::caller::Caller;
use crate::control::Control;
use crate::critical::Locked;
use crate::sys;

/// How long a drain may take without a word, and how often it is looked at then.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often the thread looks whether anybody needs it.
const IDLE: Duration = Duration::from_secs(1);
const STACK_BYTES: usize = 128 << 10;
const LINE_BYTES: usize = 96;

/// Shows drains that take long.
#[derive(Debug)]
pub(crate) struct Progress {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    turn: Mutex<Turn>,
    changed: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Turn {
    #[default]
    Idle,
    Watching(Instant),
    Gone,
}

/// What is outstanding in which stage of a drain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Waiting {
    stage: usize,
    outstanding: u32,
}

impl Progress {
    /// Lines on the standard error. None when there cannot be any, which is no error.
    pub(crate) fn on_terminal() -> Option<Self> {
        // A file of its own: the other one's events are those since its own last look.
        let control = Control::open().ok()?;
        Self::start(
            move || control.status().ok().and_then(|status| Waiting::of(&status)),
            |line| {
                let _ = stderr().write_all(line.as_bytes());
            },
        )
    }

    fn start(
        look: impl Fn() -> Option<Waiting> + Send + 'static,
        show: impl Fn(&str) + Send + 'static,
    ) -> Option<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        // A signal must not end the process through this thread while the other one has blocked it.
        let caller = Caller::remember();
        let mask = SigSet::thread_get_mask().ok()?;
        SigSet::all().thread_block().ok()?;
        let thread = Builder::new().stack_size(STACK_BYTES).spawn(move || {
            let _ = sys::set_io_flusher(true);
            theirs.run(&caller, look, show);
        });
        let _ = mask.thread_set_mask();
        thread.ok().map(|_| Self { shared })
    }

    /// Shows what is waited for until the guard is dropped.
    pub(crate) fn watch(&self) -> Watching<'_> {
        // The handoff does not depend on it, so a refusal only means that lines may be late.
        let memory = Locked::enter().ok();
        self.shared.set(Turn::Watching(Instant::now()));
        Watching { progress: self, _memory: memory }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.shared.set(Turn::Gone);
    }
}

/// A drain is under way.
#[derive(Debug)]
pub(crate) struct Watching<'a> {
    progress: &'a Progress,
    _memory: Option<Locked>,
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.progress.shared.set(Turn::Idle);
    }
}

impl Shared {
    fn set(&self, turn: Turn) {
        *self.lock() = turn;
        self.changed.notify_one();
    }

    fn run(&self, caller: &Caller, look: impl Fn() -> Option<Waiting>, show: impl Fn(&str)) {
        let mut shown = None;
        loop {
            let turn = self.lock();
            let before = *turn;
            let limit = match before {
                Turn::Gone => return,
                Turn::Idle => IDLE,
                Turn::Watching(_) => PATIENCE,
            };
            drop(self.wait(turn, limit));
            // From here on nobody waits for this thread.
            caller.follow();
            let Turn::Watching(begun) = before else {
                shown = None;
                continue;
            };
            if *self.lock() != before || begun.elapsed() < PATIENCE {
                continue;
            }
            if let Some(waiting) = look().filter(|waiting| shown != Some(*waiting)) {
                shown = Some(waiting);
                show(waiting.line(begun.elapsed()).text());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, turn: MutexGuard<'a, Turn>, limit: Duration) -> MutexGuard<'a, Turn> {
        self.changed.wait_timeout(turn, limit).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Waiting {
    /// What the drain waits for; none when no drain is under way.
    fn of(status: &Status) -> Option<Self> {
        let stage = usize::try_from(status.stage).ok()?.checked_sub(1)?;
        Some(Self { stage, outstanding: status.outstanding })
    }

    fn line(self, since: Duration) -> Line {
        let mut line = Line { bytes: [0; LINE_BYTES], used: 0 };
        let what = match self.stage {
            stage::BACKGROUND => "pieces of background work",
            stage::DATA => "reads and writes",
            stage::FLUSHES => "flushes",
            _ => "requests",
        };
        // What does not fit is cut off.
        let _ = writeln!(
            line,
            "  draining for {}.{} s: {} {what} outstanding",
            since.as_secs(),
            since.subsec_millis() / 100,
            self.outstanding
        );
        line
    }
}

/// A line of text without an allocation.
struct Line {
    bytes: [u8; LINE_BYTES],
    used: usize,
}

impl Line {
    fn text(&self) -> &str {
        let used = self.bytes.get(..self.used).unwrap_or_default();
        std::str::from_utf8(used).unwrap_or_default()
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.used.saturating_add(text.len());
        let room = self.bytes.get_mut(self.used..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.used = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{channel, RecvTimeoutError};

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn a_line_names_the_stage_and_what_is_outstanding() {
        let waiting = Waiting { stage: stage::FLUSHES, outstanding: 3 };
        let line = waiting.line(Duration::from_millis(1250));
        assert_eq!(line.text(), "  draining for 1.2 s: 3 flushes outstanding\n");
        let most = Waiting { stage: stage::BACKGROUND, outstanding: u32::MAX };
        assert!(most.line(Duration::MAX).text().ends_with('\n'));
    }

    #[test]
    fn no_drain_is_nothing_to_wait_for() {
        let mut status = Status::EMPTY;
        assert_eq!(Waiting::of(&status), None);
        (status.stage, status.outstanding) = (2, 5);
        assert_eq!(Waiting::of(&status), Some(Waiting { stage: stage::DATA, outstanding: 5 }));
    }

    #[test]
    fn a_long_drain_is_shown_once_for_each_change_and_not_after_its_end() {
        let (sender, lines) = channel();
        let looks = Mutex::new([7, 7, 4].into_iter());
        let progress = Progress::start(
            move || {
                let outstanding = looks.lock().unwrap().next()?;
                Some(Waiting { stage: stage::DATA, outstanding })
            },
            move |line| sender.send(line.to_owned()).unwrap(),
        )
        .unwrap();
        let watching = progress.watch();
        assert!(lines.recv_timeout(LONG).unwrap().contains(": 7 reads"));
        assert!(lines.recv_timeout(LONG).unwrap().contains(": 4 reads"));
        drop(watching);
        drop(progress);
        // The thread ends, and with it the channel.
        assert_eq!(lines.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
    }
}
