// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! For how long nothing came back, in windows of time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{anyhow, Context as _, Result};

/// What a thread that issues requests tells, while others look at it.
pub struct Gaps {
    stop: AtomicBool,
    done: AtomicU64,
    window: Mutex<Window>,
}

struct Window {
    begun: Instant,
    last: Instant,
    longest: Duration,
    /// When each request of the window came back, since it began, and how long it took. Not kept unless somebody wants it.
    kept: Option<Vec<(Duration, Duration)>>,
}

impl Window {
    fn new(kept: Option<Vec<(Duration, Duration)>>) -> Self {
        let begun = Instant::now();
        Self { begun, last: begun, longest: Duration::ZERO, kept }
    }
}

impl Gaps {
    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no more requests are wanted.
    pub fn ends(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A request that was begun then has come back now.
    pub fn came_back(&self, begun: Instant) {
        self.done.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut window = self.window();
        window.longest = window.longest.max(now.duration_since(window.last));
        window.last = now;
        let since = now.duration_since(window.begun);
        if let Some(kept) = &mut window.kept {
            kept.push((since, now.duration_since(begun)));
        }
    }
}

/// A thread that issues requests.
pub struct Watched {
    gaps: Arc<Gaps>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Watched {
    /// Starts it. `work` issues requests until [`Gaps::ends`].
    pub fn start(
        name: &str,
        device: &str,
        work: impl FnOnce(&Gaps) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let window = Mutex::new(Window::new(None));
        let gaps = Arc::new(Gaps { stop: AtomicBool::new(false), done: AtomicU64::new(0), window });
        let theirs = Arc::clone(&gaps);
        let what = format!("{name} of {device}");
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&theirs).context(what))?;
        Ok(Self { gaps, thread: Some(thread) })
    }

    /// Begins a window; the gap that is under way counts from here.
    pub fn open_window(&self) {
        *self.gaps.window() = Window::new(None);
    }

    /// Begins a window in which each request is kept.
    pub fn open_kept_window(&self) {
        *self.gaps.window() = Window::new(Some(Vec::new()));
    }

    /// The requests of the window that were kept: when each came back, since it began, and how long it took.
    pub fn kept(&self) -> Vec<(Duration, Duration)> {
        self.gaps.window().kept.take().unwrap_or_default()
    }

    /// The longest gap since the window began, including one that has not ended.
    pub fn longest_gap(&self) -> Duration {
        let window = self.gaps.window();
        window.longest.max(window.last.elapsed())
    }

    /// Requests that came back.
    pub fn done(&self) -> u64 {
        self.gaps.done.load(Ordering::Relaxed)
    }

    /// An error when a request has failed, or the thread has ended otherwise.
    pub fn check(&mut self) -> Result<()> {
        match self.thread.take_if(|thread| thread.is_finished()) {
            Some(thread) => joined(thread).and(Err(anyhow!("it has ended by itself"))),
            None => Ok(()),
        }
    }

    /// Stops. An error when any request failed.
    pub fn stop(mut self) -> Result<u64> {
        self.gaps.stop.store(true, Ordering::Relaxed);
        joined(self.thread.take().ok_or_else(|| anyhow!("stopped twice"))?)?;
        Ok(self.done())
    }
}

fn joined(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().map_err(|_| anyhow!("it panicked"))?
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.gaps.stop.store(true, Ordering::Relaxed);
    }
}
