// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What one transaction of a package manager installs, as far as its packages have announced it.
//!
//! A file in `/run/atom` holds it: the process of the package manager, and a line for each payload. The process is named
//! by its number and the time at which it started, so that the next one with the same number is another one. Transactions
//! do not overlap, since the package manager has a lock; so one file is enough, and the next transaction writes it anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The folder for what lasts until the next boot.
pub const RUN: &str = "/run/atom";
const FILE: &str = "package-transaction";

/// A process that cannot be mistaken for a later one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process {
    /// Its number.
    pub id: u32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

impl Process {
    /// The process of this number; none when there is none, or no `/proc`.
    pub fn of(id: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        Some(Self { id, started: started(&stat)? })
    }
}

/// proc_pid_stat(5): the 22nd field. The second one is a name that may hold anything, in parentheses.
fn started(stat: &str) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// A payload that a transaction installs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload {
    /// The kernel that it is for.
    pub kernel: String,
    /// Its version.
    pub version: String,
}

/// The payloads that the transaction of `process` has announced.
pub fn announced(process: Process) -> Vec<Payload> {
    announced_in(Path::new(RUN), process)
}

/// Announces that the transaction of `process` installs a payload.
pub fn announce(process: Process, payload: Payload) -> io::Result<()> {
    announce_in(Path::new(RUN), process, payload)
}

fn announced_in(folder: &Path, process: Process) -> Vec<Payload> {
    let text = fs::read_to_string(folder.join(FILE)).unwrap_or_default();
    let mut lines = text.lines();
    if lines.next() != Some(&head(process)) {
        return Vec::new();
    }
    let payload = |line: &str| {
        let (kernel, version) = line.split_once(' ')?;
        Some(Payload { kernel: kernel.to_owned(), version: version.to_owned() })
    };
    lines.filter_map(payload).collect()
}

fn announce_in(folder: &Path, process: Process, payload: Payload) -> io::Result<()> {
    let mut payloads = announced_in(folder, process);
    if payloads.contains(&payload) {
        return Ok(());
    }
    payloads.push(payload);
    let mut text = head(process);
    for Payload { kernel, version } in payloads {
        text.push_str(&format!("\n{kernel} {version}"));
    }
    fs::create_dir_all(folder)?;
    let part: PathBuf = folder.join(format!("{FILE}.part"));
    fs::write(&part, text + "\n")?;
    fs::rename(&part, folder.join(FILE))
}

fn head(process: Process) -> String {
    format!("{} {}", process.id, process.started)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(version: &str) -> Payload {
        Payload { kernel: "7.2.12".to_owned(), version: version.to_owned() }
    }

    #[test]
    fn the_start_of_a_process_is_found_behind_any_name() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let rest = fields.join(" ");
        assert_eq!(started(&format!("7 (rpm) {rest}")), Some(22));
        assert_eq!(started(&format!("7 (a) b (c d) {rest}")), Some(22));
        assert_eq!(started("7 (rpm) S 1"), None);
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.started > 0);
        assert_eq!(Process::of(u32::MAX), None);
    }

    #[test]
    fn what_one_transaction_announces_is_not_known_to_the_next() {
        let folder = std::env::temp_dir().join(format!("atomctl-run-{}", std::process::id()));
        let first = Process { id: 7, started: 100 };
        let same_number = Process { id: 7, started: 101 };
        assert!(announced_in(&folder, first).is_empty());
        for version in ["2.0.0", "2.1.0", "2.0.0"] {
            announce_in(&folder, first, payload(version)).unwrap();
        }
        assert_eq!(announced_in(&folder, first), [payload("2.0.0"), payload("2.1.0")]);
        assert!(announced_in(&folder, same_number).is_empty());
        announce_in(&folder, same_number, payload("1.0.0")).unwrap();
        assert_eq!(announced_in(&folder, same_number), [payload("1.0.0")]);
        assert!(announced_in(&folder, first).is_empty());
        fs::remove_dir_all(&folder).unwrap();
    }
}
