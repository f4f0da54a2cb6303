// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! How much memory the code under test may allocate: a length that was believed before it was checked shows as an
//! allocation that is too large.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The system's allocator, which stops the program when a budget is exceeded.
struct Counting;

thread_local! {
    /// Bytes that the running [`within`] may still allocate; none outside of one.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Runs `code`, which may allocate `bytes` in all. More ends the program, with a message and a stack trace.
pub fn within<T>(bytes: usize, code: impl FnOnce() -> T) -> T {
    LEFT.set(Some(bytes));
    let result = code();
    LEFT.set(None);
    result
}

fn spend(bytes: usize) {
    let Some(left) = LEFT.get() else { return };
    match left.checked_sub(bytes) {
        Some(left) => LEFT.set(Some(left)),
        None => {
            LEFT.set(None);
            eprintln!("{bytes} bytes are allocated with {left} left of the budget");
            eprintln!("{}", Backtrace::force_capture());
            std::process::abort();
        }
    }
}

// SAFETY: Every call goes to the system's allocator as it came. Counting allocates nothing and never unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        spend(layout.size());
        // SAFETY: As the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: As the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        spend(layout.size());
        // SAFETY: As the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        spend(bytes.saturating_sub(layout.size()));
        // SAFETY: As the caller promises.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_the_budget_is_allocated() {
        assert_eq!(within(64, || Vec::<u8>::with_capacity(64)).capacity(), 64);
        assert_eq!(within(0, || [0u8; 64]).len(), 64, "the stack is not counted");
        assert_eq!(Vec::<u8>::with_capacity(1 << 20).capacity(), 1 << 20, "outside nothing is");
    }

    #[test]
    #[ignore = "ends the program; the test below runs it"]
    fn spends_too_much() {
        within(64, || {
            let mut bytes = Vec::<u8>::with_capacity(60);
            bytes.reserve_exact(65);
            bytes.capacity()
        });
    }

    #[test]
    fn what_is_beyond_the_budget_ends_the_program_and_says_so() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "budget::tests::spends_too_much", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("5 bytes are allocated with 4 left of the budget"), "{said}");
    }
}
