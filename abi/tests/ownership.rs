// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Who may end a request.

use atom_abi::request::{status, Owner, Ownership, Stale};

#[test]
fn a_request_is_ended_once_by_the_epoch_that_owns_it() {
    let ownership = Ownership::new();
    assert_eq!(ownership.end(0), Err(Stale), "nobody owns a free request");
    ownership.claim(4);
    assert_eq!(ownership.read(), (4, Owner::Payload));
    assert_eq!(ownership.end(3), Err(Stale), "an older epoch");
    assert_eq!(ownership.end(5), Err(Stale), "a newer epoch");
    assert_eq!(ownership.read(), (4, Owner::Payload), "a refused call changes nothing");
    assert_eq!(ownership.end(4), Ok(()));
    assert_eq!(ownership.end(4), Err(Stale), "a second time");
}

#[test]
fn a_request_that_was_not_taken_can_be_claimed_again() {
    let ownership = Ownership::new();
    ownership.claim(1);
    assert_eq!(ownership.give_back(1), Ok(()));
    assert_eq!(ownership.read().1, Owner::Free);
    ownership.claim(2);
    assert_eq!(ownership.end(1), Err(Stale));
    assert_eq!(ownership.end(2), Ok(()));
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
}
