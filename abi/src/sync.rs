// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The atomics of the contract: the compiler's own, or those of the model checker that explores every
//! order in which processors can meet.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};
// Without the total order of `total`: what holds with less order than there is, holds with more.
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
#[cfg(loom)]
pub use total::{AtomicBool, AtomicU64};

/// Atomics with sequentially consistent accesses, which the model checker takes for release and acquire.
///
/// A load sees a store that is before it in the total order of both. Here that order is the one in which the
/// checker lets the accesses take place, and such a load reads the newest value, as an exchange does, when that value
/// was stored in the total order as well. It gains nothing from a store of any other order, and no access of
/// another word becomes visible by it.
#[cfg(loom)]
mod total {
    use core::sync::atomic::{AtomicBool as Note, Ordering::Relaxed};

    use loom::sync::atomic::{self, Ordering};

    /// A number of which the accesses can be in the total order. Its largest value must not be stored.
    #[derive(Debug)]
    pub struct AtomicU64 {
        value: atomic::AtomicU64,
        /// Whether the newest value was stored in the total order. No access of the model: the checker
        /// runs one thread at a time, and changes threads only before an access of the model.
        ordered: Note,
    }

    impl AtomicU64 {
        /// As the compiler's.
        pub fn new(value: u64) -> Self {
            Self { value: atomic::AtomicU64::new(value), ordered: Note::new(true) }
        }

        /// As the compiler's.
        pub fn load(&self, order: Ordering) -> u64 {
            if order != Ordering::SeqCst || !self.ordered.load(Relaxed) {
                return self.value.load(order);
            }
            // An exchange that fails, since it must not become a store.
            let never = u64::MAX;
            match self.value.compare_exchange(never, never, Ordering::Acquire, Ordering::Acquire) {
                Ok(value) | Err(value) => value,
            }
        }

        /// As the compiler's.
        pub fn store(&self, value: u64, order: Ordering) {
            self.value.store(value, order);
            self.ordered.store(order == Ordering::SeqCst, Relaxed);
        }

        /// As the compiler's.
        pub fn compare_exchange(
            &self,
            from: u64,
            to: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            let result = self.value.compare_exchange(from, to, success, failure);
            if result.is_ok() {
                self.ordered.store(success == Ordering::SeqCst, Relaxed);
            }
            result
        }
    }

    impl Default for AtomicU64 {
        fn default() -> Self {
            Self::new(0)
        }
    }

    /// A flag of which the accesses can be in the total order.
    #[derive(Debug)]
    pub struct AtomicBool(AtomicU64);

    impl AtomicBool {
        /// As the compiler's.
        pub fn new(value: bool) -> Self {
            Self(AtomicU64::new(value.into()))
        }

        /// As the compiler's.
        pub fn load(&self, order: Ordering) -> bool {
            self.0.load(order) != 0
        }

        /// As the compiler's.
        pub fn store(&self, value: bool, order: Ordering) {
            self.0.store(value.into(), order);
        }
    }
}
