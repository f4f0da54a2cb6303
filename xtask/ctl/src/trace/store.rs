// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The samples of the last attempts, on the disk beside the journal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Trace;
use crate::journal::{self, beside};

const FOLDER: &str = "/var/lib/atom/traces";
/// How many are kept.
const KEPT: usize = 16;

/// Writes the samples, when a disk may be written to. Of older ones only a few are kept.
pub fn write(trace: &Trace) -> io::Result<()> {
    let bytes = serde_json::to_vec(trace)?;
    let number = trace.attempt;
    beside(move || write_in(Path::new(FOLDER), number, &bytes))
}

/// The samples of an attempt; none when it did not ask for them, or they are gone.
pub fn read(attempt: u64, boot: &str) -> Option<Trace> {
    let bytes = journal::read_beside(move || fs::read(file(Path::new(FOLDER), attempt))).ok()?;
    let trace: Trace = serde_json::from_slice(&bytes).ok()?;
    (trace.schema == Trace::SCHEMA && trace.boot == boot).then_some(trace)
}

fn file(folder: &Path, attempt: u64) -> PathBuf {
    folder.join(format!("{attempt}.json"))
}

fn write_in(folder: &Path, attempt: u64, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let new = folder.join(format!("{attempt}.new"));
    fs::write(&new, bytes)?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(&new, file(folder, attempt))?;
    let mut numbers: Vec<u64> = fs::read_dir(folder)?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    let surplus = numbers.len().saturating_sub(KEPT);
    for old in numbers.iter().take(surplus) {
        fs::remove_file(file(folder, *old))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_ones_are_kept() {
        let folder = std::env::temp_dir().join(format!("atomctl-traces-{}", std::process::id()));
        for number in 1..=20 {
            write_in(&folder, number, b"{}").unwrap();
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), KEPT);
        assert!(!file(&folder, 4).exists() && file(&folder, 5).exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
