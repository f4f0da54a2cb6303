// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Direct I/O of all kinds on a device: nothing of it goes through the page cache.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use anyhow::{ensure, Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::model::{Extent, Kind, Terms};
use super::stamp::{Stamp, SECTOR};
use crate::queue;

/// What memory for direct I/O is aligned to.
const ALIGNMENT: usize = 4096;
/// Of `linux/fs.h`. Both take the start and the length in bytes.
const BLKDISCARD: u64 = 0x1277;
const BLKZEROOUT: u64 = 0x127f;

/// A device, with an area of the oracle at its beginning.
#[derive(Debug)]
pub struct Device {
    file: File,
    /// Each write through it is durable when it returns.
    durable: File,
    pub terms: Terms,
}

/// What the volume behind a device promises beyond what its queue says.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    /// A discard leaves zeroes for sure.
    pub discard_zeroes: bool,
    /// It is known to have zeroes at the beginning.
    pub blank: bool,
}

/// Memory for direct I/O.
pub struct Memory {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Memory {
    pub fn new(length: usize) -> Self {
        let bytes = vec![0u8; length + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        Self { bytes, start, length }
    }

    pub fn get(&mut self, length: usize) -> Result<&mut [u8]> {
        ensure!(length <= self.length, "{length} bytes are more than there are");
        self.bytes.get_mut(self.start..self.start + length).context("no aligned memory")
    }
}

impl Device {
    /// Opens a device for a run with this name, on so many bytes of it.
    pub fn open(path: &str, volume: u64, bytes: u64, promise: Promise) -> Result<Self> {
        let block = queue::limit(path, "logical_block_size")?;
        let terms = Terms {
            volume,
            unit_sectors: block / SECTOR as u64,
            units: bytes / block,
            discard_zeroes: promise.discard_zeroes,
            blank: promise.blank,
        };
        Self::with_terms(path, terms)
    }

    /// The same on other terms, and also of a file.
    pub fn with_terms(path: &str, terms: Terms) -> Result<Self> {
        let open = |flags: OFlag| {
            let file =
                OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(path);
            file.with_context(|| format!("cannot open {path}"))
        };
        Ok(Self {
            file: open(OFlag::O_DIRECT)?,
            durable: open(OFlag::O_DIRECT | OFlag::O_DSYNC)?,
            terms,
        })
    }

    fn place(&self, extent: Extent) -> (u64, u64) {
        let bytes = |units| self.terms.bytes(units) as u64;
        (bytes(extent.start), bytes(extent.count))
    }

    /// Changes an extent: writes have these numbers in their stamps.
    pub fn change(
        &self,
        kind: Kind,
        extent: Extent,
        sequence: u64,
        generation: u64,
        memory: &mut Memory,
    ) -> Result<()> {
        let (at, bytes) = self.place(extent);
        let request = match kind {
            Kind::Write { durable } => {
                let data = memory.get(bytes as usize)?;
                let first = extent.start * self.terms.unit_sectors;
                for (sector, place) in (first..).zip(data.chunks_mut(SECTOR)) {
                    let volume = self.terms.volume;
                    Stamp { volume, sector, sequence, generation }.write(place);
                }
                let file = if durable { &self.durable } else { &self.file };
                return file.write_all_at(data, at).with_context(|| format!("a write at {at}"));
            }
            Kind::Zeroes => BLKZEROOUT,
            Kind::Discard => BLKDISCARD,
            Kind::Blank | Kind::Unknown => return Ok(()),
        };
        let range = [at, bytes];
        // SAFETY: Both requests read two numbers of 64 bits, which are there until the call returns.
        let result = unsafe {
            nix::libc::ioctl(self.file.as_raw_fd(), request as _, std::ptr::from_ref(&range))
        };
        Errno::result(result).with_context(|| format!("{kind:?} at {at}")).map(drop)
    }

    /// Reads an extent.
    pub fn read<'m>(&self, extent: Extent, memory: &'m mut Memory) -> Result<&'m [u8]> {
        let (at, bytes) = self.place(extent);
        let data = memory.get(bytes as usize)?;
        self.file.read_exact_at(data, at).with_context(|| format!("a read at {at}"))?;
        Ok(data)
    }

    /// Flushes the device.
    pub fn flush(&self) -> Result<()> {
        self.file.sync_data().context("a flush")
    }
}
