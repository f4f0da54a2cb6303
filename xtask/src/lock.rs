// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! One process at a time: locks that are given up when their holder dies, and that say whom we wait for.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// A held lock; it ends with this value.
pub struct Lock(#[expect(dead_code, reason = "held for its drop")] Flock<File>);

/// Takes the lock in `path`, waiting for its holder if there is one. `purpose` is what we show to those who wait.
pub fn take(path: &Path, purpose: &str) -> Result<Lock> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open the lock {}", path.display()))?;
    let mut holder = String::new();
    // The holder is only shown; a file that cannot be read costs a name in a message.
    let _ = file.read_to_string(&mut holder);
    let held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => held,
        Err((file, Errno::EWOULDBLOCK)) => {
            eprintln!("waiting for {} ({})", holder.trim(), path.display());
            Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, errno)| errno)
                .with_context(|| format!("cannot wait for the lock {}", path.display()))?
        }
        Err((_, errno)) => {
            return Err(errno).with_context(|| format!("cannot lock {}", path.display()));
        }
    };
    let mut file: &File = &held;
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "process {}: {purpose}", std::process::id())?;
    Ok(Lock(held))
}
