// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! From the spool to the disk, and back to whoever reads.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use atom_abi::control::{cause, Report};

use super::atoms_own::missing;
#[cfg(feature = "failpoints")]
use super::failing::Failing;
use super::line::{self, Scan};
use super::medium::{Folder, Medium, Memory};
use super::{beneath, flow, log, patience, who, Record};

const DISK: &str = "/var/lib/atom";
const MEMORY: &str = "/run/atom";
const SPOOL: &str = "spool";
const NUMBER: &str = "attempt";
const DISK_LOCK: &str = "journal.lock";
const SPOOL_LOCK: &str = "spool.lock";
/// How long a disk may take. One behind a volume whose server is gone takes for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the records are.
#[derive(Clone)]
pub struct Journal {
    places: Arc<Places>,
    patience: Duration,
    aside: Aside,
    flow: Flow,
    /// The disk did not answer this process: it is not waited for again.
    silent: Arc<AtomicBool>,
}

/// What uses the disk, of which nobody knows whether it comes back: it is waited for as long as is said.
#[derive(Clone, Copy)]
pub(super) struct Aside {
    /// Writes to the disk what waits in memory.
    pub(super) write: fn(Duration, Arc<Places>) -> io::Result<()>,
    /// Reads what [`log::scan`] understands.
    pub(super) read: fn(Duration, Arc<Places>) -> io::Result<Vec<u8>>,
}

/// In a process of its own.
const IN_A_PROCESS: Aside = Aside {
    write: |limit, places| patience::write(limit, || places.flush()),
    read: |limit, places| patience::read(limit, || places.read()),
};

/// When the disk may be used.
#[derive(Clone, Copy)]
pub(super) struct Flow {
    /// Whether I/O flows, so that it may be written to.
    pub(super) flows: fn() -> bool,
    /// Whether it may be read all the same.
    pub(super) is_apart: fn() -> bool,
}

pub(super) struct Places {
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

impl Found {
    /// What one file of the journal holds, which may be damaged in any way.
    pub fn of_file(bytes: &[u8]) -> Self {
        let mut scan = Scan::default();
        scan.add(bytes);
        Self { records: scan.records, damaged: scan.damaged, notes: Vec::new() }
    }
}

impl Journal {
    /// That of this machine.
    pub fn standard() -> Self {
        let memory: Box<dyn Medium> = match Folder::in_memory(MEMORY) {
            Ok(folder) => Box::new(folder),
            // Then records that cannot be written to the disk end with this process.
            Err(_) => Box::<Memory>::default(),
        };
        let is_apart = || beneath::is_without_atom(Path::new(DISK));
        let flow = Flow { flows: flow::flows, is_apart };
        let disk: Box<dyn Medium> = Box::new(Folder::new(DISK));
        #[cfg(feature = "failpoints")]
        let (disk, memory) = (Failing::disk(disk), Failing::spool(memory));
        Self::of(disk, memory, log::LIMIT, PATIENCE, flow)
    }

    pub(super) fn of(
        disk: Box<dyn Medium>,
        memory: Box<dyn Medium>,
        limit: usize,
        patience: Duration,
        flow: Flow,
    ) -> Self {
        let places = Arc::new(Places { disk, memory, limit });
        Self { places, patience, aside: IN_A_PROCESS, flow, silent: Arc::default() }
    }

    /// The same with what uses the disk in other hands.
    #[cfg(test)]
    pub(super) fn aside(self, aside: Aside) -> Self {
        Self { aside, ..self }
    }

    /// The number of a new attempt.
    pub(super) fn number(&self) -> u64 {
        let known = self.places.last_number();
        let last = known.unwrap_or_else(|| self.highest());
        if known.is_none() && !self.flows() {
            // The disk may have higher ones. Whoever comes when it is there looks again.
            return last.saturating_add(1);
        }
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
        if !self.flows() {
            return Ok(());
        }
        self.flush().map_err(|error| {
            format!(
                "the journal could not be written to {DISK}: {error}; the record waits in {MEMORY}"
            )
        })
    }

    /// Writes what Atom has done by itself since the last record. What cannot be written now is found again by the next
    /// tool.
    pub(super) fn note_atoms_own(&self, reports: &[Report]) {
        if reports.iter().all(|report| report.cause == cause::ASKED) {
            return;
        }
        for (mut began, mut ended) in missing(&self.read().records, reports, &who::boot()) {
            let attempt = self.number();
            began.identity.attempt = attempt;
            ended.identity.attempt = attempt;
            let _ =
                self.write(&Record::Began(began)).and_then(|()| self.write(&Record::Ended(ended)));
        }
    }

    /// Whether I/O flows, so that a disk may be written to.
    pub(super) fn flows(&self) -> bool {
        (self.flow.flows)()
    }

    /// Writes to the disk what waits in memory.
    pub(super) fn flush(&self) -> io::Result<()> {
        if self.silent.load(Ordering::Relaxed) {
            return Err(io::Error::other("it did not answer before"));
        }
        let flushed = (self.aside.write)(self.patience, Arc::clone(&self.places));
        let silent = flushed.as_ref().is_err_and(|error| error.kind() == ErrorKind::TimedOut);
        self.silent.fetch_or(silent, Ordering::Relaxed);
        flushed
    }

    /// All records. Whatever cannot be read is told in the notes.
    pub fn read(&self) -> Found {
        // Before the disk: what comes there meanwhile must not be missed.
        let spooled = self.places.spooled();
        let mut scan = Scan::default();
        let mut notes = Vec::new();
        if self.flows() || (self.flow.is_apart)() {
            match (self.aside.read)(self.patience, Arc::clone(&self.places)) {
                Ok(read) => scan = log::scan(&read),
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
        match spooled {
            Ok(spooled) => scan.add(&spooled),
            Err(error) => notes.push(format!("the spool in {MEMORY} could not be read: {error}")),
        }
        Found { records: scan.records, damaged: scan.damaged, notes }
    }
}

/// Writes to the disk of the journal something that is not worth waiting for: only when I/O flows.
pub(crate) fn beside(work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    if !flow::flows() {
        return Err(io::Error::other("no disk is written to while I/O is held"));
    }
    patience::write(PATIENCE, work)
}

/// Reads something from there, when that is safe.
pub(crate) fn read_beside(work: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    if !(flow::io_flows() || beneath::is_without_atom(Path::new(DISK))) {
        return Err(io::Error::other("no disk is read while I/O is held"));
    }
    patience::read(PATIENCE, work)
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

    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        log::read(self.disk.as_ref())
    }

    pub(super) fn flush(&self) -> io::Result<()> {
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
