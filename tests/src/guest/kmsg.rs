// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The kernel's log, whole and in order.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;

/// Longer than any record that the kernel hands out.
const RECORD: usize = 16 * 1024;

/// Reads everything that the kernel still has.
pub fn read() -> Result<String> {
    Reader::open()?.fresh()
}

/// A place in the log, which moves on with each look.
#[derive(Debug)]
pub struct Reader {
    file: File,
    record: Vec<u8>,
}

impl Reader {
    /// Begins with the oldest record that the kernel still has.
    pub fn open() -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open("/dev/kmsg")
            .context("cannot open /dev/kmsg")?;
        Ok(Self { file, record: vec![0; RECORD] })
    }

    /// What the kernel has said since the last look.
    pub fn fresh(&mut self) -> Result<String> {
        let mut log = String::new();
        loop {
            match self.file.read(&mut self.record) {
                Ok(0) => return Ok(log),
                Ok(count) => append(&mut log, &String::from_utf8_lossy(&self.record[..count])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(log),
                // Records were overwritten while we read; the next read goes on behind the gap.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    log.push_str("[atom-guest: records are missing here]\n");
                }
                Err(error) => return Err(error).context("cannot read /dev/kmsg"),
            }
        }
    }
}

/// Appends a record of the form `priority,sequence,microseconds,flags;text`, whose further lines are properties.
fn append(log: &mut String, record: &str) {
    let (head, text) = record.split_once(';').unwrap_or(("", record));
    let text = text.lines().next().unwrap_or_default();
    let micros: u64 = head.split(',').nth(2).and_then(|field| field.parse().ok()).unwrap_or(0);
    let stamp = format!("[{:5}.{:06}]", micros / 1_000_000, micros % 1_000_000);
    log.push_str(&format!("{stamp} {text}\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_becomes_a_line_with_its_time() {
        let mut log = String::new();
        append(&mut log, "6,339,5140900,-;vda: detected\n SUBSYSTEM=block\n");
        assert_eq!(log, "[    5.140900] vda: detected\n");
    }
}
