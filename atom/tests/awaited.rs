// SPDX-License-Identifier: GPL-2.0

//! When the end of a request wakes a drain, seen by one processor. That no wake-up is lost between several is explored by the
//! model checker.

use atom_core::awaited::Awaited;

#[test]
fn the_end_of_a_request_wakes_a_drain_from_its_beginning_to_its_end_and_at_no_other_time() {
    let awaited = Awaited::no();
    assert!(!awaited.is_awaited(), "nobody has begun to wait");
    for _ in 0..2 {
        awaited.begin();
        assert!(awaited.is_awaited());
        assert!(awaited.is_awaited(), "a look takes nothing away: every end wakes");
        awaited.end();
        assert!(!awaited.is_awaited());
    }
}
