// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Atom's control device.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use atom_abi::control::{
    self, Commit, DeviceInfo, Handoff, PayloadInfo, Report, ReportQuery, Settings, Status,
    DEVICE_PATH, MAX_DEADLINE_NS, REPORTS_KEPT,
};
use atom_abi::table::MAX_COMMAND_BYTES;
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use crate::blank;
use crate::drain::Drain;
use crate::problem::{Problem, Result};
use crate::sys::{self, Dialect, Exchanged};

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
    dialect: Dialect,
}

impl Control {
    /// Opens `/dev/atom-control`, and finds out which minor version of the interface Atom knows.
    pub fn open() -> Result<Self> {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open(DEVICE_PATH)
            .map_err(|error| not_opened(&error, Path::new("/sys/module/atom").exists()))?;
        let asked =
            sys::exchange(device.as_fd(), Dialect::Current, control::IOC_STATUS, Status::EMPTY);
        let dialect = match asked {
            Err(Errno::ENOTTY | Errno::EINVAL) => Dialect::First,
            _ => Dialect::Current,
        };
        Ok(Self { device, dialect })
    }

    /// The state of Atom.
    pub fn status(&self) -> Result<Status> {
        self.ask("read the state of Atom", control::IOC_STATUS, Status::EMPTY)
    }

    /// The registered payloads.
    pub fn payloads(&self) -> Result<Vec<PayloadInfo>> {
        list("list the payloads", LONGEST_LIST, |index| {
            self.exchange(control::IOC_PAYLOAD, PayloadInfo { index, ..blank::PAYLOAD })
        })
    }

    /// The devices.
    pub fn devices(&self) -> Result<Vec<DeviceInfo>> {
        list("list the devices", LONGEST_LIST, |index| {
            self.exchange(control::IOC_DEVICE, DeviceInfo { index, ..blank::DEVICE })
        })
    }

    /// The reports that Atom keeps, newest first.
    pub fn reports(&self) -> Result<Vec<Report>> {
        list("read the history", REPORTS_KEPT as u32, |index| {
            let query = ReportQuery { size: 0, index, report: Report::EMPTY };
            self.exchange(control::IOC_REPORT, query).map(|answer| answer.report)
        })
    }

    /// Warm handoff from the live payload to `payload`. What became of it stands in the report.
    pub fn switch(&self, payload: u32, drain: impl Into<Drain>) -> Result<Report> {
        self.handoff(Verb::Switch, payload, NEWEST, drain.into())
    }

    /// The live payload gives the devices to Atom, which holds their I/O. The image is written in
    /// `schema`, which the next payload must read; without one, in the newest that there is.
    pub fn abandon(&self, schema: Option<u32>, drain: impl Into<Drain>) -> Result<Report> {
        self.handoff(Verb::Abandon, 0, schema.unwrap_or(NEWEST), drain.into())
    }

    /// `payload` takes over what Atom holds.
    pub fn adopt(&self, payload: u32) -> Result<Report> {
        self.handoff(Verb::Adopt, payload, NEWEST, DEFAULT_DEADLINE.into())
    }

    /// Makes the changes that `wanted` asks for, and returns the settings after them. Since 1.1.
    pub fn settings(&self, wanted: &Settings) -> Result<Settings> {
        self.ask("change its settings", control::IOC_SETTINGS, *wanted)
    }

    /// Ends the soak: `payload`, the live one, stays. Since 1.1.
    pub fn commit(&self, payload: u32) -> Result<()> {
        match self.exchange(control::IOC_COMMIT, Commit { size: 0, payload }) {
            Ok(_) => Ok(()),
            Err(errno) => Err(not_committed(errno)),
        }
    }

    /// Waits until something has happened since this file's last [`Control::status`]: then true; false
    /// after `limit`. Since 1.1.
    pub fn wait(&self, limit: Duration) -> Result<bool> {
        self.wait_or(limit, None)
    }

    /// The same, or until there is something to read from `other`.
    pub fn wait_or(&self, limit: Duration, other: Option<BorrowedFd<'_>>) -> Result<bool> {
        let limit = i32::try_from(limit.as_millis().saturating_add(1)).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut waited: Vec<_> =
            [Some(self.device.as_fd()), other].into_iter().flatten().map(readable).collect();
        match poll(&mut waited, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(failed("tell when something happens", errno)),
        }
    }

    /// Claims the right to change what runs. It ends with the process at the latest; none when another
    /// process has it.
    pub fn claim(&self) -> Option<Claim> {
        let file = self.device.try_clone().ok()?;
        file.try_lock().is_ok().then(|| Claim { file })
    }

    /// Forwards a command to the live payload and returns its answer.
    pub fn command(&self, input: &[u8]) -> Result<Vec<u8>> {
        self.forward(input)?.map_err(|errno| {
            Problem::undone(
                "The live payload refused a command",
                explain(errno),
                "read the kernel log (dmesg), where the payload says more",
            )
        })
    }

    /// The same, and tells an error of the payload from one of Atom.
    pub fn forward(&self, input: &[u8]) -> Result<std::result::Result<Vec<u8>, Errno>> {
        let mut output = vec![0; MAX_COMMAND_BYTES];
        let (result, used) = sys::command(self.device.as_fd(), input, &mut output)
            .map_err(|errno| failed("forward a command to the live payload", errno))?;
        if result != 0 {
            return Ok(Err(Errno::from_raw(result.saturating_neg())));
        }
        output.truncate(used);
        Ok(Ok(output))
    }

    fn handoff(&self, verb: Verb, payload: u32, schema: u32, drain: Drain) -> Result<Report> {
        let deadline_ns = nanoseconds("deadline", drain.deadline)?;
        let (command, what) = match verb {
            Verb::Switch => (control::IOC_SWITCH, "switch to another payload"),
            Verb::Abandon => (control::IOC_ABANDON, "let the live payload abandon the devices"),
            Verb::Adopt => (control::IOC_ADOPT, "let a payload adopt the devices"),
        };
        if self.dialect == Dialect::First && drain.policy() != 0 {
            return Err(Problem::refused(
                format!("Atom did not {what}"),
                format!("it speaks ABI 1.0, which has no policy but abort; asked for: {drain}"),
                "leave out --at-deadline and --forsake, or load a newer Atom",
            ));
        }
        let wish = Handoff {
            size: 0,
            payload,
            schema,
            policy: drain.policy(),
            deadline_ns,
            report: Report::EMPTY,
        };
        self.ask(what, command, wish).map(|answer| answer.report)
    }

    fn ask<T: Exchanged>(&self, what: &str, command: u32, value: T) -> Result<T> {
        self.exchange(command, value).map_err(|errno| failed(what, errno))
    }

    fn exchange<T: Exchanged>(&self, command: u32, value: T) -> nix::Result<T> {
        sys::exchange(self.device.as_fd(), self.dialect, command, value)
    }
}

/// The halves and the whole of a handoff.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verb {
    Switch,
    Abandon,
    Adopt,
}

/// While it exists, no other process that asks for it changes what runs, see [`Control::claim`].
#[derive(Debug)]
pub struct Claim {
    file: File,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // It ends with the open file at the latest.
        let _ = self.file.unlock();
    }
}

/// A time that Atom takes, in nanoseconds.
pub(crate) fn nanoseconds(what: &str, time: Duration) -> Result<u64> {
    u64::try_from(time.as_nanos()).ok().filter(|ns| *ns <= MAX_DEADLINE_NS).ok_or_else(|| {
        Problem::usage(
            format!("The {what} is too long"),
            format!("{time:?} is more than Atom allows"),
            format!("give at most {:?}", Duration::from_nanos(MAX_DEADLINE_NS)),
        )
    })
}

fn not_committed(errno: Errno) -> Problem {
    let what = "Nothing was committed";
    match errno {
        Errno::ENOENT => Problem::refused(
            what,
            "nothing soaks: the last switch is committed, or Atom has switched back",
            "atomctl status shows what serves, atomctl history why",
        ),
        Errno::ESTALE => Problem::refused(
            what,
            "another payload is live than the one that was to be committed",
            "atomctl status shows what serves, atomctl history why",
        ),
        _ => failed("commit the live payload", errno),
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
