// SPDX-License-Identifier: GPL-2.0

//! How often a device is open, and the end of that. Pure.
//!
//! One word says both, so that no open can slip in between the look and the refusal.

#![allow(unreachable_pub, reason = "the same file is part of a library on the host")]

use crate::abi::sync::{AtomicI32, Ordering};

/// The open handles of a device; negative once the device is going and opens are refused.
#[derive(Debug)]
pub struct Handles(AtomicI32);

impl Handles {
    /// None is open.
    #[cfg(not(loom))]
    pub const fn none() -> Self {
        Self(AtomicI32::new(0))
    }

    /// None is open.
    #[cfg(loom)]
    pub fn none() -> Self {
        Self(AtomicI32::new(0))
    }

    /// Counts one more handle. False, and nothing changes, once opens are refused, or when there are as many as can
    /// be counted. Any context.
    pub fn open(&self) -> bool {
        let more = |open: i32| if open < 0 { None } else { open.checked_add(1) };
        self.0.fetch_update(Ordering::SeqCst, Ordering::Relaxed, more).is_ok()
    }

    /// Counts one handle less. Once for each [`Handles::open`] that was true. Any context.
    pub fn release(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    /// Refuses opens from here on, for good. False, and nothing changes, while one is open.
    pub fn refuse(&self) -> bool {
        self.0.compare_exchange(0, i32::MIN, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Handles that are open at this moment; 0 once opens are refused.
    pub fn count(&self) -> u32 {
        u32::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}
