// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Where bytes of the journal are kept, as the few things it needs of a folder, so that tests can stand in for it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::statfs::{statfs, FsType, TMPFS_MAGIC};

/// Only root reads what was done on a machine.
const FOLDER_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o600;
/// `RAMFS_MAGIC` of include/uapi/linux/magic.h: what the first root file system may be.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// A folder with a few files. Names are plain, without a path.
pub(super) trait Medium: Send + Sync {
    /// The whole of a file; nothing when it is not there.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Adds bytes at the end of a file, which is made when it is not there. Not durable yet.
    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Shortens a file.
    fn truncate(&self, name: &str, length: usize) -> io::Result<()>;
    /// Makes what a file holds durable.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Makes the names of the files durable.
    fn sync_names(&self) -> io::Result<()>;
    /// Renames a file over another one. A file that is not there is no error.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. One that is not there is no error.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Waits until nobody else has this lock.
    fn lock(&self, name: &str) -> io::Result<Lock>;

    /// Writes a file whole: whoever reads it sees the old one or the new one.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = format!("{name}.new");
        self.remove(&new)?;
        self.append(&new, bytes)?;
        self.sync(&new)?;
        self.rename(&new, name)?;
        self.sync_names()
    }
}

/// Held until it is dropped, or the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: Option<File>,
}

impl Lock {
    /// Of what nobody else has.
    pub(super) fn unneeded() -> Self {
        Self { _file: None }
    }
}

/// A folder of the file system. It is made at the first write.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The folder, when it lies on a file system that needs no disk.
    pub(super) fn in_memory(path: impl Into<PathBuf>) -> io::Result<Self> {
        let folder = Self::new(path);
        folder.make()?;
        let kind = statfs(&folder.path)?.filesystem_type();
        if kind == TMPFS_MAGIC || kind == RAMFS_MAGIC {
            return Ok(folder);
        }
        Err(io::Error::other(format!("{} lies on a disk", folder.path.display())))
    }

    fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&self.path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.create(true).mode(FILE_MODE);
        options
    }
}

/// A missing file is as good as an empty one.
fn unless_missing<T: Default>(result: io::Result<T>) -> io::Result<T> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(T::default()),
        result => result,
    }
}

impl Medium for Folder {
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        unless_missing(fs::read(self.at(name)))
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.make()?;
        Self::options().append(true).open(self.at(name))?.write_all(bytes)
    }

    fn truncate(&self, name: &str, length: usize) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.at(name))?;
        file.set_len(length as u64)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        File::open(self.at(name))?.sync_all()
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        // The folder itself may be new.
        let above = self.path.parent().unwrap_or(Path::new("/"));
        File::open(above)?.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        unless_missing(fs::rename(self.at(from), self.at(to)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        unless_missing(fs::remove_file(self.at(name)))
    }

    fn lock(&self, name: &str) -> io::Result<Lock> {
        self.make()?;
        let file = Self::options().truncate(false).write(true).open(self.at(name))?;
        file.lock()?;
        Ok(Lock { _file: Some(file) })
    }
}

/// The memory of this process, for want of a folder that needs no disk.
#[derive(Debug, Default)]
pub(super) struct Memory {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Memory {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Medium for Memory {
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.files().get(name).cloned().unwrap_or_default())
    }

    fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.files().entry(name.to_owned()).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn truncate(&self, name: &str, length: usize) -> io::Result<()> {
        self.files().entry(name.to_owned()).or_default().truncate(length);
        Ok(())
    }

    fn sync(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        if let Some(bytes) = files.remove(from) {
            files.insert(to.to_owned(), bytes);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name);
        Ok(())
    }

    fn lock(&self, _: &str) -> io::Result<Lock> {
        // No other process has this memory, and each step on it is one step.
        Ok(Lock::unneeded())
    }
}
