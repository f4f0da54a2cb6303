// SPDX-License-Identifier: GPL-2.0

//! A module whose exit runs though somebody needs it.
//!
//! Usually that cannot be: `delete_module` refuses while there are references. A kernel with
//! `CONFIG_MODULE_FORCE_UNLOAD`, as Debian's is, does not when it is told to use force (`rmmod -f`): it marks the module
//! as going, so that no reference is taken any more, and runs its exit at once. The code goes when the exit returns, so
//! the exit waits for those that have one. See `kernel/module/main.c`.

use kernel::bindings;

/// How long it sleeps between two looks, in nanoseconds: the kernel tells nobody when a reference is given back.
const PAUSE_NS: u64 = 20_000_000;

/// A module that is going.
pub(crate) struct Leaving(*mut bindings::module);

impl Leaving {
    /// Atom itself, in its exit.
    pub(crate) fn atom() -> Self {
        Self(crate::THIS_MODULE.as_ptr())
    }

    /// The module of a payload, in its exit.
    pub(super) fn payload(module: *mut bindings::module) -> Self {
        Self(module)
    }

    /// Whether anybody has a reference on it. Any context.
    pub(crate) fn is_needed(&self) -> bool {
        // SAFETY: The module does not go before its exit has returned, and this is within it.
        unsafe { bindings::module_refcount(self.0) > 0 }
    }

    /// Waits until nobody has one, for ever if need be. Whoever gives back the last one is out of the module's code, and
    /// the kernel waits for an RCU grace period before it frees it. Sleeps, without a part in the load of the machine.
    pub(crate) fn wait(&self) {
        let pause = kernel::ffi::c_long::try_from(super::to_jiffies(PAUSE_NS)).unwrap_or(1).max(1);
        while self.is_needed() {
            // SAFETY: A module's exit is called in process context and may sleep.
            unsafe { bindings::schedule_timeout_idle(pause) };
        }
    }
}
