// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Memory pressure on one program: whatever of it the kernel can drop, its own code included, it drops all the time.
//!
//! Dropping the caches does not touch pages that a running program has mapped. Reclaim from its control group does, so
//! a program lives in the group [`GROUP`] as on a machine without free memory: what it has not locked is gone by the
//! time it is needed, and has to be read again. The pressure is highest while a handoff is under way or I/O is held;
//! with so much of it all the time, the program would do nothing but read itself.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{anyhow, Context as _, Result};
use atom_abi::lifecycle::Place;
use atomctl::node::{Local, Node};
use nix::mount::{mount, MsFlags};

/// The control group. Whoever writes its own number to `cgroup.procs` in it is under pressure.
pub const GROUP: &str = "/sys/fs/cgroup/tool";
const GROUPS: &str = "/sys/fs/cgroup";
/// What is asked for each time. More than there is would have the kernel try over and over.
const AT_A_TIME: &str = "1M";
/// Time between two rounds while a payload serves, and while none does. They leave the processor to the others, and
/// nothing else depends on them.
const PACE: Duration = Duration::from_millis(300);
const PACE_IN_THE_PAUSE: Duration = Duration::from_millis(1);

/// The control group, and later the thread that presses.
pub struct Pressure {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

/// What the pressure did.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Pages that were taken from the group.
    pub pages_taken: u64,
    /// Rounds that found no payload live, or a handoff under way.
    pub rounds_in_pauses: u64,
}

impl Pressure {
    /// Mounts the control groups and makes ours.
    pub fn prepare() -> Result<()> {
        if !Path::new(GROUPS).join("cgroup.controllers").exists() {
            mount(Some("cgroup2"), GROUPS, Some("cgroup2"), MsFlags::empty(), None::<&str>)
                .context("cannot mount the control groups")?;
        }
        fs::write(format!("{GROUPS}/cgroup.subtree_control"), "+memory")
            .context("no control over memory")?;
        fs::create_dir_all(GROUP).context("cannot make a control group")
    }

    /// Presses until it is stopped.
    pub fn start() -> Result<Self> {
        let node = Local::open()?;
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let file = format!("{GROUP}/memory.reclaim");
        let thread = std::thread::Builder::new().name("pressure".to_owned()).spawn(move || {
            let mut rounds_in_pauses = 0;
            let mut last = Instant::now();
            while !theirs.load(Ordering::Relaxed) {
                let serves = node.status()?.place == Place::Live.code();
                if !serves || last.elapsed() >= PACE {
                    // EAGAIN: there was not so much to be had.
                    let _ = fs::write(&file, AT_A_TIME);
                    rounds_in_pauses += u64::from(!serves);
                    last = Instant::now();
                }
                std::thread::sleep(PACE_IN_THE_PAUSE);
            }
            Ok(rounds_in_pauses)
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Stops, and returns what it did.
    pub fn stop(mut self) -> Result<Done> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or_else(|| anyhow!("stopped twice"))?;
        let rounds_in_pauses = thread.join().map_err(|_| anyhow!("the thread panicked"))??;
        Ok(Done { pages_taken: taken()?, rounds_in_pauses })
    }
}

impl Drop for Pressure {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Pages that were taken from the group so far.
fn taken() -> Result<u64> {
    let text = fs::read_to_string(format!("{GROUP}/memory.stat"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("pgsteal "));
    Ok(line.context("no pgsteal in memory.stat")?.trim().parse()?)
}
