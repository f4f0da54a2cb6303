// SPDX-License-Identifier: GPL-2.0

//! Completions of an old epoch against Atom taking the request back and replaying it to the next payload.

use std::sync::Arc;

use atom_abi::request::{Owner, Ownership};
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::machine::explore;

const OLD: u64 = 1;
const NEXT: u64 = 2;

/// Who owns a request: Atom's own, or one with a mistake.
trait Owned: Send + Sync + 'static {
    fn owned_by(epoch: u64) -> Self;
    fn claim(&self, epoch: u64) -> bool;
    fn revoke(&self) -> bool;
    fn end(&self, epoch: u64) -> bool;
}

impl Owned for Ownership {
    fn owned_by(epoch: u64) -> Self {
        let ownership = Self::new();
        ownership.claim(epoch);
        ownership
    }
    fn claim(&self, epoch: u64) -> bool {
        self.claim(epoch)
    }
    fn revoke(&self) -> bool {
        self.revoke()
    }
    fn end(&self, epoch: u64) -> bool {
        self.end(epoch).is_ok()
    }
}

/// The old payload ends a request late, `late` times at once, while Atom takes it back and the payload of epoch
/// `next` gets it as a replay.
fn replaying<O: Owned>(late: usize, next: u64) {
    let request = Arc::new(O::owned_by(OLD));
    let lates: Vec<_> = (0..late)
        .map(|_| {
            let request = Arc::clone(&request);
            thread::spawn(move || request.end(OLD))
        })
        .collect();
    let revoked = request.revoke();
    let replay = revoked.then(|| {
        let is_replay = request.claim(next);
        let request = Arc::clone(&request);
        (is_replay, thread::spawn(move || request.end(next)))
    });
    let old = lates.into_iter().filter_map(|late| late.join().unwrap().then_some(())).count();
    let (is_replay, new) = replay
        .map_or((revoked, 0), |(is_replay, end)| (is_replay, usize::from(end.join().unwrap())));
    assert_eq!(old + new, 1, "a request is ended once");
    assert_eq!(is_replay, revoked, "what was taken back is a replay");
    assert_eq!(new, usize::from(revoked), "an end of the old payload counts for the next one");
}

#[test]
fn a_request_is_ended_once_by_the_old_payload_or_by_the_next() {
    explore("late completion against replay", || replaying::<Ownership>(1, NEXT));
}

#[test]
fn two_late_completions_change_nothing_about_that() {
    explore("two late completions against replay", || replaying::<Ownership>(2, NEXT));
}

#[test]
#[should_panic(expected = "counts for the next one")]
fn with_the_same_epoch_for_the_next_payload_a_late_completion_counts() {
    explore("late completion against replay, same epoch", || replaying::<Ownership>(2, OLD));
}

/// Ownership with a mistake: it is taken back by a look and a store.
struct StoredBack {
    word: AtomicU64,
}

const OWNED: u64 = 1;
const ENDED: u64 = 2;
const REVOKED: u64 = 3;

impl Owned for StoredBack {
    fn owned_by(epoch: u64) -> Self {
        Self { word: AtomicU64::new(epoch << 2 | OWNED) }
    }
    fn claim(&self, epoch: u64) -> bool {
        let replay = self.word.load(Ordering::Relaxed) & 3 == REVOKED;
        self.word.store(epoch << 2 | OWNED, Ordering::Release);
        replay
    }
    fn revoke(&self) -> bool {
        let word = self.word.load(Ordering::SeqCst);
        if word & 3 != OWNED {
            return false;
        }
        self.word.store(word & !3 | REVOKED, Ordering::SeqCst);
        true
    }
    fn end(&self, epoch: u64) -> bool {
        let (from, to) = (epoch << 2 | OWNED, epoch << 2 | ENDED);
        self.word.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }
}

#[test]
#[should_panic(expected = "ended once")]
fn with_a_look_and_a_store_instead_of_an_exchange_a_request_is_ended_twice() {
    explore("late completion against replay, taken back by a store", || {
        replaying::<StoredBack>(1, NEXT);
    });
}

/// A payload that answers a dispatch with an error, and ends the request all the same.
fn refusing(give_back: fn(&Ownership) -> bool) {
    let request = Arc::new(Ownership::owned_by(OLD));
    let end = {
        let request = Arc::clone(&request);
        thread::spawn(move || request.end(OLD).is_ok())
    };
    let given_back = give_back(&request);
    let ended = end.join().unwrap();
    assert!(ended != given_back, "either the block layer asks again, or the request has ended");
    let owner = if ended { Owner::Ended } else { Owner::Free };
    assert_eq!(request.read(), (OLD, owner));
}

#[test]
fn a_request_that_is_refused_and_ended_counts_as_one_of_both() {
    explore("completion against a refused dispatch", || {
        refusing(|request| request.give_back(OLD, false).is_ok());
    });
}

#[test]
#[should_panic(expected = "either the block layer asks again")]
fn with_a_look_before_it_is_given_back_it_counts_as_both() {
    explore("completion against a refused dispatch, looked at before", || {
        refusing(|request| request.read().1 == Owner::Payload);
    });
}
