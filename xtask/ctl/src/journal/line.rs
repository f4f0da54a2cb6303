// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A record as a line of text that tells whether it is whole.
//!
//! The line is a JSON object. Its last member is `crc`: the CRC-32C of all bytes before `,"crc"`, as eight digits.

use std::collections::BTreeSet;
use std::io;

use atom_abi::crc32c::crc32c;

use super::Record;

/// `,"crc":"01234567"}`
const SEAL_BYTES: usize = 18;

/// What a file of the journal holds.
#[derive(Clone, Default, Debug)]
pub(super) struct Scan {
    /// The records, in the order of the file, each once.
    pub(super) records: Vec<Record>,
    /// Whole lines that are no records: they were damaged after they had been written.
    pub(super) damaged: usize,
    /// Bytes of a last line that was never written to its end.
    pub(super) torn: usize,
    seen: BTreeSet<Vec<u8>>,
}

impl Scan {
    /// Reads one more file. A line that was read before is the same record, not another one.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let (whole, torn) = split(bytes);
        self.torn += torn.len();
        for line in lines(whole) {
            match decode(line) {
                Some(record) if self.seen.insert(line.to_vec()) => self.records.push(record),
                Some(_) => {}
                None => self.damaged += 1,
            }
        }
    }

    /// Whether this line was read.
    pub(super) fn knows(&self, line: &[u8]) -> bool {
        self.seen.contains(line)
    }
}

/// A record as a line, with its end.
pub(super) fn encode(record: &Record) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record)?;
    // The closing brace comes after the checksum.
    line.pop();
    let seal = format!(",\"crc\":\"{:08x}\"}}\n", crc32c(&line));
    line.extend_from_slice(seal.as_bytes());
    Ok(line)
}

/// The record of a line, without its end; none when it is damaged.
pub(super) fn decode(line: &[u8]) -> Option<Record> {
    let (body, seal) = line.split_at_checked(line.len().checked_sub(SEAL_BYTES)?)?;
    if seal != format!(",\"crc\":\"{:08x}\"}}", crc32c(body)).as_bytes() {
        return None;
    }
    serde_json::from_slice(line).ok()
}

/// The whole lines of a file, and what stands behind them.
pub(super) fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    bytes.split_at(end)
}

/// The lines of `whole`, each without its end.
pub(super) fn lines(whole: &[u8]) -> impl Iterator<Item = &[u8]> {
    whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}
