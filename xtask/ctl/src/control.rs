// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Atom's control device.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use atom_abi::control::{
    DeviceInfo, PayloadInfo, Report, Status, DEVICE_PATH, MAX_DEADLINE_NS, REPORTS_KEPT,
};
use atom_abi::table::MAX_COMMAND_BYTES;
use nix::errno::Errno;

use crate::problem::{Problem, Result};
use crate::sys;
use crate::urgent::Urgent;

/// How long a drain may take when nobody says otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// Asks for the newest schema that fits.
const NEWEST: u32 = 0;
/// More entries than any list of Atom has: ends the loop over a list that never ends.
const LONGEST_LIST: u32 = 1 << 16;

/// The open control device. Everything that Atom can be asked for is a method of it.
#[derive(Debug)]
pub struct Control {
    device: File,
}

impl Control {
    /// Opens `/dev/atom-control`.
    pub fn open() -> Result<Self> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(DEVICE_PATH)
            .map(|device| Self { device })
            .map_err(|error| not_opened(&error, Path::new("/sys/module/atom").exists()))
    }

    /// The state of Atom.
    pub fn status(&self) -> Result<Status> {
        sys::status(self.device.as_fd()).map_err(|errno| failed("read the state of Atom", errno))
    }

    /// The registered payloads.
    pub fn payloads(&self) -> Result<Vec<PayloadInfo>> {
        list("list the payloads", LONGEST_LIST, |index| sys::payload(self.device.as_fd(), index))
    }

    /// The devices.
    pub fn devices(&self) -> Result<Vec<DeviceInfo>> {
        list("list the devices", LONGEST_LIST, |index| sys::device(self.device.as_fd(), index))
    }

    /// The reports that Atom keeps, newest first.
    pub fn reports(&self) -> Result<Vec<Report>> {
        list("read the history", REPORTS_KEPT as u32, |index| {
            sys::report(self.device.as_fd(), index)
        })
    }

    /// Warm handoff from the live payload to `payload`. What became of it stands in the report.
    pub fn switch(&self, payload: u32, deadline: Duration) -> Result<Report> {
        self.handoff(sys::Verb::Switch, payload, NEWEST, deadline)
    }

    /// The live payload gives the devices to Atom, which holds their I/O. The image is written in
    /// `schema`, which the next payload must read; without one, in the newest that there is.
    pub fn abandon(&self, schema: Option<u32>, deadline: Duration) -> Result<Report> {
        self.handoff(sys::Verb::Abandon, 0, schema.unwrap_or(NEWEST), deadline)
    }

    /// `payload` takes over what Atom holds.
    pub fn adopt(&self, payload: u32) -> Result<Report> {
        self.handoff(sys::Verb::Adopt, payload, NEWEST, DEFAULT_DEADLINE)
    }

    /// Forwards a command to the live payload and returns its answer.
    pub fn command(&self, input: &[u8]) -> Result<Vec<u8>> {
        let mut output = vec![0; MAX_COMMAND_BYTES];
        let (result, used) = sys::command(self.device.as_fd(), input, &mut output)
            .map_err(|errno| failed("forward a command to the live payload", errno))?;
        if result != 0 {
            let errno = Errno::from_raw(result.saturating_neg());
            return Err(Problem::undone(
                "The live payload refused a command",
                explain(errno),
                "read the kernel log (dmesg), where the payload says more",
            ));
        }
        output.truncate(used);
        Ok(output)
    }

    fn handoff(
        &self,
        verb: sys::Verb,
        payload: u32,
        schema: u32,
        deadline: Duration,
    ) -> Result<Report> {
        let deadline_ns = u64::try_from(deadline.as_nanos())
            .ok()
            .filter(|ns| *ns <= MAX_DEADLINE_NS)
            .ok_or_else(|| {
                Problem::usage(
                    "The deadline is too long",
                    format!("{deadline:?} is more than Atom allows"),
                    format!("give at most {:?}", Duration::from_nanos(MAX_DEADLINE_NS)),
                )
            })?;
        let what = match verb {
            sys::Verb::Switch => "switch to another payload",
            sys::Verb::Abandon => "let the live payload abandon the devices",
            sys::Verb::Adopt => "let a payload adopt the devices",
        };
        let _urgent = Urgent::enter();
        sys::handoff(self.device.as_fd(), verb, payload, schema, deadline_ns)
            .map_err(|errno| failed(what, errno))
    }
}

fn list<T>(what: &str, longest: u32, entry: impl Fn(u32) -> nix::Result<T>) -> Result<Vec<T>> {
    let mut entries = Vec::new();
    for index in 0..longest {
        match entry(index) {
            Ok(entry) => entries.push(entry),
            Err(Errno::ENOENT) => break,
            Err(errno) => return Err(failed(what, errno)),
        }
    }
    Ok(entries)
}

fn failed(what: &str, errno: Errno) -> Problem {
    let remedy = match errno {
        Errno::EPERM => "run this as root, with the capability CAP_SYS_ADMIN",
        Errno::EINVAL | Errno::ENOTTY => "use the atomctl that was released with the loaded Atom",
        Errno::ENODEV => "make a payload live first: atomctl load FILE, or atomctl adopt",
        Errno::ENOENT => "look at what is registered: atomctl list",
        Errno::ENOMEM => "free memory and try again",
        _ => "read the kernel log (dmesg), where Atom says more",
    };
    Problem::refused(format!("Atom did not {what}"), explain(errno), remedy)
}

fn explain(errno: Errno) -> String {
    let hint = match errno {
        Errno::EPERM => " (CAP_SYS_ADMIN is missing)",
        Errno::EINVAL => " (the tool and Atom may be of different releases)",
        Errno::ENODEV => " (no payload is live)",
        _ => "",
    };
    format!("{}{hint}", errno.desc())
}

fn not_opened(error: &io::Error, atom_loaded: bool) -> Problem {
    let what = format!("{DEVICE_PATH} could not be opened");
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES | Errno::EPERM) => Problem::refused(
            what,
            "the device belongs to root and needs the capability CAP_SYS_ADMIN",
            "run this as root, for example with sudo",
        ),
        Some(Errno::ENOENT | Errno::ENXIO | Errno::ENODEV) if atom_loaded => Problem::refused(
            what,
            "atom.ko is loaded, but its control device has no node",
            "check that devtmpfs is mounted on /dev",
        ),
        Some(Errno::ENOENT | Errno::ENXIO | Errno::ENODEV) => Problem::refused(
            what,
            "atom.ko is not loaded",
            "load it: modprobe atom, or insmod atom.ko",
        ),
        _ => Problem::refused(
            what,
            error.to_string(),
            "read the kernel log (dmesg), where Atom says more",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_node_says_to_load_atom_unless_it_is_loaded() {
        let error = io::Error::from_raw_os_error(Errno::ENOENT as i32);
        assert!(not_opened(&error, false).remedy.contains("modprobe atom"));
        assert!(not_opened(&error, true).remedy.contains("devtmpfs"));
    }

    #[test]
    fn a_forbidden_device_says_to_become_root() {
        let error = io::Error::from_raw_os_error(Errno::EACCES as i32);
        assert!(not_opened(&error, true).remedy.contains("root"));
    }

    #[test]
    fn a_list_ends_at_the_first_missing_entry_and_at_the_longest_length() {
        let three =
            list("count", 100, |index| if index < 3 { Ok(index) } else { Err(Errno::ENOENT) });
        assert_eq!(three.unwrap(), [0, 1, 2]);
        assert_eq!(list("count", 5, Ok).unwrap().len(), 5);
        assert!(list("count", 5, |_| Err::<(), _>(Errno::EPERM)).is_err());
    }
}
