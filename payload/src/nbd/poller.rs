// SPDX-License-Identifier: GPL-2.0

//! The threads that receive, reconnect and keep time: a fixed number for all NBD targets.
//!
//! Each connection belongs to one of them for life. A thread goes over its connections when it was woken or
//! when something is due, and sleeps otherwise. With `socket.rs` all `unsafe` code of the NBD client.
//!
//! Two arguments carry the proofs:
//!
//! - **Thread.** A poller's task exists from [`start`] until [`stop`] has ended all of them, because [`start`] takes
//!   a reference on it. [`start`] and [`stop`] are called one at a time, under the lock of the table of volumes, and
//!   nobody wakes a poller outside of that time: whoever does is another poller, which has ended before the
//!   reference goes, or has a connection, and [`stop`] is called when no request is served any more, and silences
//!   every socket.
//! - **Asleep.** A sleeper says that it sleeps, then looks whether it was woken, then sleeps; a waker leaves word
//!   first and then wakes. All of it is sequentially consistent, so one of them sees the other.

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use kernel::bindings;
use kernel::error::from_err_ptr;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::{delay::fsleep, Delta};

use super::rules::earlier;
use super::socket::extra;
use super::target::Target;
use crate::flight::now_ns;

/// Most threads.
const MOST: usize = 4;
/// The nice value of the threads: that of the kernel's workers for what does not wait, which receive for its own client
/// (`HIGHPRI_NICE_LEVEL` in `kernel/workqueue.c`, `nbd_start_device` in `drivers/block/nbd.c`).
const NICE: kernel::ffi::c_long = -20;
/// How long a poller may take to park: a pass over its connections never waits, so this is only reached on a
/// machine that is stuck.
const PARK_ROUNDS: usize = 100_000;
const PARK_ROUND_US: i64 = 20;

/// A thread, or the place for one.
pub(super) struct Poller {
    index: usize,
    task: AtomicPtr<bindings::task_struct>,
    woken: AtomicBool,
    /// How often it was asked to park or to go on; odd: to park.
    asked: AtomicU32,
    /// The last of these that it has done.
    done: AtomicU32,
    /// Whether it has connections, as of change `seen` of the targets.
    busy: AtomicBool,
    seen: AtomicU32,
}

static POLLERS: [Poller; MOST] = [Poller::new(0), Poller::new(1), Poller::new(2), Poller::new(3)];
/// How many run.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
/// Counts changes of [`TARGETS`].
static CHANGES: AtomicU32 = AtomicU32::new(0);
/// Whether [`TARGETS`] was initialised.
static READY: AtomicBool = AtomicBool::new(false);

kernel::sync::global_lock! {
    /// The targets that are served.
    // SAFETY: `start` initialises it before anybody uses it.
    unsafe(uninit) static TARGETS: Mutex<KVec<Arc<Target>>> = KVec::new();
}

impl Poller {
    const fn new(index: usize) -> Self {
        Self {
            index,
            task: AtomicPtr::new(null_mut()),
            woken: AtomicBool::new(false),
            asked: AtomicU32::new(0),
            done: AtomicU32::new(0),
            busy: AtomicBool::new(false),
            seen: AtomicU32::new(0),
        }
    }

    /// Whether it has nothing to let go of, and so need not be waited for. Only while no targets come.
    fn is_idle(&self) -> bool {
        let current = self.seen.load(Ordering::SeqCst) == CHANGES.load(Ordering::SeqCst);
        current && !self.busy.load(Ordering::SeqCst)
    }

    /// Tells what it has by now.
    fn tell(&self, known: &Known) {
        let mut busy = false;
        known.each(self.index, |_, _| busy = true);
        // In this order: who sees the change sees what it is about.
        self.busy.store(busy, Ordering::SeqCst);
        self.seen.store(known.change, Ordering::SeqCst);
    }

    /// Wakes the thread, if there is one. Any context. Who finds word left before has nothing to do: the thread takes
    /// word before it looks, and whoever left it wakes.
    pub(super) fn wake(&self) {
        if self.woken.swap(true, Ordering::SeqCst) {
            return;
        }
        let task = self.task.load(Ordering::SeqCst);
        if !task.is_null() {
            // SAFETY: *Thread*.
            unsafe { bindings::wake_up_process(task) };
        }
    }

    /// Asks it to park or to go on, if it was not asked for that last. Only one task is here at a time.
    fn ask(&self, parks: bool) {
        if is_park(self.asked.load(Ordering::SeqCst)) != parks {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.wake();
        }
    }

    /// Sleeps until it is woken or a point in time has come.
    fn sleep(&self, until_ns: Option<u64>) {
        let timeout = until_ns.map_or(extra::ATOM_NO_TIMEOUT, |until| {
            let left_ms = until.saturating_sub(now_ns()).div_ceil(1_000_000).min(3_600_000);
            let jiffies = kernel::time::msecs_to_jiffies(left_ms as u32);
            isize::try_from(jiffies).unwrap_or(extra::ATOM_NO_TIMEOUT).max(1)
        });
        // SAFETY: *Asleep*. A task sets its own state; others only set it to running, as the atomic allows.
        unsafe {
            let state = AtomicU32::from_ptr(&raw mut (*bindings::get_current()).__state);
            state.store(extra::ATOM_TASK_IDLE, Ordering::SeqCst);
            if !self.woken.load(Ordering::SeqCst) && !bindings::kthread_should_stop() {
                bindings::schedule_timeout(timeout);
            }
            state.store(extra::ATOM_TASK_RUNNING, Ordering::SeqCst);
        }
    }

    /// What the thread does until it is stopped.
    fn run(&self) {
        let mut known = Known::default();
        let mut done = 0u32;
        // What it allocates must not wait for I/O, which may be its own.
        // SAFETY: A task's flags are changed by itself only.
        unsafe { (*bindings::get_current()).flags |= bindings::PF_MEMALLOC_NOIO };
        // SAFETY: It is a kernel thread.
        while !unsafe { bindings::kthread_should_stop() } {
            self.woken.swap(false, Ordering::SeqCst);
            let asked = self.asked.load(Ordering::SeqCst);
            // What could not be looked at now is looked at soon.
            let mut due = if known.refresh() { None } else { Some(now_ns()) };
            self.tell(&known);
            let parks = is_park(asked);
            if parks != is_park(done) {
                known.each(self.index, |target, connection| target.silence(connection, parks));
            }
            done = asked;
            self.done.store(done, Ordering::SeqCst);
            if !parks {
                known.each(self.index, |target, connection| {
                    due = earlier(due, target.service(connection, now_ns()));
                });
            }
            self.sleep(due);
        }
        known.each(self.index, |target, connection| target.silence(connection, true));
    }
}

/// The targets as a poller has seen them last.
#[derive(Default)]
struct Known {
    change: u32,
    targets: KVec<Arc<Target>>,
}

impl Known {
    /// Looks whether targets have come or gone. False when it could not, because there is no memory or somebody
    /// has the list, who may wait for memory and so for a poller; it then goes on with what it knows, and what has
    /// gone serves nothing.
    fn refresh(&mut self) -> bool {
        let change = CHANGES.load(Ordering::SeqCst);
        if change == self.change {
            return true;
        }
        let Some(targets) = TARGETS.try_lock() else {
            return false;
        };
        let mut fresh = KVec::new();
        if fresh.reserve(targets.len(), GFP_KERNEL).is_err() {
            return false;
        }
        for target in targets.iter() {
            // There is room: it was reserved just now.
            let _ = fresh.push_within_capacity(target.clone());
        }
        drop(targets);
        self.targets = fresh;
        self.change = change;
        true
    }

    /// Calls `visit` for the connections of a poller.
    fn each(&self, poller: usize, mut visit: impl FnMut(&Target, usize)) {
        for target in &self.targets {
            for index in 0..target.connections() {
                if target.poller(index).index == poller {
                    visit(target, index);
                }
            }
        }
    }
}

/// The function of the threads.
///
/// # Safety
///
/// `poller` must be one of [`POLLERS`].
unsafe extern "C" fn thread(poller: *mut c_void) -> c_int {
    // SAFETY: By the contract of this function: it is a static.
    unsafe { &*poller.cast_const().cast::<Poller>() }.run();
    0
}

/// The poller for a number: the same one for as long as they run.
pub(super) fn choose(number: usize) -> &'static Poller {
    let running = RUNNING.load(Ordering::SeqCst).clamp(1, MOST);
    POLLERS.get(number.checked_rem(running).unwrap_or(0)).unwrap_or(&POLLERS[0])
}

/// Starts the threads, if they do not run. Only under the lock of the table of volumes. Sleeps.
pub(super) fn start() -> Result {
    if !READY.swap(true, Ordering::SeqCst) {
        // SAFETY: It is done once, and nothing uses it before the first start.
        unsafe { TARGETS.init() };
    }
    if RUNNING.load(Ordering::SeqCst) != 0 {
        return Ok(());
    }
    // SAFETY: It is a number that changes when processors come and go; any value of it is right.
    let online = unsafe { (&raw const bindings::__num_online_cpus).read_volatile() }.counter;
    let online = usize::try_from(online).unwrap_or(1);
    for poller in POLLERS.iter().take(online.clamp(1, MOST)) {
        poller.woken.store(false, Ordering::SeqCst);
        poller.asked.store(0, Ordering::SeqCst);
        poller.done.store(0, Ordering::SeqCst);
        poller.busy.store(false, Ordering::SeqCst);
        poller.seen.store(CHANGES.load(Ordering::SeqCst), Ordering::SeqCst);
        // SAFETY: The poller is a static, and the format fits its argument.
        let task = from_err_ptr(unsafe {
            bindings::kthread_create_on_node(
                Some(thread),
                core::ptr::from_ref(poller).cast_mut().cast(),
                bindings::NUMA_NO_NODE,
                c"atom-nbd/%d".as_char_ptr(),
                poller.index as c_int,
            )
        })
        .inspect_err(|_| stop())?;
        // SAFETY: It was created just now and has not run yet. `stop` puts the reference.
        unsafe {
            bindings::get_task_struct(task);
            bindings::set_user_nice(task, NICE);
        }
        poller.task.store(task, Ordering::SeqCst);
        RUNNING.fetch_add(1, Ordering::SeqCst);
        // SAFETY: *Thread*.
        unsafe { bindings::wake_up_process(task) };
    }
    Ok(())
}

/// Stops the threads and waits for their ends. The sockets are silenced; nobody is served any more. Only under
/// the lock of the table of volumes. Sleeps.
pub(super) fn stop() {
    for poller in &POLLERS {
        let task = poller.task.load(Ordering::SeqCst);
        if !task.is_null() {
            // SAFETY: *Thread*: it exists, and this is the one stop.
            unsafe { bindings::kthread_stop(task) };
        }
    }
    // A poller that was stopped could be woken by those that ran on; now none does.
    for poller in &POLLERS {
        let task = poller.task.swap(null_mut(), Ordering::SeqCst);
        if !task.is_null() {
            // SAFETY: *Thread*: the reference is that of `start`, and nobody wakes it any more.
            unsafe { bindings::put_task_struct(task) };
        }
    }
    RUNNING.store(0, Ordering::SeqCst);
    if READY.load(Ordering::SeqCst) {
        let targets = core::mem::take(&mut *TARGETS.lock());
        CHANGES.fetch_add(1, Ordering::SeqCst);
        drop(targets);
    }
}

/// Has a target served. Sleeps.
pub(super) fn add(target: Arc<Target>) -> Result {
    TARGETS.lock().push(target, GFP_KERNEL)?;
    CHANGES.fetch_add(1, Ordering::SeqCst);
    wake_all();
    Ok(())
}

/// Ends it. A poller may still be going over it. Sleeps.
pub(super) fn remove(target: &Target) {
    let mut targets = TARGETS.lock();
    let found = targets.iter().position(|other| core::ptr::eq(&**other, target));
    let gone = found.and_then(|index| targets.remove(index).ok());
    drop(targets);
    CHANGES.fetch_add(1, Ordering::SeqCst);
    wake_all();
    drop(gone);
}

fn wake_all() {
    POLLERS.iter().for_each(Poller::wake);
}

/// Calls `visit` for each target that is served. Sleeps.
pub(super) fn each_target(mut visit: impl FnMut(&Target)) {
    if READY.load(Ordering::SeqCst) {
        TARGETS.lock().iter().for_each(|target| visit(target));
    }
}

/// Whether no poller has a connection. Only while no targets come.
pub(super) fn are_idle() -> bool {
    running().all(Poller::is_idle)
}

/// Has all pollers let go of every socket, and waits until they have. Sleeps. Errors: `ETIMEDOUT`, and they run on.
///
/// One without a connection is neither asked nor waited for: on a busy machine it would have to wait for its turn.
pub(super) fn park() -> Result {
    running().filter(|poller| !poller.is_idle()).for_each(|poller| poller.ask(true));
    for _ in 0..PARK_ROUNDS {
        // What was asked for before, and perhaps not done yet, does not count.
        let has_parked = |poller: &Poller| {
            let asked = poller.asked.load(Ordering::SeqCst);
            !is_park(asked) || poller.done.load(Ordering::SeqCst) == asked
        };
        if running().all(has_parked) {
            return Ok(());
        }
        fsleep(Delta::from_micros(PARK_ROUND_US));
    }
    unpark();
    Err(ETIMEDOUT)
}

/// Inverse of [`park`].
pub(super) fn unpark() {
    running().for_each(|poller| poller.ask(false));
}

/// Whether a poller that was asked so often is to park.
const fn is_park(asked: u32) -> bool {
    asked % 2 == 1
}

fn running() -> impl Iterator<Item = &'static Poller> {
    POLLERS.iter().take(RUNNING.load(Ordering::SeqCst))
}
