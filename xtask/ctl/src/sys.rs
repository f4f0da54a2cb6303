// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The system calls that have no safe wrapper: the only unsafe code of this package.
//!
//! All ioctls of the control device rest on the same argument. The number of an ioctl carries the size
//! of its structure, and Atom reads and writes exactly that many bytes at the address (`control.rs` of
//! the ABI). Each structure consists of integers and byte arrays, for which every pattern of bits is a
//! valid value.

use std::os::fd::{AsRawFd, BorrowedFd};

use atom_abi::control::{
    self, Command, DeviceInfo, Handoff, PayloadInfo, Report, ReportQuery, Status,
};
use atom_abi::text::Text;
use atom_abi::version::{AbiRange, Refusal, SchemaRange};
use nix::errno::Errno;
use nix::libc;
use nix::Result;

mod raw {
    use super::{control, Command, DeviceInfo, Handoff, PayloadInfo, ReportQuery, Status};

    nix::ioctl_readwrite_bad!(status, control::IOC_STATUS, Status);
    nix::ioctl_readwrite_bad!(payload, control::IOC_PAYLOAD, PayloadInfo);
    nix::ioctl_readwrite_bad!(device, control::IOC_DEVICE, DeviceInfo);
    nix::ioctl_readwrite_bad!(switch, control::IOC_SWITCH, Handoff);
    nix::ioctl_readwrite_bad!(abandon, control::IOC_ABANDON, Handoff);
    nix::ioctl_readwrite_bad!(adopt, control::IOC_ADOPT, Handoff);
    nix::ioctl_readwrite_bad!(command, control::IOC_COMMAND, Command);
    nix::ioctl_readwrite_bad!(report, control::IOC_REPORT, ReportQuery);
}

/// The halves and the whole of a handoff.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verb {
    Switch,
    Abandon,
    Adopt,
}

const NO_ABI: AbiRange = AbiRange { major: 0, minor_min: 0, minor_max: 0, reserved: 0 };

const NO_SCHEMA: SchemaRange = SchemaRange { read_min: 0, read_max: 0, write_min: 0, write_max: 0 };

const fn size_of<T>() -> u32 {
    std::mem::size_of::<T>() as u32
}

pub(crate) fn status(device: BorrowedFd<'_>) -> Result<Status> {
    let mut status = Status {
        size: size_of::<Status>(),
        place: 0,
        abi: NO_ABI,
        layout_hash: 0,
        provides: 0,
        epoch: 0,
        live: 0,
        payloads: 0,
        devices: 0,
        opens: 0,
        preserved: 0,
        reserved: 0,
        image_bytes: 0,
        handoffs: 0,
        stale_completions: 0,
        held_ns: 0,
        version: Text::EMPTY,
        refused: Text::EMPTY,
        refusal: Refusal::NONE,
    };
    // SAFETY:
    // - The descriptor is open for as long as it is borrowed.
    // - The pointer is to a live `Status`, the structure that the number was made for, and nothing
    //   else refers to it during the call.
    unsafe { raw::status(device.as_raw_fd(), &raw mut status) }?;
    Ok(status)
}

pub(crate) fn payload(device: BorrowedFd<'_>, index: u32) -> Result<PayloadInfo> {
    let mut info = PayloadInfo {
        size: size_of::<PayloadInfo>(),
        index,
        id: 0,
        state: 0,
        abi: NO_ABI,
        schema: NO_SCHEMA,
        version: Text::EMPTY,
        module: Text::EMPTY,
    };
    // SAFETY:
    // - The descriptor is open for as long as it is borrowed.
    // - The pointer is to a live `PayloadInfo`, the structure that the number was made for, and
    //   nothing else refers to it during the call.
    unsafe { raw::payload(device.as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

pub(crate) fn device(device: BorrowedFd<'_>, index: u32) -> Result<DeviceInfo> {
    let mut info = DeviceInfo {
        size: size_of::<DeviceInfo>(),
        index,
        id: 0,
        opens: 0,
        capacity_sectors: 0,
        features: 0,
        hw_queues: 0,
        queue_depth: 0,
        owed: 0,
        reserved: 0,
    };
    // SAFETY:
    // - The descriptor is open for as long as it is borrowed.
    // - The pointer is to a live `DeviceInfo`, the structure that the number was made for, and
    //   nothing else refers to it during the call.
    unsafe { raw::device(device.as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

pub(crate) fn handoff(
    device: BorrowedFd<'_>,
    verb: Verb,
    payload: u32,
    schema: u32,
    deadline_ns: u64,
) -> Result<Report> {
    let mut handoff = Handoff {
        size: size_of::<Handoff>(),
        payload,
        schema,
        reserved: 0,
        deadline_ns,
        report: Report::EMPTY,
    };
    let fd = device.as_raw_fd();
    let address = &raw mut handoff;
    // SAFETY:
    // - The descriptor is open for as long as it is borrowed.
    // - The pointer is to a live `Handoff`, the structure that all three numbers were made for, and
    //   nothing else refers to it during the call.
    unsafe {
        match verb {
            Verb::Switch => raw::switch(fd, address),
            Verb::Abandon => raw::abandon(fd, address),
            Verb::Adopt => raw::adopt(fd, address),
        }
    }?;
    Ok(handoff.report)
}

pub(crate) fn report(device: BorrowedFd<'_>, index: u32) -> Result<Report> {
    let mut query = ReportQuery { size: size_of::<ReportQuery>(), index, report: Report::EMPTY };
    // SAFETY:
    // - The descriptor is open for as long as it is borrowed.
    // - The pointer is to a live `ReportQuery`, the structure that the number was made for, and
    //   nothing else refers to it during the call.
    unsafe { raw::report(device.as_raw_fd(), &raw mut query) }?;
    Ok(query.report)
}

/// Forwards `input` and returns the payload's result with the used length of `output`.
pub(crate) fn command(
    device: BorrowedFd<'_>,
    input: &[u8],
    output: &mut [u8],
) -> Result<(i32, usize)> {
    let length = |bytes: usize| u32::try_from(bytes).map_err(|_| Errno::E2BIG);
    let mut command = Command {
        size: size_of::<Command>(),
        result: 0,
        input: input.as_ptr() as u64,
        output: output.as_mut_ptr() as u64,
        input_bytes: length(input.len())?,
        output_bytes: length(output.len())?,
    };
    // SAFETY:
    // - The descriptor is open for as long as it is borrowed.
    // - The pointer is to a live `Command`, the structure that the number was made for, and nothing
    //   else refers to it during the call.
    // - Atom reads at most `input_bytes` from `input`, which is borrowed for the call.
    // - Atom writes at most `output_bytes` to `output`, which is borrowed exclusively for the call,
    //   and any bytes are valid there.
    unsafe { raw::command(device.as_raw_fd(), &raw mut command) }?;
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

/// Puts this thread into the lowest real-time class, or back among the ordinary ones.
pub(crate) fn set_realtime(on: bool) -> Result<()> {
    let (policy, priority) = if on { (libc::SCHED_FIFO, 1) } else { (libc::SCHED_OTHER, 0) };
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: 0 is the calling thread, and the pointer is to a live structure that is only read.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const param) };
    Errno::result(result).map(drop)
}

/// Whether this thread is in a real-time class.
#[cfg(test)]
pub(crate) fn is_realtime() -> bool {
    // SAFETY: 0 is the calling thread; the call has no other precondition.
    unsafe { libc::sched_getscheduler(0) != libc::SCHED_OTHER }
}
