// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The version that was committed last, in `/var/lib/atom/live`: what a boot loads. What a boot has loaded counts as committed,
//! since there is nothing to go back to.
//!
//! Where `/var` is a file system of its own, it is not there yet when a boot looks. So there the version is in `/etc/atom/live`
//! as well, which is looked at first: it is there in no other case.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use atom_abi::control::{payload_state, PayloadInfo, Status};
use atom_abi::lifecycle::Place;

use crate::control::Control;
use crate::journal;
use crate::upgrade::Site;

const PATH: &str = "/var/lib/atom/live";
const EARLY_PATH: &str = "/etc/atom/live";
const FSTAB: &str = "/etc/fstab";
const MOUNTS: &str = "/proc/self/mountinfo";

/// The version that was committed last; none when nobody has written it, or it cannot be read yet.
pub fn committed() -> Option<String> {
    let from = |path: &'static str| version(&journal::read_beside(|| fs::read(path)).ok()?);
    match from(EARLY_PATH) {
        None if is_to_be_mounted() => None,
        None => from(PATH),
        early => early,
    }
}

/// Whether the file system that the file lies on is still to be mounted, as early in a boot. What lies below its mount
/// point is older than what lies on it.
pub fn is_to_be_mounted() -> bool {
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    lacks_a_mount(&text(FSTAB), &text(MOUNTS))
}

/// Whether a table of mounts has a file system for the file that is not the root's.
fn is_on_its_own(mounts: &str) -> bool {
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    places.into_iter().any(|place| place != "/" && Path::new(PATH).starts_with(place))
}

/// Writes the version to both of the places, or to the one and removes what the other has.
fn write_both(path: &Path, early: &Path, is_on_its_own: bool, version: &str) -> io::Result<()> {
    write(path, version)?;
    if is_on_its_own {
        return write(early, version);
    }
    match fs::remove_file(early) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a table of file systems names one for the file which the table of mounts does not have.
fn lacks_a_mount(fstab: &str, mounts: &str) -> bool {
    let is_mounted = |place: &str| {
        // proc_pid_mountinfo(5): the fifth field.
        mounts.lines().any(|line| line.split(' ').nth(4) == Some(place))
    };
    fstab
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(|place| if place.len() > 1 { place.trim_end_matches('/') } else { place })
        .any(|place| {
            place.starts_with('/') && Path::new(PATH).starts_with(place) && !is_mounted(place)
        })
}

/// Writes down what is live, unless it soaks still, has died, or is written down already. Asks nothing of a disk while
/// I/O is held, and does not wait for one that does not answer.
pub fn remember() -> io::Result<()> {
    // Without Atom there is nothing to write down.
    let Ok(control) = Control::open() else { return Ok(()) };
    let (Ok(status), Ok(payloads)) = (control.status(), control.payloads()) else { return Ok(()) };
    let site = Site { release: String::new(), status, payloads };
    match site.live().filter(|live| is_settled(&site.status, live)) {
        // An initramfs has a folder of its own, which nobody sees again.
        Some(_) if !journal::disk_is_there() => Ok(()),
        Some(live) => journal::beside(|| {
            let mounts = fs::read_to_string(MOUNTS).unwrap_or_default();
            let (path, early) = (Path::new(PATH), Path::new(EARLY_PATH));
            write_both(path, early, is_on_its_own(&mounts), live.version.as_str())
        }),
        None => Ok(()),
    }
}

fn is_settled(status: &Status, live: &PayloadInfo) -> bool {
    let soaks = status.soak_left_ns != 0 || status.parked != 0;
    status.place == Place::Live.code() && !soaks && live.state == payload_state::LIVE
}

fn read(path: &Path) -> Option<String> {
    version(&fs::read(path).ok()?)
}

/// The version that the bytes of such a file name; none when it names none.
pub fn version(bytes: &[u8]) -> Option<String> {
    let version = std::str::from_utf8(bytes).ok()?.trim();
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
    fn a_file_system_that_is_to_be_mounted_has_the_newer_file() {
        let fstab = "# <file system> <mount point>\n/dev/vda1 / ext4 defaults 0 1\n\
                     #/dev/vdc /var/lib ext4 defaults 0 2\n/dev/atom/logs /var/log ext4 defaults 0 2\n";
        let root = "22 1 254:1 / / rw - ext4 /dev/vda1 rw\n";
        assert!(!lacks_a_mount(fstab, root));
        assert!(!lacks_a_mount("", root));
        let var = format!("{fstab}LABEL=var /var/ ext4 defaults 0 2\nswap none swap sw 0 0\n");
        assert!(lacks_a_mount(&var, root));
        let mounted = format!("{root}31 22 254:2 / /var rw - ext4 /dev/vdb rw\n");
        assert!(!lacks_a_mount(&var, &mounted));
    }

    #[test]
    fn a_boot_before_the_file_system_is_there_finds_the_version_beside_it() {
        let folder = std::env::temp_dir().join(format!("atomctl-early-{}", std::process::id()));
        let (path, early) = (folder.join("var/live"), folder.join("etc/live"));
        write_both(&path, &early, false, "2.0.0").unwrap();
        assert_eq!((read(&path).as_deref(), read(&early)), (Some("2.0.0"), None));
        write_both(&path, &early, true, "2.1.0").unwrap();
        assert_eq!((read(&path), read(&early)), (Some("2.1.0".into()), Some("2.1.0".into())));
        // The file system was given up: what was beside it must not outlive it.
        write_both(&path, &early, false, "2.0.0").unwrap();
        assert_eq!((read(&path).as_deref(), read(&early)), (Some("2.0.0"), None));
        fs::remove_dir_all(&folder).unwrap();
        let root = "22 1 254:1 / / rw - ext4 /dev/vda1 rw\n";
        assert!(!is_on_its_own(root));
        assert!(!is_on_its_own(&format!("{root}30 22 254:3 / /var/log rw - ext4 /dev/vdc rw\n")));
        assert!(is_on_its_own(&format!("{root}31 22 254:2 / /var rw - ext4 /dev/vdb rw\n")));
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
