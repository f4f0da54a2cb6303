// SPDX-License-Identifier: GPL-2.0

//! The layer on the kernel, and the calls from and into a payload: all `unsafe` code of Atom.
//!
//! What is here is thin: each item turns one thing of the kernel, or one thing of the boundary, into
//! something that the files outside of this folder use without `unsafe`.
//!
//! | file | one reason to exist |
//! | --- | --- |
//! | `mod.rs` | the lock, clocks, waiting, allocation scopes |
//! | `payload.rs` | a payload's table, its module, its operations |
//! | `disk.rs` | a block device: gate, slot, what is owed |
//! | `dispatch.rs` | the I/O path: how requests come to the payload, and how they end |
//! | `preserved.rs` | page stores and other objects that outlive a payload |
//! | `task.rs` | tasks: who carries out a handoff, and Atom's own |
//! | `control_device.rs` | `/dev/atom-control`: ioctl, poll, uevents |
//! | `leaving.rs` | modules that are removed by force |
//! | `exports.rs` | the functions that a payload calls |
//!
//! Three arguments carry most of the proofs:
//!
//! - **Gate.** A payload's `queue_rq`, `commit` and `timeout` are only called from `dispatch.rs`, for what a slot
//!   was seen to hold on the RCU read side while the queue was not quiesced. After [`Disk::close_gate`] on every
//!   device and one [`grace_period`] no such call begins until [`Disk::open_gate`], and none runs but a
//!   `queue_rq` or `commit` that may sleep. Those have returned when [`Disk::is_settled`] says so of every device; without that
//!   only a payload is left whose module stays for ever. A slot changes only in between, or before the disk is added.
//! - **Pin.** Operations of a payload are called through [`crate::operation::run`], which does so only
//!   while the list of payloads has a [`ModuleRef`] on its module, so the code stays. The table is Atom's copy.
//! - **Record.** The per-request record lies behind each `struct request` of a tag set that was
//!   allocated with room for it ([`Disk::create`]). What never changes in it is written when the request is allocated, and a payload
//!   writes only its scratch. It exists while the request is in flight; without an
//!   I/O scheduler, which Atom's devices do not have by default, as long as the tag set.

mod classes;
mod control_device;
mod disk;
mod dispatch;
mod exports;
mod leaving;
mod payload;
mod preserved;
mod queues;
mod task;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kernel::prelude::*;
use kernel::types::Opaque;
use kernel::{bindings, ffi};

use crate::awaited::Awaited;
use crate::state::State;

pub(crate) use control_device::{announce, ControlDevice, Reader};
pub(crate) use disk::{Disk, Owed};
pub(crate) use leaving::Leaving;
pub(crate) use payload::{ModuleRef, Payload};
pub(crate) use preserved::{Object, PageStore};
pub(crate) use task::{load_module, spawn, Task, Urgent, WATCH};

kernel::sync::global_lock! {
    /// Held for table look-ups, never while a payload runs or something waits.
    // SAFETY: `init` initialises it before anything else of Atom runs.
    pub(crate) unsafe(uninit) static STATE: Mutex<State> = State::new();
}

/// A table of C function pointers that the kernel only reads.
#[repr(transparent)]
struct Table<T>(T);

// SAFETY: The value is never written after it was initialised at compile time.
unsafe impl<T> Sync for Table<T> {}

/// Completions that were refused because their epoch did not own the request.
pub(crate) static STALE_COMPLETIONS: AtomicU64 = AtomicU64::new(0);

/// Requests that their payload has not started.
pub(crate) static HANDED_BACK: AtomicU32 = AtomicU32::new(0);

/// The errno of a payload that the negotiation refused.
pub(crate) const REFUSED: i32 = -(bindings::EPROTO as i32);
/// The errno of one who has lost the turn.
pub(crate) const OWNER_DEAD: i32 = -(bindings::EOWNERDEAD as i32);
/// The errno of one who takes one payload for another.
pub(crate) const STALE: i32 = -(bindings::ESTALE as i32);

/// Initialises what the module's data cannot. Called once, first.
pub(crate) fn init() {
    // SAFETY: The module's init runs once and before every other user.
    unsafe { STATE.init() };
    DRAIN.init();
    TURN.init();
    control_device::init();
    task::init();
}

/// Waits for what may still run in Atom's code after everything was torn down. Sleeps.
pub(crate) fn exit() {
    // SAFETY: Waits for the callbacks of `atom_page_free`, whose code is about to go.
    unsafe { bindings::rcu_barrier() };
}

/// Nanoseconds of the monotonic clock. Any context.
pub(crate) fn now_ns() -> u64 {
    // SAFETY: Has no precondition.
    u64::try_from(unsafe { bindings::ktime_get() }).unwrap_or(0)
}

fn to_jiffies(ns: u64) -> ffi::c_ulong {
    // SAFETY: Has no precondition.
    unsafe { bindings::nsecs_to_jiffies(ns) }
}

/// Waits until every dispatch that had begun has ended, or is one that may sleep and has handed its request
/// over (`synchronize_rcu_expedited`). Sleeps.
pub(crate) fn grace_period() {
    // SAFETY: Process context by the contract of the callers.
    unsafe { bindings::synchronize_rcu_expedited() };
}

/// Sleeps for a small part of a moment; cannot be killed.
pub(crate) fn instant() {
    // SAFETY: Process context by the contract of the callers.
    unsafe { bindings::usleep_range_state(20, 50, bindings::TASK_UNINTERRUPTIBLE) };
}

/// Sleeps for some moments, also when the task is being killed.
pub(crate) fn moments() {
    // SAFETY: Process context by the contract of the callers.
    unsafe { bindings::msleep(20) };
}

/// Sleeps for a moment, a jiffy. False when the task is being killed.
pub(crate) fn moment() -> bool {
    // SAFETY: Process context by the contract of the callers.
    unsafe { bindings::schedule_timeout_killable(1) <= 0 }
}

/// True when the calling task may control Atom.
pub(crate) fn may_control() -> bool {
    // SAFETY: Has no precondition in process context.
    unsafe { bindings::capable(bindings::CAP_SYS_ADMIN as ffi::c_int) }
}

/// False when an oops has killed a task since the machine was started.
pub(crate) fn all_tasks_live() -> bool {
    // SAFETY: Has no precondition.
    unsafe { bindings::test_taint(bindings::TAINT_DIE) == 0 }
}

/// While it exists, what the calling task allocates does not wait for I/O: I/O may be what is held.
pub(crate) struct NoIo {
    before: u32,
}

impl NoIo {
    /// Begins the scope; scopes nest (`memalloc_noio_save` of `linux/sched/mm.h`).
    pub(crate) fn enter() -> Self {
        // SAFETY: A task's flags are written by that task only, and this is the current one.
        let flags = unsafe { &mut (*bindings::get_current()).flags };
        let before = *flags & bindings::PF_MEMALLOC_NOIO;
        *flags |= bindings::PF_MEMALLOC_NOIO;
        Self { before }
    }
}

impl Drop for NoIo {
    fn drop(&mut self) {
        // SAFETY: As in `enter`; the value is a local of one task and never sent to another.
        let flags = unsafe { &mut (*bindings::get_current()).flags };
        *flags = (*flags & !bindings::PF_MEMALLOC_NOIO) | self.before;
    }
}

/// Something that tasks wait for, for a while at a time.
pub(crate) struct Signal(Opaque<bindings::completion>);

// SAFETY: The completion has its own lock.
unsafe impl Sync for Signal {}

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Somebody called.
    Called,
    /// The time is over.
    Late,
    /// The task is being killed.
    Killed,
}

impl Signal {
    const fn new() -> Self {
        Self(Opaque::uninit())
    }

    fn init(&self) {
        // SAFETY: Called from `init` only, before anybody uses it.
        unsafe { bindings::init_completion(self.0.get()) };
    }

    /// Wakes one who waits, or the next one who will. Any context.
    #[inline]
    pub(crate) fn call(&self) {
        // SAFETY: Initialised in `init`.
        unsafe { bindings::complete(self.0.get()) };
    }

    /// Forgets calls that nobody has waited for.
    pub(crate) fn clear(&self) {
        // SAFETY: Initialised in `init`; takes one call at a time and does not wait.
        while unsafe { bindings::try_wait_for_completion(self.0.get()) } {}
    }

    /// Waits for a call for at most so long, rounded up to jiffies; can be killed. Sleeps.
    pub(crate) fn wait(&self, ns: u64) -> Woken {
        // SAFETY: Initialised in `init`; process context. One jiffy more, so that it never rounds to 0.
        let remains = unsafe {
            bindings::wait_for_completion_killable_timeout(
                self.0.get(),
                to_jiffies(ns).saturating_add(1),
            )
        };
        match remains {
            0 => Woken::Late,
            left if left > 0 => Woken::Called,
            _ => Woken::Killed,
        }
    }

    /// The same for one of Atom's own tasks, which wait for long and are never killed.
    fn wait_idly(&self, ns: u64) {
        let jiffies = to_jiffies(ns).saturating_add(1).min(ffi::c_long::MAX as ffi::c_ulong);
        // SAFETY: As in `wait`.
        unsafe { bindings::wait_for_completion_interruptible_timeout(self.0.get(), jiffies) };
    }
}

/// Somebody who waited for his turn may look again.
pub(crate) static TURN: Signal = Signal::new();

static DRAIN: Signal = Signal::new();
static DRAIN_AWAITED: Awaited = Awaited::no();

/// The one task that waits for requests to end; it has the turn.
pub(crate) struct DrainWaiter;

impl DrainWaiter {
    /// From here on each request that ends wakes the waiter.
    pub(crate) fn new() -> Self {
        DRAIN.clear();
        DRAIN_AWAITED.begin();
        Self
    }

    /// Waits for the next request to end.
    pub(crate) fn wait(&mut self, ns: u64) -> Woken {
        DRAIN.wait(ns)
    }
}

impl Drop for DrainWaiter {
    fn drop(&mut self) {
        DRAIN_AWAITED.end();
    }
}

/// A request has ended: says so, if somebody waits. Any context.
#[inline]
fn request_ended() {
    if DRAIN_AWAITED.is_awaited() {
        DRAIN.call();
    }
}

/// Counts a completion that was refused.
fn stale_completion() {
    STALE_COMPLETIONS.fetch_add(1, Ordering::Relaxed);
}
