// SPDX-License-Identifier: GPL-2.0

//! Requests that the test variant `stuck` keeps without ending them, so that a drain has to give up.

use kernel::prelude::*;

use crate::abi::request::status;
use crate::pages::Io;
use crate::sys::with;

/// Most requests that can be kept.
const MOST: usize = 256;

/// What to keep, and what is kept, with the place of its volume.
struct Kept {
    op: u8,
    left: u32,
    requests: KVec<(usize, Io)>,
}

kernel::sync::global_lock! {
    // SAFETY: `init` initialises it before Atom knows the payload.
    unsafe(uninit) static KEPT: SpinLock<Kept> = Kept { op: 0, left: 0, requests: KVec::new() };
}

/// Called once, from `register`.
pub(crate) fn init() {
    // SAFETY: The module's init runs once, and nothing else runs before Atom knows the payload.
    unsafe { KEPT.init() };
}

/// Keeps the next requests of an operation. Sleeps.
pub(crate) fn hold(op: u8, requests: u32) -> Result {
    let room = KVec::with_capacity(MOST, GFP_KERNEL)?;
    let mut kept = KEPT.lock();
    if !kept.requests.is_empty() {
        return Err(EBUSY);
    }
    let before = core::mem::replace(&mut kept.requests, room);
    kept.op = op;
    kept.left = requests;
    drop(kept);
    drop(before);
    Ok(())
}

/// Keeps the request, or gives it back to be served.
pub(crate) fn take(slot: usize, io: Io) -> Option<Io> {
    let mut kept = KEPT.lock();
    if kept.left == 0 || kept.op != io.op || kept.requests.len() >= MOST {
        return Some(io);
    }
    kept.left = kept.left.saturating_sub(1);
    // There is room: the number was checked just now, and `hold` has made it.
    kept.requests
        .push_within_capacity((slot, io))
        .map_or_else(|_| pr_err!("a request was lost\n"), |()| ());
    None
}

/// Carries out and ends what is kept, and keeps no more. Sleeps.
pub(crate) fn release() {
    let mut kept = KEPT.lock();
    kept.left = 0;
    let mut requests = core::mem::take(&mut kept.requests);
    drop(kept);
    for (slot, io) in requests.drain_all() {
        let outcome = with(slot, |volume| volume.serve(&io));
        io.end(outcome.map_or(status::IO, |outcome| outcome.unwrap_or(status::IO)));
    }
}
