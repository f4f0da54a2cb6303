// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The block layer's counters of the devices. Reading them allocates nothing in this process.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Sample;

/// More than one line of counters has.
const LINE_BYTES: usize = 512;
/// Fields of `stat` that count requests: reads, writes, discards, flushes, each with its milliseconds.
const REQUESTS: [(usize, usize); 4] = [(0, 3), (4, 7), (11, 14), (15, 16)];

/// The open files of all devices.
#[derive(Debug)]
pub(super) struct Counters {
    devices: Vec<(File, File)>,
}

impl Counters {
    /// Those of the devices that are there now, in `/sys/block`.
    pub(super) fn open(folder: &Path) -> Self {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let devices = entries
            .filter(|entry| {
                let name = entry.file_name();
                let number = name.to_str().and_then(|name| name.strip_prefix("atom"));
                number.is_some_and(|number| number.parse::<u32>().is_ok())
            })
            .filter_map(|entry| {
                let open = |name: &str| File::open(entry.path().join(name)).ok();
                Some((open("inflight")?, open("stat")?))
            })
            .collect();
        Self { devices }
    }

    /// Adds up the counters. A device that is gone counts nothing.
    pub(super) fn read(&self, at_ns: u64) -> Sample {
        let mut sample = Sample { at_ns, ..Sample::default() };
        for (in_flight, stat) in &self.devices {
            let mut fields = [0; 2];
            read_fields(in_flight, &mut fields);
            sample.in_flight =
                fields.iter().fold(sample.in_flight, |sum, n| sum.saturating_add(*n));
            let mut fields = [0; 17];
            read_fields(stat, &mut fields);
            for (count, ms) in REQUESTS {
                let field = |index: usize| fields.get(index).copied().unwrap_or_default();
                sample.completed = sample.completed.saturating_add(field(count));
                sample.took_ms = sample.took_ms.saturating_add(field(ms));
            }
        }
        sample
    }
}

/// Reads numbers that stand between spaces. What is not there stays 0.
fn read_fields<const N: usize>(file: &File, fields: &mut [u64; N]) {
    let mut line = [0; LINE_BYTES];
    let Ok(length) = file.read_at(&mut line, 0) else {
        return;
    };
    let text = line.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let words = text.unwrap_or_default().split_ascii_whitespace();
    for (field, word) in fields.iter_mut().zip(words) {
        *field = word.parse().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_atom_devices_are_added_up_and_no_other() {
        let folder = std::env::temp_dir().join(format!("atomctl-counters-{}", std::process::id()));
        for name in ["atom0", "atom12", "atomic", "vda"] {
            fs::create_dir_all(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("inflight"), "       2        3\n").unwrap();
            let stat = "  10  0  80  5  20  0  160  7  0  9  12  1  0  8  1  2  4\n";
            fs::write(folder.join(name).join("stat"), stat).unwrap();
        }
        let counters = Counters::open(&folder);
        let sample = counters.read(9);
        assert_eq!(sample, Sample { at_ns: 9, in_flight: 10, completed: 2 * 33, took_ms: 2 * 17 });
        fs::remove_dir_all(&folder).unwrap();
    }
}
