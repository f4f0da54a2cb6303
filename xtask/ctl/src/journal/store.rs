// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! From the spool to the disk, and back to whoever reads.

use std::io;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use super::line::{self, Scan};
use super::medium::{Folder, Medium, Memory};
use super::{flow, log, Record};

const DISK: &str = "/var/lib/atom";
const MEMORY: &str = "/run/atom";
const SPOOL: &str = "spool";
const NUMBER: &str = "attempt";
const DISK_LOCK: &str = "journal.lock";
const SPOOL_LOCK: &str = "spool.lock";
/// How long a disk may take. One behind a volume whose server is gone takes for ever.
const PATIENCE: Duration = Duration::from_secs(5);
const STACK_BYTES: usize = 256 << 10;

/// Where the records are.
#[derive(Clone)]
pub struct Journal {
    places: Arc<Places>,
    patience: Duration,
    flows: fn() -> bool,
}

struct Places {
    disk: Box<dyn Medium>,
    memory: Box<dyn Medium>,
    limit: usize,
}

/// What was read.
#[derive(Clone, Default, Debug)]
pub struct Found {
    /// The records, oldest first.
    pub records: Vec<Record>,
    /// Lines that were damaged after they had been written.
    pub damaged: usize,
    /// What else whoever reads them should know.
    pub notes: Vec<String>,
}

impl Journal {
    /// That of this machine.
    pub fn standard() -> Self {
        let memory: Box<dyn Medium> = match Folder::in_memory(MEMORY) {
            Ok(folder) => Box::new(folder),
            // Then records that cannot be written to the disk end with this process.
            Err(_) => Box::<Memory>::default(),
        };
        Self::of(Box::new(Folder::new(DISK)), memory, log::LIMIT, PATIENCE, flow::flows)
    }

    pub(super) fn of(
        disk: Box<dyn Medium>,
        memory: Box<dyn Medium>,
        limit: usize,
        patience: Duration,
        flows: fn() -> bool,
    ) -> Self {
        Self { places: Arc::new(Places { disk, memory, limit }), patience, flows }
    }

    /// The number of a new attempt.
    pub(super) fn number(&self) -> u64 {
        let last = self.places.last_number().unwrap_or_else(|| self.highest());
        let places = &self.places;
        let take = || -> io::Result<u64> {
            let _turn = places.memory.lock(SPOOL_LOCK)?;
            let next = places.last_number().unwrap_or(last).saturating_add(1);
            places.memory.replace(NUMBER, next.to_string().as_bytes())?;
            Ok(next)
        };
        take().unwrap_or_else(|_| last.saturating_add(1))
    }

    fn highest(&self) -> u64 {
        let records = self.read().records;
        records.iter().filter_map(Record::identity).map(|one| one.attempt).max().unwrap_or(0)
    }

    /// Writes a record: to the disk when I/O flows, else to memory only. The error tells people what is not as it should
    /// be; the record may be in memory all the same.
    pub(super) fn write(&self, record: &Record) -> Result<(), String> {
        let spooled = line::encode(record).and_then(|line| self.places.spool(&line));
        spooled.map_err(|error| format!("the journal has no record of this: {error}"))?;
        if !(self.flows)() {
            return Ok(());
        }
        self.flush().map_err(|error| {
            format!(
                "the journal could not be written to {DISK}: {error}; the record waits in {MEMORY}"
            )
        })
    }

    /// Whether I/O flows, so that a disk may be written to.
    pub(super) fn flows(&self) -> bool {
        (self.flows)()
    }

    /// Writes to the disk what waits in memory.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.patiently(Places::flush)
    }

    /// All records. Whatever cannot be read is told in the notes.
    pub fn read(&self) -> Found {
        let mut scan = Scan::default();
        let mut notes = Vec::new();
        if (self.flows)() {
            match self.patiently(|places| log::read(places.disk.as_ref())) {
                Ok(read) => scan = read,
                Err(error) => {
                    notes.push(format!("the journal in {DISK} could not be read: {error}"))
                }
            }
        } else {
            notes.push(format!("the journal in {DISK} is not read while I/O is held"));
        }
        if scan.torn != 0 {
            notes.push(format!("{} bytes of a record that was not written to its end", scan.torn));
        }
        match self.places.spooled() {
            Ok(spooled) => scan.add(&spooled),
            Err(error) => notes.push(format!("the spool in {MEMORY} could not be read: {error}")),
        }
        Found { records: scan.records, damaged: scan.damaged, notes }
    }

    /// Does something that may wait for the disk, for as long as that is worth it. A disk that does not answer keeps the
    /// thread, and what it holds.
    fn patiently<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Places) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (done, answer) = channel();
        let places = Arc::clone(&self.places);
        Builder::new().stack_size(STACK_BYTES).spawn(move || {
            // Whoever asked may not wait any more.
            let _ = done.send(work(&places));
        })?;
        answer.recv_timeout(self.patience).unwrap_or_else(|error| {
            Err(io::Error::other(match error {
                RecvTimeoutError::Timeout => format!("no answer after {:?}", self.patience),
                RecvTimeoutError::Disconnected => "its thread has ended".to_owned(),
            }))
        })
    }
}

impl Places {
    fn spool(&self, line: &[u8]) -> io::Result<()> {
        let _turn = self.memory.lock(SPOOL_LOCK)?;
        let there = self.memory.read(SPOOL)?;
        let (whole, torn) = line::split(&there);
        if !torn.is_empty() {
            // Its writer was killed.
            self.memory.truncate(SPOOL, whole.len())?;
        }
        self.memory.append(SPOOL, line)
    }

    fn spooled(&self) -> io::Result<Vec<u8>> {
        let _turn = self.memory.lock(SPOOL_LOCK)?;
        self.memory.read(SPOOL)
    }

    fn flush(&self) -> io::Result<()> {
        let _turn = self.memory.lock(DISK_LOCK)?;
        let spooled = self.spooled()?;
        let (whole, _) = line::split(&spooled);
        if whole.is_empty() {
            return Ok(());
        }
        log::append(self.disk.as_ref(), whole, self.limit)?;
        // From here on it would only be there twice, which a reader knows.
        let _turn = self.memory.lock(SPOOL_LOCK)?;
        let since = self.memory.read(SPOOL)?;
        match since.get(whole.len()..) {
            Some(rest) if !rest.is_empty() => self.memory.replace(SPOOL, rest),
            _ => self.memory.remove(SPOOL),
        }
    }

    fn last_number(&self) -> Option<u64> {
        std::str::from_utf8(&self.memory.read(NUMBER).ok()?).ok()?.parse().ok()
    }
}
