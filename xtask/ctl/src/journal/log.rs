// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A file that only grows, with older ones beside it.

use std::io;

use super::line::{self, Scan};
use super::medium::Medium;

/// Name of the file; the older ones are `journal.1` to `journal.4`.
pub(super) const NAME: &str = "journal";
/// How many older files are kept.
const KEPT: usize = 4;
/// How long a file gets, in bytes: some hundred attempts.
pub(super) const LIMIT: usize = 1 << 20;

/// Every file that is there, oldest first, each with its length before it.
pub(super) fn read(medium: &dyn Medium) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    for name in (1..=KEPT).rev().map(older).chain([NAME.to_owned()]) {
        let file = medium.read(&name)?;
        all.extend_from_slice(&(file.len() as u64).to_le_bytes());
        all.extend_from_slice(&file);
    }
    Ok(all)
}

/// What [`read`] has read.
pub(super) fn scan(mut all: &[u8]) -> Scan {
    let mut scan = Scan::default();
    while let Some((length, rest)) = all.split_first_chunk() {
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (file, rest) = rest.split_at(length.min(rest.len()));
        scan.add(file);
        all = rest;
    }
    scan
}

/// Adds those of these lines that are not there yet, durably. Only one process may do this at a time. On an error nothing
/// that was there before is lost.
pub(super) fn append(medium: &dyn Medium, whole: &[u8], limit: usize) -> io::Result<()> {
    let content = medium.read(NAME)?;
    let (there, torn) = line::split(&content);
    let mut known = Scan::default();
    known.add(there);
    let mut fresh = Vec::new();
    for line in line::lines(whole).filter(|line| !known.knows(line)) {
        fresh.extend_from_slice(line);
        fresh.push(b'\n');
    }
    if fresh.is_empty() {
        // Whoever wrote them may have died before they were durable.
        return if content.is_empty() { Ok(()) } else { make_durable(medium) };
    }
    if !torn.is_empty() {
        medium.truncate(NAME, there.len())?;
    }
    let full = !there.is_empty() && there.len().saturating_add(fresh.len()) > limit;
    if full {
        rotate(medium)?;
    }
    let length = if full { 0 } else { there.len() };
    if let Err(error) = medium.append(NAME, &fresh) {
        // A part may be there. If it stays, the next one to write takes it away.
        let _ = medium.truncate(NAME, length);
        return Err(error);
    }
    make_durable(medium)
}

/// The names, too: they may be new, from now or from an earlier try that failed here.
fn make_durable(medium: &dyn Medium) -> io::Result<()> {
    medium.sync(NAME)?;
    medium.sync_names()
}

/// Makes room for a new file. The oldest one goes.
fn rotate(medium: &dyn Medium) -> io::Result<()> {
    // It may have records that somebody could not make durable.
    medium.sync(NAME)?;
    for number in (1..KEPT).rev() {
        medium.rename(&older(number), &older(number + 1))?;
    }
    medium.rename(NAME, &older(1))
}

fn older(number: usize) -> String {
    format!("{NAME}.{number}")
}
