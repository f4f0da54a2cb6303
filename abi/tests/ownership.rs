// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Who may end a request.

use atom_abi::request::{status, Owner, Ownership, Stale};

#[test]
fn a_request_is_ended_once_by_the_epoch_that_owns_it() {
    let ownership = Ownership::new();
    assert_eq!(ownership.end(0), Err(Stale), "nobody owns a free request");
    assert!(!ownership.claim(4), "a new request is no replay");
    assert_eq!(ownership.read(), (4, Owner::Payload));
    assert_eq!(ownership.end(3), Err(Stale), "an older epoch");
    assert_eq!(ownership.end(5), Err(Stale), "a newer epoch");
    assert_eq!(ownership.read(), (4, Owner::Payload), "a refused call changes nothing");
    assert_eq!(ownership.end(4), Ok(()));
    assert_eq!(ownership.read(), (4, Owner::Ended), "who has ended it is still known");
    assert_eq!(ownership.end(4), Err(Stale), "a second time");
}

#[test]
fn a_request_that_was_not_taken_can_be_claimed_again() {
    let ownership = Ownership::new();
    ownership.claim(1);
    assert_eq!(ownership.give_back(1, false), Ok(()));
    assert_eq!(ownership.read().1, Owner::Free);
    assert!(!ownership.claim(2), "it was never taken, so it is no replay");
    assert_eq!(ownership.end(1), Err(Stale));
    assert_eq!(ownership.end(2), Ok(()));
}

#[test]
fn a_request_that_was_taken_back_is_a_replay_until_somebody_takes_it() {
    let ownership = Ownership::new();
    ownership.claim(1);
    assert!(ownership.revoke());
    assert_eq!(ownership.read(), (1, Owner::Revoked));
    assert!(!ownership.revoke(), "nobody owns it any more");
    assert_eq!(ownership.end(1), Err(Stale), "the old payload has lost it");
    assert_eq!(ownership.give_back(1, false), Err(Stale));
    assert!(ownership.claim(2), "the next one gets a replay");
    assert_eq!(ownership.give_back(2, true), Ok(()), "which it does not take");
    assert!(ownership.claim(2), "so it is one the next time as well");
    assert_eq!(ownership.end(1), Err(Stale), "and still not the old payload's");
    assert_eq!(ownership.end(2), Ok(()));
    assert!(!ownership.claim(3), "the next request of this tag is none");
}

#[test]
fn a_request_that_was_not_started_is_claimed_again_and_a_replay_as_one() {
    for replay in [false, true] {
        let ownership = Ownership::new();
        ownership.claim(1);
        assert_eq!(ownership.end(1), Ok(()), "it is owed by nobody");
        ownership.again(replay);
        assert_eq!(ownership.end(1), Err(Stale), "it was handed back, once");
        assert!(!ownership.revoke(), "and cannot be taken back");
        assert_eq!(ownership.claim(2), replay);
        assert_eq!(ownership.end(2), Ok(()));
    }
}

#[test]
fn a_request_that_ends_without_a_payload_belongs_to_nobody() {
    let ownership = Ownership::new();
    ownership.claim(1);
    assert!(ownership.revoke());
    ownership.free();
    assert_eq!(ownership.read().1, Owner::Free);
    assert_eq!(ownership.end(1), Err(Stale));
    assert_eq!(ownership.end(0), Err(Stale));
    assert!(!ownership.revoke());
    assert!(!ownership.claim(2), "the next request of this tag is no replay");
}

/// What can be done to a request by those that do not dispatch it.
#[derive(Clone, Copy, Debug)]
enum Act {
    EndOld,
    EndNew,
    EndOther,
    Revoke,
    GiveBack,
}

const ACTS: [Act; 5] = [Act::EndOld, Act::EndNew, Act::EndOther, Act::Revoke, Act::GiveBack];
const OLD: u64 = 6;
const NEW: u64 = 7;
const OTHER: u64 = 9;

fn act(ownership: &Ownership, act: Act) -> bool {
    match act {
        Act::EndOld => ownership.end(OLD).is_ok(),
        Act::EndNew => ownership.end(NEW).is_ok(),
        Act::EndOther => ownership.end(OTHER).is_ok(),
        Act::Revoke => ownership.revoke(),
        Act::GiveBack => ownership.give_back(OLD, false).is_ok(),
    }
}

#[test]
fn of_all_that_try_exactly_the_first_that_may_wins_in_every_order() {
    // Every sequence of four acts, on a request that the old payload owns.
    let mut sequences = 0;
    for number in 0..ACTS.len().pow(4) {
        let sequence: Vec<Act> =
            (0..4).map(|at| ACTS[number / ACTS.len().pow(at) % ACTS.len()]).collect();
        let ownership = Ownership::new();
        ownership.claim(OLD);
        let won: Vec<bool> = sequence.iter().map(|next| act(&ownership, *next)).collect();
        let may = |act: &Act| matches!(act, Act::EndOld | Act::Revoke | Act::GiveBack);
        let first = sequence.iter().position(may);
        let wanted: Vec<bool> = (0..4).map(|at| Some(at) == first).collect();
        assert_eq!(won, wanted, "{sequence:?}");
        sequences += 1;
    }
    assert_eq!(sequences, 625);
}

#[test]
fn a_late_end_changes_nothing_wherever_it_comes() {
    // The way of a request that is taken back and replayed. From the second step on the old payload's end is late.
    for late in 2..5 {
        let ownership = Ownership::new();
        let steps: [&dyn Fn() -> bool; 5] = [
            &|| !ownership.claim(OLD),
            &|| ownership.revoke(),
            &|| ownership.claim(NEW),
            &|| ownership.read() == (NEW, Owner::Payload),
            &|| ownership.end(NEW).is_ok(),
        ];
        for (at, step) in steps.iter().enumerate() {
            if at == late {
                assert_eq!(ownership.end(OLD), Err(Stale), "before step {at}");
            }
            assert!(step(), "step {at} with a late end before step {late}");
        }
        assert_eq!(ownership.end(OLD), Err(Stale));
    }
}

#[test]
fn racing_completions_end_a_request_once() {
    for epoch in 0..500 {
        let ownership = Ownership::new();
        ownership.claim(epoch);
        let ended: usize = std::thread::scope(|scope| {
            let racers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| usize::from(ownership.end(epoch).is_ok()))).collect();
            racers.into_iter().map(|racer| racer.join().expect("no panic")).sum()
        });
        assert_eq!(ended, 1);
    }
}

#[test]
fn a_status_that_nobody_knows_is_an_error_and_never_a_success() {
    assert_eq!(status::to_kernel(status::OK), 0);
    for code in (0..300).chain([u32::MAX, 256, 512]) {
        let known = matches!(code, 0..=4 | 7 | 9 | 10);
        assert_eq!(status::to_kernel(code) == 0, code == 0, "{code}");
        assert_eq!(status::to_kernel(code), if known { code as u8 } else { 10 }, "{code}");
    }
    assert_eq!(
        status::at_end(status::RESOURCE),
        status::IO as u8,
        "nobody asks again after an end"
    );
    assert_eq!(status::at_end(status::OK), 0);
    assert_eq!(
        status::at_end(status::NOT_STARTED),
        status::IO as u8,
        "an Atom that does not know it reports no success"
    );
}
