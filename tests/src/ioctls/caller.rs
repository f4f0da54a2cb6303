// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A thread that opens the control device, asks, polls and closes, as its seed wants it.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;

use anyhow::{Context as _, Result};
use atom_abi::control::DEVICE_PATH;
use nix::errno::Errno;
use nix::libc;

use super::call::{Call, Place, Right};
use super::memory::Memory;
use crate::random::Random;

/// Files that a caller has open at most.
const MOST: usize = 4;

/// What a caller did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Ioctls that were carried out.
    pub carried_out: u64,
    /// Those that were refused as they had to be.
    pub refused: u64,
    /// All others.
    pub other: u64,
}

/// Takes so many steps.
pub fn steps(random: &mut Random, steps: u64) -> Result<Done> {
    let mut memory = Memory::new()?;
    let mut files: Vec<File> = Vec::new();
    let mut done = Done::default();
    for step in 0..steps {
        let what = random.below(12);
        if files.is_empty() || (what == 0 && files.len() < MOST) {
            files.push(OpenOptions::new().read(true).write(true).open(DEVICE_PATH)?);
        }
        let at = usize::try_from(random.below(files.len() as u64))?;
        match what {
            1 => drop(files.swap_remove(at)),
            2 => poll(files.get(at).context("no file")?)?,
            _ => {
                let call = Call::next(random)?;
                let answer = ask(files.get(at).context("no file")?, &call, &mut memory)?;
                call.judge(answer).with_context(|| format!("step {step}"))?;
                match (answer, call.right) {
                    (Ok(()), _) => done.carried_out += 1,
                    (Err(_), Right::Error(_)) => done.refused += 1,
                    (Err(_), _) => done.other += 1,
                }
            }
        }
    }
    Ok(done)
}

fn ask(file: &File, call: &Call, memory: &mut Memory) -> Result<std::result::Result<(), Errno>> {
    let address = match call.place {
        Place::Whole => memory.put(&call.bytes)?,
        Place::Cut(mapped) => {
            memory.put(call.bytes.get(..mapped).context("cut beyond its end")?)?
        }
        Place::At(address) => address,
    };
    // SAFETY: Atom writes back no more than it has read, within `memory`, to which nobody has a reference; other addresses
    // are none of ours, and the kernel has to refuse them. Those within a command are zero, or random and of any kind,
    // and its lengths with them.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), call.request as _, address) };
    Ok(Errno::result(answer).map(|_| ()))
}

/// Looks whether there was an event; either answer is right.
fn poll(file: &File) -> Result<()> {
    let mut wanted = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: One structure, which lives for the call, which does not wait.
    let answer = unsafe { libc::poll(&mut wanted, 1, 0) };
    Errno::result(answer)?;
    Ok(())
}
