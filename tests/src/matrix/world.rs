// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the world does while an upgrade is under way: the faults that are no failpoints.

use std::ffi::CStr;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context as _, Result};
use atomctl::control::Control;
use nix::errno::Errno;
use nix::kmod::{delete_module, DeleteModuleFlags};

use super::axes::Cell;
use super::stage::Stage;
use crate::hostile::{Hostile, Wrong};

const CPU1: &str = "/sys/devices/system/cpu/cpu1/online";
const JOURNAL: &str = "/var/lib/atom";
/// Time for an upgrade to be under way when a server comes back. Nothing else depends on it.
const AWAY: Duration = Duration::from_millis(400);
/// What a clock jumps by, in seconds.
const JUMP: i64 = 7200;

/// Something that goes on until it is stopped.
pub struct Trouble {
    stop: Arc<AtomicBool>,
    times: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
    journal_is_full: bool,
    liar: Option<Hostile>,
}

impl Trouble {
    /// Begins what the fault of a cell wants, on its device.
    pub fn begin(stage: &mut Stage, cell: &Cell, device: &str) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let times = Arc::new(AtomicU64::new(0));
        let mut trouble = Self { stop, times, thread: None, journal_is_full: false, liar: None };
        match cell.fault.kind.as_str() {
            "cpu-hotplug" => trouble.repeat(|| {
                fs::write(CPU1, "0").context("offline")?;
                fs::write(CPU1, "1").context("online")
            })?,
            "clock-jump" => trouble.repeat(|| jump(JUMP).and_then(|()| jump(-JUMP)))?,
            "open-close" => {
                let (device, control) = (device.to_owned(), Control::open()?);
                trouble.repeat(move || {
                    drop(fs::File::open(&device).context("open")?);
                    control.devices()?;
                    control.status().map(drop).map_err(Into::into)
                })?;
            }
            "race" => {
                let modules = stage.modules();
                // Each is refused, or its module was not needed at that moment.
                trouble.repeat(move || modules.iter().try_for_each(|name| unload(name)))?;
            }
            "full" => {
                fill_the_journal()?;
                trouble.journal_is_full = true;
                trouble.once();
            }
            "dies" => {
                stage.server.kill()?;
                trouble.once();
            }
            "stalls" => {
                stage.server.freeze()?;
                trouble.once();
            }
            "lies" => {
                let liar = Hostile::start(Wrong::UnknownCookie, 1)?;
                stage.relay.lead_to(liar.port());
                trouble.liar = Some(liar);
            }
            _ => {}
        }
        Ok(trouble)
    }

    fn once(&self) {
        self.times.fetch_add(1, Ordering::SeqCst);
    }

    fn repeat(&mut self, mut work: impl FnMut() -> Result<()> + Send + 'static) -> Result<()> {
        let (stop, times) = (Arc::clone(&self.stop), Arc::clone(&self.times));
        let named = std::thread::Builder::new().name("trouble".to_owned());
        self.thread = Some(named.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                work()?;
                times.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        })?);
        Ok(())
    }

    /// What comes back by itself while the tool is at work.
    pub fn meanwhile(&self, stage: &mut Stage, cell: &Cell) -> Result<()> {
        if cell.fault.kind == "dies" {
            std::thread::sleep(AWAY);
            stage.server.start_again()?;
        }
        Ok(())
    }

    /// The upgrade has ended: a server that stands still goes on, one that lies is left, and nobody unloads what is about to be adopted again.
    pub fn ease(&self, stage: &Stage, cell: &Cell) -> Result<()> {
        match cell.fault.kind.as_str() {
            "stalls" => stage.server.go_on()?,
            "lies" => stage.relay.lead_to(stage.server.at().port()?),
            "race" => self.stop.store(true, Ordering::Relaxed),
            _ => {}
        }
        Ok(())
    }

    /// Ends all of it, and returns whether it happened.
    pub fn end(mut self) -> Result<bool> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the trouble panicked"))??;
        }
        if let Some(liar) = self.liar.take() {
            self.times.fetch_add(liar.came(), Ordering::SeqCst);
            liar.stop()?;
        }
        if self.journal_is_full {
            run(&["umount", JOURNAL])?;
        }
        Ok(self.times.load(Ordering::SeqCst) > 0)
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Nothing more can be written where the journal is.
fn fill_the_journal() -> Result<()> {
    fs::create_dir_all(JOURNAL)?;
    run(&["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", JOURNAL])?;
    let full = fs::write(format!("{JOURNAL}/filler"), vec![1; 64 << 10]);
    ensure!(full.is_err(), "{JOURNAL} took more than it can have");
    Ok(())
}

/// Unloads a module that nobody needs.
fn unload(name: &CStr) -> Result<()> {
    match delete_module(name, DeleteModuleFlags::O_NONBLOCK) {
        Ok(()) | Err(Errno::EAGAIN | Errno::EBUSY | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(anyhow!("{name:?} was not unloaded: {errno}")),
    }
}

/// Sets the clock by so many seconds.
fn jump(seconds: i64) -> Result<()> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let then = i64::try_from(now)? + seconds;
    run(&["date", "-s", &format!("@{then}")])
}

fn run(argv: &[&str]) -> Result<()> {
    let (program, args) = argv.split_first().context("no program")?;
    let output = Command::new(program).args(args).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{argv:?} failed: {said}");
    Ok(())
}
