// SPDX-License-Identifier: GPL-2.0

//! Whether somebody waits for requests to end. Pure.
//!
//! A drain must not miss the end of the last request, and a request that ends should not touch a shared completion
//! when nobody waits. Two words decide it: this flag, and the word of the request's ownership.
//!
//! ```text
//! drain                                      end of a request
//!   flag := true                 (begin)       word := ended, by exchange   (Ownership::leave)
//!   look at every word    (Ownership::read)    look at the flag             (is_awaited)
//!   wait for a wake-up, look again             wake when it is true
//! ```
//!
//! No wake-up is lost. All four accesses are sequentially consistent, so there is one order of them on which all
//! processors agree. When the end's look at the flag comes after `begin` in it, the end sees the flag and wakes.
//! Otherwise the look comes before `begin`; then so does the exchange, which precedes the look, and the drain's look at
//! the word, which follows `begin`, sees that the request has ended. Release and acquire alone would not do: each side
//! could read what the other's word was before.
//!
//! The wake-up has to be counted, as that of a completion is: it can come between the drain's look and its
//! waiting. One that a drain has left over makes the next drain look once more, and does no harm.

#![allow(unreachable_pub, reason = "the same file is part of a library on the host")]

use crate::abi::sync::{AtomicBool, Ordering};

/// The flag of one drain at a time.
#[derive(Debug)]
pub struct Awaited(AtomicBool);

impl Awaited {
    /// Nobody waits.
    #[cfg(not(loom))]
    pub const fn no() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Nobody waits.
    #[cfg(loom)]
    pub fn no() -> Self {
        Self(AtomicBool::new(false))
    }

    /// From here on whoever ends a request wakes the drain. Before the drain's first look at a request.
    pub fn begin(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Nobody waits any more. An end that has seen the flag before may still wake.
    pub fn end(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    /// Whether the drain has to be woken. After the request's ownership has left the payload. Any context.
    #[inline]
    pub fn is_awaited(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
