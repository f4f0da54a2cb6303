// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Folders in memory that fail, die and lose their power on demand.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use nix::errno::Errno;

use super::medium::{Lock, Medium};
use super::store::Aside;

/// What happens at one of the steps on any of the folders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// It fails, after a part of it was done, and so do all later ones on the disk.
    Error(Errno),
    /// The process is killed in the middle of it, with all of its threads.
    Kill,
}

/// A machine with a disk and a file system in memory.
#[derive(Clone, Default)]
pub struct Machine {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    steps: usize,
    trouble: Option<(usize, Trouble)>,
    disk: Files,
    memory: Files,
}

/// What the files are, and what they would be after a power cut.
#[derive(Clone, Default)]
struct Files {
    contents: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Disk,
    Memory,
}

/// One of its folders.
pub struct FakeFolder {
    machine: Machine,
    which: Which,
}

/// The process was killed.
pub struct Killed;

/// Uses the disk in this process, whose memory the machine is.
pub const IN_A_THREAD: Aside = Aside {
    write: |_, places| in_a_thread(move || places.flush()),
    read: |_, places| in_a_thread(move || places.read()),
};

fn in_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    thread::spawn(work).join().unwrap_or_else(|_| Err(io::Error::other("its thread has ended")))
}

impl Machine {
    pub fn folder(&self, which: Which) -> Box<FakeFolder> {
        Box::new(FakeFolder { machine: self.clone(), which })
    }

    /// From now on, at the step of this number.
    pub fn trouble_at(&self, step: usize, trouble: Trouble) {
        let mut state = self.state();
        state.steps = 0;
        state.trouble = Some((step, trouble));
    }

    /// Everything works again.
    pub fn repair(&self) {
        self.state().trouble = None;
    }

    /// How many steps there were since the trouble was set, or since the beginning.
    pub fn steps(&self) -> usize {
        self.state().steps
    }

    /// The power goes and comes back. Of what was not durable `keep` bytes of each file are there, and its names if
    /// `names`.
    pub fn cut_power(&self, keep: usize, names: bool) {
        let mut state = self.state();
        state.trouble = None;
        state.memory = Files::default();
        for content in &mut state.disk.contents {
            let same = content.now.iter().zip(&content.durable).take_while(|(a, b)| a == b).count();
            if same == content.durable.len() {
                content.now.truncate(same + keep);
            } else {
                content.now = content.durable.clone();
            }
            content.durable = content.now.clone();
        }
        if names {
            state.disk.durable_names = state.disk.names.clone();
        } else {
            state.disk.names = state.disk.durable_names.clone();
        }
    }

    /// The bytes of a file on the disk, to be changed.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let number = state.disk.names[name];
        change(&mut state.disk.contents[number].now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl FakeFolder {
    /// One step. With trouble it is told so, and does a part.
    fn step(&self, work: impl FnOnce(&mut Files, bool)) -> io::Result<()> {
        let mut state = self.machine.state();
        let step = state.steps;
        state.steps += 1;
        let on_disk = self.which == Which::Disk;
        let trouble = match state.trouble {
            Some((at, Trouble::Kill)) if step >= at => Some(Trouble::Kill),
            Some((at, trouble @ Trouble::Error(_))) if on_disk && step >= at => Some(trouble),
            _ => None,
        };
        let already = matches!(state.trouble, Some((at, Trouble::Kill)) if step > at);
        let files = if on_disk { &mut state.disk } else { &mut state.memory };
        if !already {
            work(files, trouble.is_some());
        }
        match trouble {
            None => Ok(()),
            Some(Trouble::Error(errno)) => Err(errno.into()),
            Some(Trouble::Kill) => {
                drop(state);
                std::panic::resume_unwind(Box::new(Killed));
            }
        }
    }
}

impl Files {
    fn content(&mut self, name: &str) -> &mut Content {
        let fresh = self.contents.len();
        let number = *self.names.entry(name.to_owned()).or_insert(fresh);
        if number == fresh {
            self.contents.push(Content::default());
        }
        &mut self.contents[number]
    }
}

impl Medium for FakeFolder {
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.machine.state();
        let files = if self.which == Which::Disk { &state.disk } else { &state.memory };
        Ok(files.names.get(name).map(|at| files.contents[*at].now.clone()).unwrap_or_default())
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.step(|files, part| {
            let length = if part { bytes.len() / 2 } else { bytes.len() };
            files.content(name).now.extend_from_slice(&bytes[..length]);
        })
    }

    fn truncate(&self, name: &str, length: usize) -> io::Result<()> {
        self.step(|files, part| {
            if !part {
                files.content(name).now.truncate(length);
            }
        })
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.step(|files, part| {
            let content = files.content(name);
            if !part {
                content.durable = content.now.clone();
            }
        })
    }

    fn sync_names(&self) -> io::Result<()> {
        self.step(|files, part| {
            if !part {
                files.durable_names = files.names.clone();
            }
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step(|files, part| {
            if part {
                return;
            }
            if let Some(number) = files.names.remove(from) {
                files.names.insert(to.to_owned(), number);
            }
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.step(|files, part| {
            if !part {
                files.names.remove(name);
            }
        })
    }

    fn lock(&self, _: &str) -> io::Result<Lock> {
        Ok(Lock::unneeded())
    }
}
