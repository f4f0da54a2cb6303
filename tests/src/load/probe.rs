// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A reader that notices for how long nothing comes back.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{anyhow, Context as _, Result};
use nix::fcntl::OFlag;

const BLOCK: usize = 4096;

/// Reads one block after the other, past the page cache, and keeps the longest gap between completions.
pub struct Probe {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

struct Shared {
    stop: AtomicBool,
    reads: AtomicU64,
    window: Mutex<Window>,
}

struct Window {
    begun: Instant,
    last: Instant,
    longest: Duration,
    /// When each read of the window came back, since it began, and how long it took. Not kept unless somebody wants it.
    reads: Option<Vec<(Duration, Duration)>>,
}

impl Window {
    fn new(reads: Option<Vec<(Duration, Duration)>>) -> Self {
        let begun = Instant::now();
        Self { begun, last: begun, longest: Duration::ZERO, reads }
    }
}

impl Shared {
    fn window(&self) -> std::sync::MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Probe {
    /// Starts on a device.
    pub fn start(device: &str) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_DIRECT.bits())
            .open(device)
            .with_context(|| format!("cannot open {device}"))?;
        let window = Mutex::new(Window::new(None));
        let shared =
            Arc::new(Shared { stop: AtomicBool::new(false), reads: AtomicU64::new(0), window });
        let theirs = Arc::clone(&shared);
        let name = device.to_owned();
        let thread = std::thread::Builder::new()
            .name("probe".to_owned())
            .spawn(move || work(&file, &theirs).with_context(|| format!("probe of {name}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Begins a window; the gap that is under way counts from here.
    pub fn open_window(&self) {
        *self.shared.window() = Window::new(None);
    }

    /// Begins a window in which each read is kept.
    pub fn open_kept_window(&self) {
        *self.shared.window() = Window::new(Some(Vec::new()));
    }

    /// The reads of the window that were kept: when each came back, since it began, and how long it took.
    pub fn kept(&self) -> Vec<(Duration, Duration)> {
        self.shared.window().reads.take().unwrap_or_default()
    }

    /// The longest gap since the window began, including one that has not ended.
    pub fn longest_gap(&self) -> Duration {
        let window = self.shared.window();
        window.longest.max(window.last.elapsed())
    }

    /// Reads that came back.
    pub fn reads(&self) -> u64 {
        self.shared.reads.load(Ordering::Relaxed)
    }

    /// Stops. An error when any read failed.
    pub fn stop(mut self) -> Result<u64> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or_else(|| anyhow!("stopped twice"))?;
        thread.join().map_err(|_| anyhow!("the probe panicked"))??;
        Ok(self.reads())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn work(file: &File, shared: &Shared) -> Result<()> {
    // O_DIRECT wants memory and offset aligned to the block.
    let mut memory = vec![0u8; 2 * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let block = memory.get_mut(start..start + BLOCK).context("no aligned memory")?;
    let mut at = 0u64;
    while !shared.stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        file.read_exact_at(block, (at % 64) * BLOCK as u64)?;
        at += 1;
        shared.reads.store(at, Ordering::Relaxed);
        let now = Instant::now();
        let mut window = shared.window();
        window.longest = window.longest.max(now.duration_since(window.last));
        window.last = now;
        let since = now.duration_since(window.begun);
        if let Some(reads) = &mut window.reads {
            reads.push((since, now.duration_since(begun)));
        }
    }
    Ok(())
}
