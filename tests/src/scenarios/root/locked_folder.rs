// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A folder that somebody has locked while he waits for a disk that does not answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{anyhow, Context as _, Result};
use nix::unistd::gettid;

use crate::wait;

/// Who makes no folder for so long, and waits without being interruptible, waits for the disk.
const STANDSTILL: Duration = Duration::from_secs(1);
/// How long it may take until then. A file system with the journal that this one has commits every five seconds.
const LIMIT: Duration = Duration::from_secs(8);

/// A thread that makes folders until one is not made, because the file system waits for its disk: it then has the folder
/// above locked, and whoever looks for something in there that is not cached waits for it.
pub struct LockedFolder {
    folder: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<u64>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    task: AtomicI32,
    made: AtomicU64,
}

impl LockedFolder {
    /// Returns once the folder, which has to be there, is locked; none when the file system does not wait for that of its
    /// disk which does not answer.
    pub fn lock(folder: &Path) -> Result<Option<Self>> {
        let shared = Arc::new(Shared::default());
        let (theirs, above) = (Arc::clone(&shared), folder.to_owned());
        let thread = std::thread::Builder::new()
            .name("folders".to_owned())
            .spawn(move || make_folders(&above, &theirs))?;
        let locked = Self { folder: folder.to_owned(), shared, thread: Some(thread) };
        let mut last = (0, Instant::now());
        let stands_still = wait::until("nobody can make a folder", LIMIT, || {
            let made = locked.shared.made.load(Ordering::Acquire);
            if made != last.0 || !locked.waits() {
                last = (made, Instant::now());
            }
            Ok(last.1.elapsed() > STANDSTILL)
        });
        if stands_still.is_err() {
            locked.unlock()?;
            return Ok(None);
        }
        Ok(Some(locked))
    }

    /// Whether its thread waits for something that cannot be interrupted.
    fn waits(&self) -> bool {
        let task = self.shared.task.load(Ordering::Acquire);
        let stat = fs::read_to_string(format!("/proc/self/task/{task}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('D'))
    }

    /// Once the disk answers again: removes what was made.
    pub fn unlock(mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Release);
        let thread = self.thread.take().context("unlocked twice")?;
        let made = thread.join().map_err(|_| anyhow!("it panicked"))??;
        for number in 0..made {
            fs::remove_dir(path(&self.folder, number))?;
        }
        Ok(())
    }
}

fn make_folders(above: &Path, shared: &Shared) -> Result<u64> {
    shared.task.store(gettid().as_raw(), Ordering::Release);
    let mut made = 0;
    while !shared.stop.load(Ordering::Acquire) {
        fs::create_dir(path(above, made))?;
        made += 1;
        shared.made.store(made, Ordering::Release);
    }
    Ok(made)
}

fn path(above: &Path, number: u64) -> PathBuf {
    above.join(format!("made-{number}"))
}
