// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The system calls that have no safe wrapper: the only unsafe code of this package.
//!
//! All ioctls of the control device rest on the same argument. The number of an ioctl carries the size
//! of its structure, and Atom reads and writes at most that many bytes at the address (`control.rs` of
//! the ABI). Each structure consists of integers and byte arrays, for which every pattern of bits is a
//! valid value.

use std::fs::File;
use std::io::{self, Write};
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};

use atom_abi::control::{
    self, Command, Commit, DeviceInfo, Handoff, PayloadInfo, Report, ReportQuery, Settings, Status,
};
use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;
use nix::Result;

/// The minor version of the interface that the loaded Atom knows. One of 1.0 takes the structures of 1.0
/// and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// 1.0.
    First,
    /// 1.1 and later: shorter and longer structures are understood.
    Current,
}

/// A structure of an ioctl.
///
/// # Safety
///
/// It begins with its size as a `u32`, every pattern of bits in it is a valid value, and nothing in it is an
/// address. `BYTES_1_0` is at most its size.
pub(crate) unsafe trait Exchanged {
    /// Bytes that it had in 1.0; of a later structure, all of them.
    const BYTES_1_0: usize;
    /// Its first field.
    fn size_field(&mut self) -> &mut u32;
}

macro_rules! exchanged {
    ($($name:ident: $bytes:expr),+ $(,)?) => {$(
        // SAFETY: The ABI defines it as integers and byte arrays without padding, its size first; the length
        // is the offset of a field that came later, or the whole.
        unsafe impl Exchanged for $name {
            const BYTES_1_0: usize = $bytes;

            fn size_field(&mut self) -> &mut u32 {
                &mut self.size
            }
        }
    )+};
}

exchanged! {
    Status: offset_of!(Status, events),
    PayloadInfo: size_of::<PayloadInfo>(),
    DeviceInfo: offset_of!(DeviceInfo, errors),
    Handoff: offset_of!(Handoff, report) + offset_of!(Report, cause),
    ReportQuery: offset_of!(ReportQuery, report) + offset_of!(Report, cause),
    Settings: size_of::<Settings>(),
    Commit: size_of::<Commit>(),
}

/// Carries out the ioctl `command` with `value` and returns what Atom made of it.
pub(crate) fn exchange<T: Exchanged>(
    device: BorrowedFd<'_>,
    dialect: Dialect,
    command: u32,
    mut value: T,
) -> Result<T> {
    let bytes = match dialect {
        Dialect::First => T::BYTES_1_0,
        Dialect::Current => size_of::<T>(),
    };
    *value.size_field() = u32::try_from(bytes).map_err(|_| Errno::E2BIG)?;
    let command = sized(command, bytes)?;
    // SAFETY:
    // - The descriptor is open for as long as it is borrowed.
    // - The pointer is to a live value that has at least the bytes that the number tells, nothing else refers
    //   to it during the call, and whatever is written there is a valid value.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), command, &raw mut value) };
    Errno::result(result).map(|_| value)
}

/// The number of an ioctl for a structure of that many bytes.
fn sized(command: u32, bytes: usize) -> Result<libc::Ioctl> {
    let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes < 1 << 14).ok_or(Errno::E2BIG)?;
    Ok((control::number(command) | bytes << 16) as libc::Ioctl)
}

/// Forwards `input` and returns the payload's result with the used length of `output`.
pub(crate) fn command(
    device: BorrowedFd<'_>,
    input: &[u8],
    output: &mut [u8],
) -> Result<(i32, usize)> {
    let length = |bytes: usize| u32::try_from(bytes).map_err(|_| Errno::E2BIG);
    let mut command = Command {
        size: length(size_of::<Command>())?,
        result: 0,
        input: input.as_ptr() as u64,
        output: output.as_mut_ptr() as u64,
        input_bytes: length(input.len())?,
        output_bytes: length(output.len())?,
    };
    let number = sized(control::IOC_COMMAND, size_of::<Command>())?;
    // SAFETY:
    // - The descriptor is open for as long as it is borrowed.
    // - The pointer is to a live `Command`, the structure that the number was made for, and nothing
    //   else refers to it during the call.
    // - Atom reads at most `input_bytes` from `input`, which is borrowed for the call.
    // - Atom writes at most `output_bytes` to `output`, which is borrowed exclusively for the call,
    //   and any bytes are valid there.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), number, &raw mut command) };
    Errno::result(result)?;
    let used = usize::try_from(command.output_bytes).unwrap_or(usize::MAX);
    Ok((command.result, used.min(output.len())))
}

/// Tells the kernel whether this task serves I/O: if so, no allocation made for it, also not by
/// `init_module`, waits for I/O. Needs `CAP_SYS_RESOURCE`.
pub(crate) fn set_io_flusher(on: bool) -> Result<()> {
    // `PR_SET_IO_FLUSHER` of include/uapi/linux/prctl.h.
    const PR_SET_IO_FLUSHER: libc::c_int = 57;
    let none: libc::c_ulong = 0;
    // SAFETY: This option takes numbers only, and the kernel demands that the last three are zero.
    let result =
        unsafe { libc::prctl(PR_SET_IO_FLUSHER, libc::c_ulong::from(on), none, none, none) };
    Errno::result(result).map(drop)
}

/// Makes a process that has the memory of this one and none of its files but `word`, in a session of its own. It does
/// `work`, writes to `word` what that returns, and ends; after `limit_s` seconds at the latest, unless it waits for a
/// disk. Returns its number.
pub(crate) fn aside(word: &File, limit_s: u32, work: impl FnOnce() -> Vec<u8>) -> Result<Pid> {
    // SAFETY: Other threads of this process may hold locks at this moment, which nobody gives back in the child. It takes
    // none of them: the C library makes those of its allocator fit for the child, `work` opens files of its own, and
    // nothing is printed. It never returns from here.
    let child = Errno::result(unsafe { libc::fork() })?;
    if child != 0 {
        return Ok(Pid::from_raw(child));
    }
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let word = alone(word, limit_s)?;
        (&word).write_all(&work())
    }));
    // SAFETY: It ends this process without anything that this process had registered for its own end.
    unsafe { libc::_exit(i32::from(!matches!(done, Ok(Ok(()))))) }
}

/// Leaves behind what a child has of its parent: the session, the files but `word`, and its patience.
fn alone(word: &File, limit_s: u32) -> io::Result<File> {
    const FIRST_FREE: libc::c_int = 3;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let word = word.try_clone()?;
    // SAFETY: These calls take numbers only. The descriptors 0 to 2 become others of the same kind; what is closed is used
    // by nobody in this process from here on: `null` is forgotten, and `word` moves to the number that is left open.
    unsafe {
        Errno::result(libc::setsid())?;
        libc::alarm(limit_s);
        for stream in 0..FIRST_FREE {
            Errno::result(libc::dup2(null.as_raw_fd(), stream))?;
        }
        Errno::result(libc::dup2(word.as_raw_fd(), FIRST_FREE))?;
        let (first, last) = (FIRST_FREE as libc::c_uint + 1, libc::c_uint::MAX);
        Errno::result(libc::syscall(libc::SYS_close_range, first, last, 0))?;
        std::mem::forget((null, word));
        Ok(File::from_raw_fd(FIRST_FREE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_aside_tells_its_word_and_has_no_other_file() {
        let (mut read, write) = io::pipe().unwrap();
        let write = File::from(std::os::fd::OwnedFd::from(write));
        let files = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let child = aside(&write, 60, || files().to_string().into_bytes()).unwrap();
        drop(write);
        let word = io::read_to_string(&mut read).unwrap();
        // Three streams, the word, and the folder that is read.
        assert_eq!(word, "5");
        let ended = nix::sys::wait::waitpid(child, None).unwrap();
        assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(child, 0));
    }

    #[test]
    fn the_number_of_an_ioctl_carries_the_bytes_that_are_exchanged() {
        let whole = sized(control::IOC_STATUS, size_of::<Status>()).unwrap();
        assert_eq!(whole, control::IOC_STATUS as libc::Ioctl);
        let first = sized(control::IOC_STATUS, Status::BYTES_1_0).unwrap();
        assert_ne!(first, whole);
        assert_eq!(control::number(first as u32), control::number(whole as u32));
        assert_eq!(sized(control::IOC_STATUS, 1 << 14), Err(Errno::E2BIG));
    }
}
