// SPDX-License-Identifier: GPL-2.0

//! Tasks: who carries out a handoff, and Atom's own.

use core::ptr::{addr_of, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};

use kernel::prelude::*;
use kernel::str::CString;
use kernel::{bindings, ffi};

use super::Signal;
use crate::abi::text::Text;
use crate::watch;

/// A task, which stays known after its end.
pub(crate) struct Task(*mut bindings::task_struct);

// SAFETY: References on a task are counted by the kernel, whoever gives them back.
unsafe impl Send for Task {}

impl Task {
    /// The calling one.
    pub(crate) fn current() -> Self {
        // SAFETY: The current task exists; the reference is taken here.
        unsafe {
            let task = bindings::get_current();
            bindings::get_task_struct(task);
            Self(task)
        }
    }

    /// True for the calling one.
    pub(crate) fn is_current(&self) -> bool {
        // SAFETY: Has no precondition; only the addresses are compared.
        self.0 == unsafe { bindings::get_current() }
    }

    /// True when it runs no code any more but that of its own end: an operation of a payload killed it.
    pub(crate) fn is_gone(&self) -> bool {
        // SAFETY: The reference keeps the memory; the flags are a number that the task writes.
        unsafe { addr_of!((*self.0).flags).read_volatile() & bindings::PF_EXITING != 0 }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // SAFETY: Gives back the reference that came with `self`.
        unsafe { bindings::put_task_struct(self.0) };
    }
}

/// While it exists, the calling task goes before all ordinary ones (`SCHED_FIFO`, lowest priority): on a busy machine a
/// handoff would otherwise wait its turn with the gates closed. While the drain waits, the task sleeps and costs nothing.
pub(crate) struct Urgent {
    nice: ffi::c_int,
}

impl Urgent {
    /// Begins it; `None` for a task that is not scheduled as an ordinary one. Process context; no `STATE` is held.
    pub(crate) fn enter() -> Option<Self> {
        // SAFETY: A task's own policy and priority are numbers, which somebody else may change at any time.
        let (policy, priority) = unsafe {
            let task = bindings::get_current();
            (
                addr_of!((*task).policy).read_volatile(),
                addr_of!((*task).static_prio).read_volatile(),
            )
        };
        if policy != bindings::SCHED_NORMAL {
            return None;
        }
        // SAFETY: The current task exists.
        unsafe { bindings::sched_set_fifo_low(bindings::get_current()) };
        // `PRIO_TO_NICE` of `linux/sched/prio.h`.
        Some(Self { nice: priority.saturating_sub(120) })
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        // SAFETY: The current task exists; the value is a local of one task and never sent to another.
        unsafe { bindings::sched_set_normal(bindings::get_current(), self.nice) };
    }
}

/// Atom's own task, which does what must work when the tool has died.
pub(crate) struct Watch {
    task: AtomicPtr<bindings::task_struct>,
    woken: Signal,
}

/// The one there is.
pub(crate) static WATCH: Watch = Watch { task: AtomicPtr::new(null_mut()), woken: Signal::new() };

pub(super) fn init() {
    WATCH.woken.init();
}

impl Watch {
    /// Starts the task. Sleeps.
    pub(crate) fn start(&self) -> Result {
        let task = create(run_watch, 0, c"atom-watch")?;
        // SAFETY: The task was created just now and has not run; the reference is for `stop`.
        unsafe {
            bindings::get_task_struct(task);
            self.task.store(task, Ordering::Release);
            bindings::wake_up_process(task);
        }
        Ok(())
    }

    /// Lets it look again.
    pub(crate) fn wake(&self) {
        self.woken.call();
    }

    /// Ends it and waits for its end. Sleeps.
    pub(crate) fn stop(&self) {
        let task = self.task.swap(null_mut(), Ordering::AcqRel);
        if task.is_null() {
            return;
        }
        // SAFETY: The reference of `start` keeps the task; `kthread_stop` wakes it, and its wait ends then.
        unsafe {
            bindings::kthread_stop(task);
            bindings::put_task_struct(task);
        }
    }
}

/// Creates a task of the kernel that has not run yet. Sleeps.
fn create(
    entry: unsafe extern "C" fn(*mut ffi::c_void) -> ffi::c_int,
    argument: usize,
    name: &'static CStr,
) -> Result<*mut bindings::task_struct> {
    // SAFETY: The name has no directive of a format; the argument is a number.
    kernel::error::from_err_ptr(unsafe {
        bindings::kthread_create_on_node(
            Some(entry),
            argument as *mut ffi::c_void,
            bindings::NUMA_NO_NODE,
            name.as_char_ptr(),
        )
    })
}

/// Context: process, a task of its own.
///
/// # Safety
///
/// For [`Watch::start`] only.
unsafe extern "C" fn run_watch(_argument: *mut ffi::c_void) -> ffi::c_int {
    // SAFETY: Has no precondition in a task of the kernel.
    while !unsafe { bindings::kthread_should_stop() } {
        WATCH.woken.wait_idly(watch::look());
    }
    0
}

/// Has a task of its own carry out what the watch has decided, so that the watch goes on watching. The task
/// holds a reference on Atom's module until it has ended. Sleeps.
pub(crate) fn spawn(action: watch::Deed) -> Result {
    // I/O may be held.
    let _no_io = super::NoIo::enter();
    // SAFETY: Atom's code runs, so its module can be had; given back by `module_put_and_kthread_exit`.
    if !unsafe { bindings::try_module_get(crate::THIS_MODULE.as_ptr()) } {
        return Err(ENODEV);
    }
    let task = create(run_deed, action.to_number(), c"atom-deed").inspect_err(|_| {
        // SAFETY: Gives back the reference from above.
        unsafe { bindings::module_put(crate::THIS_MODULE.as_ptr()) };
    })?;
    // SAFETY: The task was created just now and has not run.
    unsafe { bindings::wake_up_process(task) };
    Ok(())
}

/// Context: process, a task of its own.
///
/// # Safety
///
/// For [`spawn`] only.
unsafe extern "C" fn run_deed(argument: *mut ffi::c_void) -> ffi::c_int {
    watch::carry_out(watch::Deed::from_number(argument as usize));
    // SAFETY: Gives back the reference of `spawn` and does not return, so nothing of Atom runs after it.
    unsafe { bindings::__module_put_and_kthread_exit(crate::THIS_MODULE.as_ptr(), 0) }
}

/// Has the kernel load a module (`modprobe`), and waits for it. Returns what the helper said. Sleeps.
pub(crate) fn load_module(name: &Text) -> Result<i32> {
    let name = CString::try_from_fmt(fmt!("{name}"))?;
    // SAFETY: Format and argument are strings that end with zero.
    Ok(unsafe { bindings::__request_module(true, c"%s".as_char_ptr(), name.as_char_ptr()) })
}
