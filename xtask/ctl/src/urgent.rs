// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The time in which every microsecond of this process is a microsecond of the pause.

use crate::sys;

/// While it exists, this thread goes before all ordinary ones (`SCHED_FIFO`, lowest priority): on a busy machine a handoff
/// would otherwise wait its turn with the gates closed. While the drain waits, the thread sleeps and costs nothing.
///
/// Where the system does not allow it, the handoff is only slower, so a refusal is no error.
#[derive(Debug)]
pub(crate) struct Urgent(());

impl Urgent {
    /// Begins it; none when it is not allowed.
    pub(crate) fn enter() -> Option<Self> {
        sys::set_realtime(true).ok().map(|()| Self(()))
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        // It was allowed to get there, so it is allowed back.
        let _ = sys::set_realtime(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_is_ordinary_again_afterwards() {
        drop(Urgent::enter());
        assert!(!sys::is_realtime());
    }
}
