// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A medium with a failpoint before each of its steps. Only with the feature `failpoints`.

use std::io;

use super::medium::{Lock, Medium};
use crate::failpoint::meet_in;

/// A medium, and the first half of the names of its points.
pub(super) struct Failing {
    inner: Box<dyn Medium>,
    place: &'static str,
}

impl Failing {
    /// The disk of a journal.
    pub(super) fn disk(inner: Box<dyn Medium>) -> Box<dyn Medium> {
        Box::new(Self { inner, place: "journal" })
    }

    /// The memory before it.
    pub(super) fn spool(inner: Box<dyn Medium>) -> Box<dyn Medium> {
        Box::new(Self { inner, place: "spool" })
    }

    fn meet(&self, step: &str) -> io::Result<()> {
        meet_in(&format!("{}.{step}", self.place))
    }
}

impl Medium for Failing {
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.meet("read")?;
        self.inner.read(name)
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.meet("append")?;
        self.inner.append(name, bytes)
    }

    fn truncate(&self, name: &str, length: usize) -> io::Result<()> {
        self.meet("truncate")?;
        self.inner.truncate(name, length)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.meet("sync")?;
        self.inner.sync(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.meet("sync_names")?;
        self.inner.sync_names()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.meet("rename")?;
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.meet("remove")?;
        self.inner.remove(name)
    }

    fn lock(&self, name: &str) -> io::Result<Lock> {
        self.meet("lock")?;
        self.inner.lock(name)
    }
}
