// SPDX-License-Identifier: GPL-2.0

//! A test variant that keeps requests without ending them when a command tells it to, so that a drain
//! has to give up. It lets go of them when Atom asks for it, and can try to end them after that, as a
//! payload would that broke its promise. With "late" it makes no promise.

use core::mem::{replace, take};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::prelude::*;

use crate::abi::calls;
use crate::abi::control::Blocker;
use crate::abi::device::DeviceSpec;
use crate::abi::request::{status, Request};
use crate::abi::version::caps;
use crate::answers::{encode_done, Asked, Late};
use crate::commands::errno;
use crate::fault::Points;
use crate::pages::Io;
use crate::protocol::Command;
use crate::sys::{epoch, with};

/// Most requests that can be kept.
const MOST: usize = 256;

/// When *timeout* is asked about a request of a device that this variant creates. The block layer
/// rounds it up to whole seconds.
const TIMEOUT_MS: u32 = 1000;

/// A request that is kept.
struct Kept {
    slot: usize,
    io: Io,
    epoch: u64,
}

/// What is left of a request that was let go of.
struct Gone {
    record: NonNull<Request>,
    epoch: u64,
}

// SAFETY: It is an address that only Atom follows.
unsafe impl Send for Gone {}

struct State {
    /// What to keep, and how many more.
    op: u8,
    left: u32,
    kept: KVec<Kept>,
    gone: KVec<Gone>,
}

kernel::sync::global_lock! {
    // SAFETY: `init` initialises it before Atom knows the payload.
    unsafe(uninit) static STATE: SpinLock<State> =
        State { op: 0, left: 0, kept: KVec::new(), gone: KVec::new() };
}

/// How often *timeout* was asked.
static TIMEOUTS: AtomicU64 = AtomicU64::new(0);
/// The length of the pause that *resume* was told last.
static PAUSED_NS: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Stuck;

impl Points for Stuck {
    const WITHHOLDS: u64 = if cfg!(payload_fault = "late") { caps::REISSUE } else { 0 };

    fn init() {
        // SAFETY: The module's init runs once, and nothing else runs before Atom knows the payload.
        unsafe { STATE.init() };
    }

    fn exit() {
        // Nothing drops it.
        let mut state = STATE.lock();
        let left = (take(&mut state.kept), take(&mut state.gone));
        drop(state);
        drop(left);
    }

    fn spec(spec: DeviceSpec) -> DeviceSpec {
        DeviceSpec { timeout_ms: TIMEOUT_MS, ..spec }
    }

    fn take(slot: usize, io: Io) -> Option<Io> {
        let mut state = STATE.lock();
        if state.left == 0 || state.op != io.op || state.kept.len() >= MOST {
            return Some(io);
        }
        state.left = state.left.saturating_sub(1);
        // There is room: the number was checked just now, and `hold` has made it.
        state
            .kept
            .push_within_capacity(Kept { slot, io, epoch: epoch() })
            .unwrap_or_else(|_| pr_err!("a request was lost\n"));
        None
    }

    fn revoke() {
        let mut state = STATE.lock();
        state.left = 0;
        let mut kept = take(&mut state.kept);
        for Kept { io, epoch, .. } in kept.drain_all() {
            // There is room: `hold` has made it, for as many.
            state
                .gone
                .push_within_capacity(Gone { record: io.into_record(), epoch })
                .unwrap_or_else(|_| pr_err!("a request was forgotten\n"));
        }
        drop(state);
        drop(kept);
    }

    fn reason(slot: usize, blocker: &Blocker) -> Option<&'static str> {
        let is_it = |kept: &Kept| {
            (kept.slot, kept.io.op, kept.io.sector) == (slot, blocker.op, blocker.sector)
        };
        STATE.lock().kept.iter().any(is_it).then_some("kept by a command")
    }

    fn timed_out() {
        TIMEOUTS.fetch_add(1, Ordering::Relaxed);
    }

    fn resumed(paused_ns: u64) {
        PAUSED_NS.store(paused_ns, Ordering::Relaxed);
    }

    fn command(command: &Command<'_>, output: &mut [u8]) -> Result<usize> {
        match command {
            Command::Hold { op, requests } => {
                hold(*op, *requests)?;
                encode_done(output).map_err(errno)
            }
            Command::Release => {
                release();
                encode_done(output).map_err(errno)
            }
            Command::Late => late().encode(output).map_err(errno),
            Command::Asked => Asked {
                timeouts: TIMEOUTS.load(Ordering::Relaxed),
                paused_ns: PAUSED_NS.load(Ordering::Relaxed),
            }
            .encode(output)
            .map_err(errno),
            _ => Err(EINVAL),
        }
    }
}

/// Keeps the next requests of an operation. Forgets those that were let go of. Sleeps.
fn hold(op: u8, requests: u32) -> Result {
    let kept = KVec::with_capacity(MOST, GFP_KERNEL)?;
    let gone = KVec::with_capacity(MOST, GFP_KERNEL)?;
    let mut state = STATE.lock();
    if !state.kept.is_empty() {
        return Err(EBUSY);
    }
    let before = (replace(&mut state.kept, kept), replace(&mut state.gone, gone));
    state.op = op;
    state.left = requests;
    drop(state);
    drop(before);
    Ok(())
}

/// Carries out and ends what is kept, and keeps no more. Sleeps.
fn release() {
    let mut state = STATE.lock();
    state.left = 0;
    let mut kept = take(&mut state.kept);
    drop(state);
    for Kept { slot, io, .. } in kept.drain_all() {
        let outcome = with(slot, |volume| volume.serve(&io));
        io.end(outcome.map_or(status::IO, |outcome| outcome.unwrap_or(status::IO)));
    }
}

/// Ends what was let go of, in the epoch in which it was taken. The devices must still be there.
fn late() -> Late {
    let mut gone = take(&mut STATE.lock().gone);
    let mut answer = Late::default();
    for Gone { record, epoch } in gone.drain_all() {
        // SAFETY: The record was handed to `queue_rq`, and the test keeps the device.
        let result = unsafe { calls::atom_request_end(record.as_ptr(), epoch, status::OK) };
        let count = if result == 0 { &mut answer.accepted } else { &mut answer.refused };
        *count = count.saturating_add(1);
    }
    answer
}
