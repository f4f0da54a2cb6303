// SPDX-License-Identifier: GPL-2.0

//! A test variant with a file and a socket that outlive it: a block device opened for itself alone, and
//! a TCP connection. Atom keeps both; the variant that adopts next claims and uses them.
//!
//! Nothing in them leads into the payload: the holder of the block device is a number, it has no holder
//! operations, and the socket has the callbacks that the kernel gave it.

use core::ffi::c_void;
use core::mem::size_of;
use core::ptr::{addr_of_mut, null, null_mut};

use kernel::bindings;
use kernel::error::{from_err_ptr, to_result};
use kernel::prelude::*;
use kernel::str::CString;
use kernel::time::{delay::fsleep, Delta};

use crate::abi::calls;
use crate::abi::device::object;
use crate::abi::text::Text;
use crate::abi::version::caps;
use crate::answers::{encode_done, Probed};
use crate::commands::errno;
use crate::fault::Points;
use crate::protocol::Command;
use crate::state::Import;

const FILE_KEY: u64 = 1;
const SOCKET_KEY: u64 = 2;

/// Who holds the block device: never followed, and no address of the payload.
const HOLDER: usize = 0x6174_6f6d;

// `BLK_OPEN_*`, `O_NONBLOCK`, `MSG_NOSIGNAL` and `IPPROTO_TCP`, which the kernel crate does not bind
// (`include/linux/blkdev.h`, `include/uapi/asm-generic/fcntl.h`, `include/linux/socket.h`,
// `include/uapi/linux/in.h`).
const OPEN_READ: bindings::blk_mode_t = 1 << 0;
const OPEN_WRITE: bindings::blk_mode_t = 1 << 1;
const NONBLOCK: i32 = 0o4000;
const NOSIGNAL: u32 = 0x4000;
const TCP: i32 = 6;

/// How often something that does not wait is tried, once each millisecond.
const TRIES: usize = 2000;

/// What Atom keeps; null for what it does not.
struct Kept {
    file: *mut bindings::file,
    socket: *mut bindings::socket,
}

// SAFETY: Files and sockets of the kernel may be used from all threads.
unsafe impl Send for Kept {}

impl Kept {
    const NONE: Self = Self { file: null_mut(), socket: null_mut() };
}

kernel::sync::global_lock! {
    // SAFETY: `init` initialises it before Atom knows the payload.
    unsafe(uninit) static KEPT: Mutex<Kept> = Kept::NONE;
}

pub(crate) struct Keeper;

impl Points for Keeper {
    const REQUIRES: u64 = caps::PRESERVED_OBJECTS;

    fn init() {
        // SAFETY: The module's init runs once, and nothing else runs before Atom knows the payload.
        unsafe { KEPT.init() };
    }

    fn adopted(_image: Option<&Import<'_>>) -> Result {
        let file = claim(FILE_KEY, object::FILE)?.cast();
        let socket = claim(SOCKET_KEY, object::SOCKET)?.cast();
        *KEPT.lock() = Kept { file, socket };
        Ok(())
    }

    fn abandoned() {
        *KEPT.lock() = Kept::NONE;
    }

    fn command(command: &Command<'_>, output: &mut [u8]) -> Result<usize> {
        match command {
            Command::Keep { path, port } => {
                keep(&mut KEPT.lock(), path, *port)?;
                encode_done(output).map_err(errno)
            }
            Command::Probe { byte } => probe(&KEPT.lock(), *byte)?.encode(output).map_err(errno),
            Command::Drop => {
                release(&mut KEPT.lock())?;
                encode_done(output).map_err(errno)
            }
            _ => Err(EINVAL),
        }
    }
}

/// Null when there is none.
fn claim(key: u64, kind: u32) -> Result<*mut c_void> {
    let mut found = null_mut();
    // SAFETY: `found` is valid for the call.
    match to_result(unsafe { calls::atom_object_claim(key, kind, &mut found) }) {
        Ok(()) => Ok(found),
        Err(error) if error == ENOENT => Ok(null_mut()),
        Err(error) => Err(error),
    }
}

/// Errors: `EBUSY` when both are there already, and those of opening and connecting.
fn keep(kept: &mut Kept, path: &Text, port: u16) -> Result {
    if !kept.file.is_null() || !kept.socket.is_null() {
        return Err(EBUSY);
    }
    let file = open(path)?;
    // SAFETY: It is a file, its reference is ours, and nothing in it leads into the payload.
    let kept_file = unsafe { calls::atom_object_preserve(FILE_KEY, object::FILE, file.cast()) };
    to_result(kept_file).inspect_err(|_| {
        // SAFETY: The reference is still ours.
        unsafe { bindings::fput(file) };
    })?;
    kept.file = file;
    connect(port)
        .and_then(|socket| {
            // SAFETY: It is a socket, its reference is ours, and nothing in it leads into the payload.
            let kept_socket =
                unsafe { calls::atom_object_preserve(SOCKET_KEY, object::SOCKET, socket.cast()) };
            to_result(kept_socket).inspect_err(|_| {
                // SAFETY: The reference is still ours.
                unsafe { bindings::sock_release(socket) };
            })?;
            kept.socket = socket;
            Ok(())
        })
        .inspect_err(|_| {
            if let Err(error) = release(kept) {
                pr_err!("the file was not released: error {}\n", error.to_errno());
            }
        })
}

/// Has Atom release what it keeps.
fn release(kept: &mut Kept) -> Result {
    if !core::mem::replace(&mut kept.socket, null_mut()).is_null() {
        // SAFETY: Has no precondition; the socket is used no more.
        to_result(unsafe { calls::atom_object_release(SOCKET_KEY, object::SOCKET) })?;
    }
    if !core::mem::replace(&mut kept.file, null_mut()).is_null() {
        // SAFETY: Has no precondition; the file is used no more.
        to_result(unsafe { calls::atom_object_release(FILE_KEY, object::FILE) })?;
    }
    Ok(())
}

/// Opens a block device for reading and writing, for this holder alone.
fn open(path: &Text) -> Result<*mut bindings::file> {
    let path = CString::try_from_fmt(fmt!("{}", path.as_str()))?;
    let holder = core::ptr::without_provenance_mut(HOLDER);
    // SAFETY: The path is valid for the call, the holder is never followed, and there are no operations.
    from_err_ptr(unsafe {
        bindings::bdev_file_open_by_path(path.as_char_ptr(), OPEN_READ | OPEN_WRITE, holder, null())
    })
}

/// Connects to a port of 127.0.0.1.
fn connect(port: u16) -> Result<*mut bindings::socket> {
    let mut socket = null_mut();
    // SAFETY: The first network namespace is always there, and `socket` is valid for the call.
    to_result(unsafe {
        bindings::sock_create_kern(
            addr_of_mut!(bindings::init_net),
            bindings::AF_INET as i32,
            bindings::sock_type_SOCK_STREAM as i32,
            TCP,
            &mut socket,
        )
    })?;
    let [high, low] = port.to_be_bytes();
    let mut address = bindings::sockaddr {
        sa_family: bindings::AF_INET as u16,
        sa_data: [high, low, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    };
    let outcome = retried(|| {
        // SAFETY: The socket is ours, and the address is as long as is said.
        let result = unsafe {
            bindings::kernel_connect(
                socket,
                (&raw mut address).cast(),
                size_of::<bindings::sockaddr>() as i32,
                NONBLOCK,
            )
        };
        match result.unsigned_abs() {
            bindings::EINPROGRESS | bindings::EALREADY => None,
            bindings::EISCONN => Some(Ok(())),
            _ => Some(to_result(result)),
        }
    });
    if let Err(error) = outcome {
        // SAFETY: The socket is ours, and nobody uses it any more.
        unsafe { bindings::sock_release(socket) };
        return Err(error);
    }
    Ok(socket)
}

/// Tries until there is an outcome. Sleeps. Errors: `ETIMEDOUT`.
fn retried<T>(mut step: impl FnMut() -> Option<Result<T>>) -> Result<T> {
    for _ in 0..TRIES {
        if let Some(outcome) = step() {
            return outcome;
        }
        fsleep(Delta::from_millis(1));
    }
    Err(ETIMEDOUT)
}

/// Sends a byte, receives one, and reads the start of the block device.
///
/// Errors: `ENOENT` when nothing is kept, `EPIPE` for a connection that was closed, `ETIMEDOUT`.
fn probe(kept: &Kept, byte: u8) -> Result<Probed> {
    if kept.file.is_null() || kept.socket.is_null() {
        return Err(ENOENT);
    }
    let mut message = empty_message();
    message.msg_flags = bindings::MSG_DONTWAIT | NOSIGNAL;
    let mut sent = byte;
    let mut buffer = bindings::kvec { iov_base: (&raw mut sent).cast(), iov_len: 1 };
    // SAFETY: Atom keeps the socket, and all pointers are valid for the call.
    let length = unsafe { bindings::kernel_sendmsg(kept.socket, &mut message, &mut buffer, 1, 1) };
    if length != 1 {
        return Err(to_result(length).err().unwrap_or(EPIPE));
    }
    let byte = receive(kept.socket)?;
    let mut first = [0u8; 8];
    let mut at: bindings::loff_t = 0;
    // SAFETY: Atom keeps the file, and the buffer is as long as is said.
    let length = unsafe {
        bindings::kernel_read(kept.file, first.as_mut_ptr().cast(), first.len(), &mut at)
    };
    if length != first.len() as isize {
        return Err(to_result(length as i32).err().unwrap_or(EIO));
    }
    Ok(Probed { port: local_port(kept.socket)?, byte, first })
}

/// A message without a name and without control data.
fn empty_message() -> bindings::msghdr {
    // SAFETY: All fields are numbers and pointers, for which zero is a value.
    unsafe { core::mem::zeroed() }
}

fn receive(socket: *mut bindings::socket) -> Result<u8> {
    retried(|| {
        let mut message = empty_message();
        let mut received = 0u8;
        let mut buffer = bindings::kvec { iov_base: (&raw mut received).cast(), iov_len: 1 };
        // SAFETY: Atom keeps the socket, and all pointers are valid for the call.
        let length = unsafe {
            bindings::kernel_recvmsg(
                socket,
                &mut message,
                &mut buffer,
                1,
                1,
                bindings::MSG_DONTWAIT as i32,
            )
        };
        match length {
            1 => Some(Ok(received)),
            0 => Some(Err(EPIPE)),
            error if error.unsigned_abs() == bindings::EAGAIN => None,
            error => Some(Err(Error::from_errno(error))),
        }
    })
}

fn local_port(socket: *mut bindings::socket) -> Result<u16> {
    let mut address = bindings::sockaddr::default();
    // SAFETY: Atom keeps the socket, and an address of IPv4 is as long as the structure.
    let length = unsafe { bindings::kernel_getsockname(socket, &mut address) };
    to_result(length.min(0))?;
    let [high, low, ..] = address.sa_data;
    Ok(u16::from_be_bytes([high, low]))
}
