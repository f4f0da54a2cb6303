// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The version that was committed last, in `/var/lib/atom/live`: what a boot loads.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use atom_abi::control::{payload_state, PayloadInfo, Status};
use atom_abi::lifecycle::Place;

use crate::control::Control;
use crate::upgrade::Site;

const PATH: &str = "/var/lib/atom/live";

/// The version that was committed last; none when nobody has written it, or it cannot be read yet.
pub fn committed() -> Option<String> {
    read(Path::new(PATH))
}

/// Writes down what is live, unless it soaks still, has died, or is written down already. Asks nothing of a disk while
/// I/O is held.
pub fn remember() -> io::Result<()> {
    // Without Atom there is nothing to write down.
    let Ok(control) = Control::open() else { return Ok(()) };
    let (Ok(status), Ok(payloads)) = (control.status(), control.payloads()) else { return Ok(()) };
    let site = Site { release: String::new(), status, payloads };
    match site.live().filter(|live| is_settled(&site.status, live)) {
        Some(live) => write(Path::new(PATH), live.version.as_str()),
        None => Ok(()),
    }
}

fn is_settled(status: &Status, live: &PayloadInfo) -> bool {
    let soaks = status.soak_left_ns != 0 || status.parked != 0;
    status.place == Place::Live.code() && !soaks && live.state == payload_state::LIVE
}

fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let version = text.trim();
    (!version.is_empty()).then(|| version.to_owned())
}

fn write(path: &Path, version: &str) -> io::Result<()> {
    if read(path).as_deref() == Some(version) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut part = PathBuf::from(path);
    part.set_extension("part");
    let mut file = fs::File::create(&part)?;
    file.write_all(format!("{version}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module_file::test_file::{live, status};

    #[test]
    fn what_was_written_down_is_read_back() {
        let folder = std::env::temp_dir().join(format!("atomctl-live-{}", std::process::id()));
        let path = folder.join("live");
        assert_eq!(read(&path), None);
        write(&path, "2.0.0").unwrap();
        write(&path, "2.1.0").unwrap();
        assert_eq!(read(&path).as_deref(), Some("2.1.0"));
        fs::write(&path, "\n").unwrap();
        assert_eq!(read(&path), None);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_payload_that_soaks_or_is_dead_is_not_what_a_boot_should_load() {
        let serving = Status { place: Place::Live.code(), ..status() };
        assert!(is_settled(&serving, &live()));
        assert!(!is_settled(&Status { soak_left_ns: 1, ..serving }, &live()));
        assert!(!is_settled(&Status { parked: 2, ..serving }, &live()));
        assert!(!is_settled(&Status { place: Place::Held.code(), ..serving }, &live()));
        assert!(!is_settled(&serving, &PayloadInfo { state: payload_state::DEAD, ..live() }));
    }
}
