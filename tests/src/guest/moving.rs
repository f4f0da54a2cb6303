// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The first process moves to another root file system, and back.
//!
//! Whoever wants it writes the place of the new root to [`WISH`], or nothing for the way back, and sends [`SIGNAL`].
//! The first process changes its root and executes itself from there, so that its own code comes from that file
//! system. It keeps the root that the guest was booted with open, because from the new one no path leads to it.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use nix::fcntl::{fcntl, FcntlArg, FdFlag};
use nix::sys::signal::Signal;
use nix::unistd::{chdir, chroot, execv};

/// Where the wish is written. Both roots have the same `/run`.
pub const WISH: &str = "/run/atom-root";
/// What makes the first process read it.
pub const SIGNAL: Signal = Signal::SIGUSR1;
/// The program, in either root.
pub const PROGRAM: &str = "/usr/bin/atom-guest";
/// The argument of a first process that has moved; the next one is the descriptor of the first root.
const MOVED: &str = "moved";

/// What a first process knows that has moved.
pub struct Moved {
    home: RawFd,
}

impl Moved {
    /// What our arguments say; nothing when the kernel has started us.
    pub fn from_arguments() -> Option<Self> {
        let mut arguments = std::env::args().skip(1);
        (arguments.next()? == MOVED).then_some(())?;
        arguments.next()?.parse().ok().map(|home| Self { home })
    }
}

/// Moves to where the wish says. Comes back only with an error, and is then where it was, or executes what it did.
pub(super) fn go(moved: Option<&Moved>) -> Result<Infallible> {
    let wish = fs::read_to_string(WISH).with_context(|| format!("cannot read {WISH}"))?;
    let home = match moved {
        Some(moved) => moved.home,
        None => keep_root()?,
    };
    let root = match wish.trim() {
        "" => PathBuf::from(format!("/proc/self/fd/{home}")),
        place => PathBuf::from(place),
    };
    chroot(&root).with_context(|| format!("cannot make {} the root", root.display()))?;
    chdir("/").context("cannot enter the root")?;
    let arguments = [PROGRAM, MOVED, &home.to_string()].map(CString::new);
    let arguments = arguments.into_iter().collect::<Result<Vec<_>, _>>()?;
    let program = CString::new(PROGRAM)?;
    execv(&program, &arguments).with_context(|| format!("cannot execute {PROGRAM}"))
}

/// Opens the root so that it stays open over an `exec`.
fn keep_root() -> Result<RawFd> {
    let root = File::open("/").context("cannot open the root")?;
    fcntl(&root, FcntlArg::F_SETFD(FdFlag::empty()))
        .with_context(|| format!("cannot keep descriptor {}", root.as_raw_fd()))?;
    Ok(root.into_raw_fd())
}
