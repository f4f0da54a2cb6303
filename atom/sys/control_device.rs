// SPDX-License-Identifier: GPL-2.0

//! `/dev/atom-control`: the file operations, and what Atom says by itself.

use core::ptr::{addr_of, addr_of_mut, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use kernel::prelude::*;
use kernel::str::CString;
use kernel::transmute::{AsBytes, FromBytes};
use kernel::types::Opaque;
use kernel::uaccess::UserPtr;
use kernel::{bindings, ffi};

use crate::control;

/// The misc device.
#[pin_data(PinnedDrop)]
pub(crate) struct ControlDevice {
    #[pin]
    misc: Opaque<bindings::miscdevice>,
}

// SAFETY: The misc device is the kernel's and has its own lock.
unsafe impl Send for ControlDevice {}
// SAFETY: As above.
unsafe impl Sync for ControlDevice {}

static CONTROL_OPS: super::Table<bindings::file_operations> =
    super::Table(bindings::file_operations {
        // Set here because the kernel crate's misc device leaves it out: an open file must pin the code.
        owner: crate::THIS_MODULE.as_ptr(),
        open: Some(open),
        poll: Some(poll),
        unlocked_ioctl: Some(ioctl),
        ..pin_init::zeroed()
    });

/// Those who wait for the next event.
struct Pollers(Opaque<bindings::wait_queue_head>);

// SAFETY: The queue has its own lock.
unsafe impl Sync for Pollers {}

static POLLERS: Pollers = Pollers(Opaque::uninit());

/// The events that there have been.
static EVENTS: AtomicU64 = AtomicU64::new(0);

/// The device in sysfs, for uevents; null while there is none.
static DEVICE: AtomicPtr<bindings::device> = AtomicPtr::new(null_mut());

pub(super) fn init() {
    let class = kernel::static_lock_class!();
    // SAFETY: Called from `init` only, before anybody uses it; name and class are static.
    unsafe {
        bindings::__init_waitqueue_head(
            POLLERS.0.get(),
            c"atom_pollers".as_char_ptr(),
            class.as_ptr(),
        );
    }
}

impl ControlDevice {
    pub(crate) fn register() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            misc <- Opaque::try_ffi_init(|slot: *mut bindings::miscdevice| {
                // SAFETY: The slot is valid for writes and pinned; name and table are static.
                unsafe {
                    slot.write(pin_init::zeroed());
                    (*slot).minor = bindings::MISC_DYNAMIC_MINOR as ffi::c_int;
                    (*slot).name = c"atom-control".as_char_ptr();
                    (*slot).fops = addr_of!(CONTROL_OPS.0);
                    (*slot).mode = 0o600;
                    kernel::error::to_result(bindings::misc_register(slot))
                        .inspect(|()| DEVICE.store((*slot).this_device, Ordering::Release))
                }
            }),
        })
    }
}

#[pinned_drop]
impl PinnedDrop for ControlDevice {
    fn drop(self: Pin<&mut Self>) {
        DEVICE.store(null_mut(), Ordering::Release);
        // SAFETY: It was registered when `self` came to be.
        unsafe { bindings::misc_deregister(self.misc.get()) };
    }
}

/// Tells everybody that something has happened: those who poll, and by a uevent those who listen to the
/// kernel. `what` are lines `NAME=value`. Sleeps; Atom's module is not being unloaded.
pub(crate) fn announce(what: &[kernel::fmt::Arguments<'_>]) {
    // I/O may be held.
    let _no_io = super::NoIo::enter();
    EVENTS.fetch_add(1, Ordering::SeqCst);
    // SAFETY: Initialised in `init`.
    unsafe {
        bindings::__wake_up(POLLERS.0.get(), bindings::TASK_NORMAL, 0, null_mut());
    }
    const MOST: usize = 6;
    let mut lines: [Option<CString>; MOST] = [const { None }; MOST];
    let mut environment: [*mut ffi::c_char; MOST + 1] = [null_mut(); MOST + 1];
    for ((line, place), what) in lines.iter_mut().zip(environment.iter_mut()).zip(what) {
        // A line without memory ends the list; who listens asks for the status anyway.
        let Ok(text) = CString::try_from_fmt(*what) else {
            break;
        };
        *place = text.as_char_ptr().cast_mut();
        *line = Some(text);
    }
    let device = DEVICE.load(Ordering::Acquire);
    if device.is_null() {
        return;
    }
    // SAFETY: The device is registered until Atom's module goes; the list ends with null.
    unsafe {
        bindings::kobject_uevent_env(
            addr_of_mut!((*device).kobj),
            bindings::kobject_action_KOBJ_CHANGE,
            environment.as_mut_ptr(),
        );
    }
}

/// Events so far.
pub(crate) fn events() -> u64 {
    EVENTS.load(Ordering::SeqCst)
}

/// An open file of the control device, as an ioctl sees it.
pub(crate) struct Reader {
    file: *mut bindings::file,
}

impl Reader {
    /// Events so far, which `poll` on this file does not tell of again.
    pub(crate) fn note_events(&self) -> u64 {
        let events = events();
        // SAFETY: The file is open; its private data is a number of ours, see `open`.
        unsafe {
            addr_of_mut!((*self.file).private_data).write_volatile(events as *mut ffi::c_void)
        };
        events
    }
}

/// Context: process.
///
/// # Safety
///
/// For the file system layer only.
unsafe extern "C" fn open(_inode: *mut bindings::inode, file: *mut bindings::file) -> ffi::c_int {
    // The misc device has put its own pointer there; here it is the number of events that were seen.
    Reader { file }.note_events();
    0
}

/// Readable when there were events since this file's last status. Context: process.
///
/// # Safety
///
/// For the file system layer only.
unsafe extern "C" fn poll(
    file: *mut bindings::file,
    table: *mut bindings::poll_table_struct,
) -> bindings::__poll_t {
    // SAFETY: The file layer passes an open file and null or a table, whose function takes these arguments
    // (`poll_wait` of `linux/poll.h`).
    unsafe {
        if let Some(wait_on) = table.as_ref().and_then(|table| table._qproc) {
            wait_on(file, POLLERS.0.get(), table);
        }
        let seen = addr_of!((*file).private_data).read_volatile() as u64;
        match events() == seen {
            true => 0,
            false => bindings::POLLIN,
        }
    }
}

/// Context: process.
///
/// # Safety
///
/// For the file system layer only.
unsafe extern "C" fn ioctl(
    file: *mut bindings::file,
    command: ffi::c_uint,
    argument: ffi::c_ulong,
) -> ffi::c_long {
    match control::dispatch(&Reader { file }, command, UserPtr::from_addr(argument)) {
        Ok(()) => 0,
        Err(error) => error.to_errno() as ffi::c_long,
    }
}

/// The structures of the control interface are plain numbers: any bits are a value.
macro_rules! plain {
    ($($name:ident),+) => {$(
        // SAFETY: `repr(C)` integers and byte arrays, for which any bits are a value.
        unsafe impl FromBytes for crate::abi::control::$name {}
        // SAFETY: As above; a test of the ABI crate holds that there is no padding.
        unsafe impl AsBytes for crate::abi::control::$name {}
    )+};
}
plain!(Status, PayloadInfo, DeviceInfo, Handoff, Command, ReportQuery, Settings, Commit);
