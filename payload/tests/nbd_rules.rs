// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Times and the order of requests of an NBD target.

use atom_abi::request::op;
use atom_payload::nbd::rules::{
    attempt_ends_ns, earlier, fails_ns, ns, overdue_ns, overlap, user_timeout_ms, wait_ms,
    Attempts, BackOff, Limit, Stillness, ATTEMPT_MS,
};
use atom_payload::nbd::scheduler::{Fifo, Line, ReadsFirst, Schedule, MAX_OVERTAKEN};
use atom_payload::spec::Terms;
use proptest::prelude::*;

#[test]
fn attempts_wait_twice_as_long_each_time_up_to_the_longest() {
    let waits: Vec<u64> = (0..8).map(|before| wait_ms(before, 5000)).collect();
    assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    assert_eq!(wait_ms(u32::MAX, 5000), 5000);
    assert_eq!(wait_ms(u32::MAX, u32::MAX), 100 << 20);
    assert_eq!(wait_ms(0, 100), 100);
}

#[test]
fn attempts_end_when_they_are_used_up() {
    let terms = Terms { retries: 2, ..Terms::DEFAULT };
    let mut back_off = BackOff::NONE;
    assert_eq!(back_off.due_ns(&terms), Some(0));
    back_off.fail(ns(1000), &terms);
    assert_eq!(back_off.due_ns(&terms), Some(ns(1100)));
    back_off.fail(ns(1100), &terms);
    assert_eq!(back_off.due_ns(&terms), None);
    assert!(!back_off.is_exhausted(&Terms::DEFAULT), "without a limit they go on");
}

#[test]
fn further_connections_that_are_refused_delay_and_use_up_nothing_of_the_first() {
    let terms = Terms { retries: 3, ..Terms::DEFAULT };
    let mut attempts = Attempts::default();
    for round in 0..20 {
        attempts.fail(1, false, ns(round), &terms);
        attempts.fail(2, false, ns(round), &terms);
    }
    assert_eq!(attempts.due_ns(0, true, &terms), Some(0), "the first is made at once");
    assert_eq!(attempts.due_ns(3, false, &terms), Some(0), "and so is one that was not tried");
    let longest = ns(19 + u64::from(terms.retry_ms));
    assert_eq!(attempts.due_ns(1, false, &terms), Some(longest), "each waits for itself, for ever");
    attempts.connected();
    assert_eq!(attempts.due_ns(1, false, &terms), Some(0));
}

#[test]
fn attempts_of_a_target_without_a_connection_are_counted_and_used_up() {
    let terms = Terms { retries: 2, ..Terms::DEFAULT };
    let mut attempts = Attempts::of(BackOff { failed: 1, next_ns: ns(7) });
    assert_eq!(attempts.due_ns(0, true, &terms), Some(ns(7)));
    attempts.pause(ns(2));
    assert_eq!(attempts.due_ns(0, true, &terms), Some(ns(9)));
    attempts.fail(0, true, ns(9), &terms);
    assert_eq!(attempts.due_ns(0, true, &terms), None);
    // A connection that was of use and is lost begins anew, though not at once.
    attempts.ended(0, true, ns(50));
    assert_eq!(attempts.due_ns(0, true, &terms), Some(ns(150)));
    assert_eq!(attempts.alone.failed, 0);
}

#[test]
fn a_further_connection_that_was_of_use_waits_a_little_and_pauses_do_not_count() {
    let terms = Terms { retries: 1, ..Terms::DEFAULT };
    let mut attempts = Attempts::default();
    attempts.ended(2, false, ns(50));
    assert_eq!(attempts.due_ns(2, false, &terms), Some(ns(150)), "not at once");
    assert_eq!(attempts.due_ns(3, false, &terms), Some(0), "the others have nothing to do with it");
    assert_eq!(attempts.due_ns(0, true, &terms), Some(0), "nor has the first");
    attempts.pause(ns(7));
    assert_eq!(attempts.due_ns(2, false, &terms), Some(ns(157)));
    assert_eq!(attempts.due_ns(8, false, &terms), None, "there is no such connection");
    attempts.fail(2, false, ns(157), &terms);
    assert_eq!(attempts.due_ns(2, false, &terms), Some(ns(257)), "the count has begun anew");
}

#[test]
fn an_attempt_has_ten_seconds() {
    assert_eq!(ATTEMPT_MS, 10_000);
    assert_eq!(attempt_ends_ns(5), 10_000_000_005);
    assert_eq!(attempt_ends_ns(u64::MAX), u64::MAX, "a clock that is wrong ends nothing early");
}

#[test]
fn what_is_not_acknowledged_ends_a_connection_when_silence_would() {
    assert_eq!(user_timeout_ms(30), 45_000);
    assert_eq!(user_timeout_ms(u32::MAX), i32::MAX as u32);
}

#[test]
fn a_time_of_zero_is_never() {
    let never = Terms { deadline_ms: 0, answer_ms: 0, ..Terms::DEFAULT };
    assert_eq!((fails_ns(5, &never), overdue_ns(5, &never)), (None, None));
    assert_eq!(fails_ns(5, &Terms::DEFAULT), Some(60_000_000_005));
    assert_eq!(overdue_ns(5, &Terms::DEFAULT), Some(30_000_000_005));
    assert_eq!(earlier(None, Some(3)), Some(3));
    assert_eq!(earlier(Some(4), Some(3)), Some(3));
    assert_eq!(earlier(None, None), None);
}

#[test]
fn a_request_waits_from_when_it_is_the_oldest_and_none_of_its_bytes_moves() {
    let mut still = Stillness::NEW;
    assert_eq!(still.look(None, 5), None);
    assert_eq!(still.look(Some((1, 0)), 10), Some(10));
    assert_eq!(still.look(Some((1, 0)), 20), Some(10), "nothing has happened to it");
    assert_eq!(still.look(Some((1, 4096)), 30), Some(30), "its bytes move");
    assert_eq!(still.look(Some((2, 4096)), 40), Some(40), "the one before it was answered");
    still.shift(7);
    assert_eq!(still.look(Some((2, 4096)), 60), Some(47), "a pause does not count");
    assert_eq!(still.look(None, 70), None);
    assert_eq!(still.look(Some((2, 4096)), 80), Some(80));
}

#[test]
fn events_are_told_up_to_the_limit_and_counted_beyond_it() {
    let mut limit = Limit::NEW;
    let told = (0..30).filter(|i| limit.allow(ns(*i)).is_some()).count();
    assert_eq!(told, Limit::BURST as usize);
    assert_eq!(limit.allow(Limit::INTERVAL_NS + ns(40)), Some(20));
    assert_eq!(limit.allow(Limit::INTERVAL_NS + ns(41)), Some(0));
    // An interval begins with the first event in it, and ends with the one that comes when it is over.
    let mut limit = Limit::NEW;
    let began = Limit::INTERVAL_NS;
    assert!((0..Limit::BURST).all(|_| limit.allow(began) == Some(0)));
    assert_eq!(limit.allow(began + Limit::INTERVAL_NS - 1), None);
    assert_eq!(limit.allow(began + Limit::INTERVAL_NS), Some(1));
    assert_eq!(limit.allow(began + Limit::INTERVAL_NS), Some(0), "what was told is not told again");
}

#[test]
fn ranges_overlap_when_they_have_a_sector_in_common() {
    assert!(overlap(8, 4096, 15, 512));
    assert!(!overlap(8, 4096, 16, 512));
    assert!(!overlap(8, 4096, 7, 512));
    assert!(overlap(8, 4096, 7, 1024));
    assert!(!overlap(8, 0, 8, 4096), "a flush has no range");
    assert!(overlap(u64::MAX - 1, u32::MAX, u64::MAX - 1, 512));
}

#[test]
fn first_in_is_first_out() {
    let mut fifo = Fifo::NEW;
    for code in [op::READ, op::WRITE, op::FLUSH] {
        assert_eq!(Fifo::line(code), Line::First);
    }
    assert_eq!(fifo.next(true, false), Some(Line::First));
    assert_eq!(fifo.next(false, false), None);
}

proptest! {
    #[test]
    fn reads_go_first_and_nothing_is_overtaken_too_often(
        waits in proptest::collection::vec(any::<(bool, bool)>(), 1..200),
    ) {
        let mut order = ReadsFirst::NEW;
        let mut overtaken = 0;
        for (reads, others) in waits {
            match order.next(reads, others) {
                None => prop_assert!(!reads && !others),
                Some(Line::First) => {
                    prop_assert!(reads);
                    overtaken += u32::from(others);
                    prop_assert!(overtaken <= MAX_OVERTAKEN);
                }
                Some(Line::Second) => {
                    prop_assert!(others);
                    prop_assert!(!reads || overtaken == MAX_OVERTAKEN, "a read waits for no reason");
                    overtaken = 0;
                }
            }
        }
    }
}
