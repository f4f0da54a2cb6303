// SPDX-License-Identifier: GPL-2.0

//! What the other models rest on: sequentially consistent accesses are in one total order, and others are not.

use std::sync::Arc;

use atom_abi::sync::{AtomicBool, Ordering};
use loom::thread;

use super::machine::explore;

/// Each of two threads stores its own flag and then looks at the other's.
fn store_and_look(store: Ordering, load: Ordering) {
    let flags = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
    let other = {
        let flags = Arc::clone(&flags);
        thread::spawn(move || {
            flags[1].store(true, store);
            flags[0].load(load)
        })
    };
    flags[0].store(true, store);
    let seen = flags[1].load(load);
    assert!(seen || other.join().unwrap(), "neither has seen the other");
}

#[test]
fn of_two_that_store_and_look_one_sees_the_other() {
    explore("store and look", || store_and_look(Ordering::SeqCst, Ordering::SeqCst));
}

#[test]
#[should_panic(expected = "neither has seen the other")]
fn with_release_and_acquire_neither_need_see_the_other() {
    explore("store and look, release and acquire", || {
        store_and_look(Ordering::Release, Ordering::Acquire);
    });
}

#[test]
#[should_panic(expected = "neither has seen the other")]
fn with_the_stores_outside_of_the_total_order_neither_need_see_the_other() {
    explore("store and look, relaxed stores", || {
        store_and_look(Ordering::Relaxed, Ordering::SeqCst);
    });
}

#[test]
#[should_panic(expected = "neither has seen the other")]
fn with_the_looks_outside_of_the_total_order_neither_need_see_the_other() {
    explore("store and look, relaxed looks", || {
        store_and_look(Ordering::SeqCst, Ordering::Relaxed);
    });
}

/// The total order is of the accesses in it: what else a thread has stored is not made visible by it.
#[test]
#[should_panic(expected = "what was stored besides is not seen")]
fn the_total_order_publishes_nothing_but_its_own_words() {
    explore("store besides", || {
        let words = Arc::new([false; 3].map(AtomicBool::new));
        let other = {
            let words = Arc::clone(&words);
            thread::spawn(move || {
                words[0].store(true, Ordering::Relaxed);
                words[1].store(true, Ordering::SeqCst);
                words[2].load(Ordering::SeqCst)
            })
        };
        words[2].store(true, Ordering::SeqCst);
        let seen = words[0].load(Ordering::Relaxed);
        assert!(seen || other.join().unwrap(), "what was stored besides is not seen");
    });
}
