// SPDX-License-Identifier: GPL-2.0

//! Completions against a drain. A wake-up that is lost is a deadlock, which the checker reports.

use std::sync::Arc;

use atom_abi::request::{Owner, Ownership};
use atom_core::awaited::Awaited;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::machine::{explore, Completion};

const EPOCH: u64 = 3;

/// The flag of a drain: Atom's own, or one with a mistake.
trait Flag: Send + Sync + 'static {
    fn no() -> Self;
    fn begin(&self);
    fn end(&self);
    fn is_awaited(&self) -> bool;
}

impl Flag for Awaited {
    fn no() -> Self {
        Self::no()
    }
    fn begin(&self) {
        self.begin();
    }
    fn end(&self) {
        self.end();
    }
    fn is_awaited(&self) -> bool {
        self.is_awaited()
    }
}

struct World<F> {
    requests: [Ownership; 2],
    awaited: F,
    ended: Completion,
}

impl<F: Flag> World<F> {
    /// The payload owes both requests.
    fn new() -> Arc<Self> {
        let requests = [Ownership::new(), Ownership::new()];
        requests.iter().for_each(|request| assert!(!request.claim(EPOCH)));
        Arc::new(Self { requests, awaited: F::no(), ended: Completion::new() })
    }

    /// As `atom_request_end`. True when it was this call that ended the request.
    fn end(&self, request: usize) -> bool {
        let ended = self.requests[request].end(EPOCH).is_ok();
        if ended && self.awaited.is_awaited() {
            self.ended.complete();
        }
        ended
    }

    fn owes(&self) -> bool {
        self.requests.iter().any(|request| request.read().1 == Owner::Payload)
    }

    /// As Atom's drain: begins, looks, waits. Without `patience` the deadline has passed when it has looked.
    fn drain(&self, patience: bool) {
        self.ended.reset();
        self.awaited.begin();
        while self.owes() && patience {
            self.ended.wait();
        }
        self.awaited.end();
    }
}

/// A thread for each of so many requests ends it, with `end`, while the drain runs. The others have ended before.
fn draining<F: Flag>(owed: usize, end: fn(&World<F>, usize) -> bool, drain: fn(&World<F>)) {
    let world = World::<F>::new();
    (owed..world.requests.len()).for_each(|request| assert!(world.end(request)));
    let ends: Vec<_> = (0..owed)
        .map(|request| {
            let world = Arc::clone(&world);
            thread::spawn(move || end(&world, request))
        })
        .collect();
    drain(&world);
    assert!(!world.owes(), "the drain has ended before the last request");
    ends.into_iter().for_each(|end| assert!(end.join().unwrap()));
}

#[test]
fn a_drain_ends_when_the_last_request_does() {
    explore("completions against drain", || {
        draining::<Awaited>(2, World::end, |world| world.drain(true));
    });
}

#[test]
fn a_drain_that_was_given_up_does_not_disturb_the_next() {
    explore("completion against a drain given up and tried again", || {
        draining::<Awaited>(1, World::end, |world| {
            world.drain(false);
            world.drain(true);
        });
    });
}

#[test]
fn a_request_that_two_complete_is_ended_once_and_wakes_the_drain() {
    explore("two completions of a request against drain", || {
        let world = World::<Awaited>::new();
        assert!(world.end(1));
        let ends = [0, 0].map(|request| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.end(request))
        });
        world.drain(true);
        let ended = ends.into_iter().filter_map(|end| end.join().unwrap().then_some(())).count();
        assert_eq!(ended, 1, "a request is ended once");
    });
}

/// The flag with a mistake: released and acquired, and not in one order with the ownership.
struct Unordered(AtomicBool);

impl Flag for Unordered {
    fn no() -> Self {
        Self(AtomicBool::new(false))
    }
    fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }
    fn end(&self) {
        self.0.store(false, Ordering::Release);
    }
    fn is_awaited(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[test]
#[should_panic(expected = "deadlock")]
fn with_release_and_acquire_alone_a_wake_up_is_lost() {
    explore("completions against drain, flag not in the total order", || {
        draining::<Unordered>(1, World::end, |world| world.drain(true));
    });
}

/// The flag with a mistake on one side only: it is stored without an order.
struct StoredRelaxed(atom_abi::sync::AtomicBool);

impl Flag for StoredRelaxed {
    fn no() -> Self {
        Self(atom_abi::sync::AtomicBool::new(false))
    }
    fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
    fn is_awaited(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
#[should_panic(expected = "deadlock")]
fn with_a_flag_stored_without_order_a_wake_up_is_lost() {
    explore("completions against drain, flag stored without order", || {
        draining::<StoredRelaxed>(1, World::end, |world| world.drain(true));
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn with_a_look_at_the_flag_before_the_end_a_wake_up_is_lost() {
    explore("completions against drain, flag looked at too early", || {
        let early = |world: &World<Awaited>, request: usize| {
            let awaited = world.awaited.is_awaited();
            let ended = world.requests[request].end(EPOCH).is_ok();
            if ended && awaited {
                world.ended.complete();
            }
            ended
        };
        draining::<Awaited>(1, early, |world| world.drain(true));
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn with_a_look_at_the_requests_before_the_flag_a_wake_up_is_lost() {
    explore("completions against drain, requests looked at too early", || {
        draining::<Awaited>(1, World::end, |world| {
            let mut owes = world.owes();
            world.awaited.begin();
            while owes {
                world.ended.wait();
                owes = world.owes();
            }
            world.awaited.end();
        });
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn with_a_wake_up_that_is_forgotten_after_the_look_it_is_lost() {
    explore("completions against drain, wake-up forgotten", || {
        draining::<Awaited>(1, World::end, |world| {
            world.awaited.begin();
            while world.owes() {
                world.ended.reset();
                world.ended.wait();
            }
            world.awaited.end();
        });
    });
}
