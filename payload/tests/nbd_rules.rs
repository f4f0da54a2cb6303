// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Times, the order of requests, and the record of an NBD target.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

use atom_abi::request::op;
use atom_abi::text::Text;
use atom_payload::nbd::handshake::Blocks;
use atom_payload::nbd::record::{
    cookie, slot, Connection, Orphan, Record, State, Writer, MAX_RECORD_BYTES, SLOTS,
};
use atom_payload::nbd::reply::Parser;
use atom_payload::nbd::rules::{
    earlier, fails_ns, ns, overdue_ns, overlap, user_timeout_ms, wait_ms, Attempts, BackOff, Limit,
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
fn events_are_told_up_to_the_limit_and_counted_beyond_it() {
    let mut limit = Limit::NEW;
    let told = (0..30).filter(|i| limit.allow(ns(*i)).is_some()).count();
    assert_eq!(told, Limit::BURST as usize);
    assert_eq!(limit.allow(Limit::INTERVAL_NS + ns(40)), Some(20));
    assert_eq!(limit.allow(Limit::INTERVAL_NS + ns(41)), Some(0));
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

fn orphan() -> impl Strategy<Value = (u64, u32, u8, u64)> {
    let code =
        prop_oneof![Just(op::READ), Just(op::WRITE), Just(op::FLUSH), Just(op::WRITE_ZEROES)];
    (0..1u64 << 40, any::<u32>(), code, any::<u64>())
}

type Sample = (State, Vec<(Connection, Vec<Orphan>)>);

fn sample() -> impl Strategy<Value = Sample> {
    let state = (0..1u64 << 60, any::<u16>(), any::<bool>(), any::<[u64; 5]>(), any::<u32>())
        .prop_map(
            |(bytes, flags, failed, [since_ns, next_ns, reconnects, resent, errors], tries)| {
                State {
                    bytes,
                    flags,
                    blocks: Blocks::DEFAULT,
                    since_ns,
                    failed,
                    back_off: BackOff { failed: tries, next_ns },
                    reconnects,
                    resent,
                    protocol_errors: errors,
                    last_error: Text::new("the server is gone"),
                }
            },
        );
    let connection = (1..1u64 << 50, any::<bool>(), proptest::collection::vec(orphan(), 0..SLOTS));
    let connections = proptest::collection::btree_map(0..8usize, connection, 0..8);
    (state, connections).prop_map(|(state, connections)| {
        let connections =
            connections.into_iter().map(|(index, (generation, structured, orphans))| {
                let parser = Parser::new(structured);
                let connection =
                    Connection { index, key: 9, generation, parser, sent: 9, answered: 7 };
                let orphans = orphans.into_iter().enumerate();
                let orphans = orphans.map(|(slot, (sector, bytes, op, sent_ns))| Orphan {
                    cookie: cookie(generation - 1, slot),
                    sector,
                    bytes,
                    op,
                    sent_ns,
                });
                (connection, orphans.collect())
            });
        (state, connections.collect())
    })
}

fn encode(sample: &Sample) -> Vec<u8> {
    let mut bytes = vec![0; MAX_RECORD_BYTES];
    let mut writer = Writer::new(&mut bytes, &sample.0, sample.1.len()).unwrap();
    for (connection, orphans) in &sample.1 {
        writer.connection(connection, orphans.len()).unwrap();
        orphans.iter().for_each(|orphan| writer.orphan(orphan).unwrap());
    }
    let length = writer.finish();
    bytes.truncate(length);
    bytes
}

proptest! {
    #[test]
    fn what_is_written_is_read(sample in sample()) {
        let bytes = encode(&sample);
        let record = Record::decode(&bytes).unwrap();
        let connections: Vec<_> =
            record.connections().map(|(c, orphans)| (c, orphans.collect::<Vec<_>>())).collect();
        prop_assert_eq!((record.state, connections), sample);
        prop_assert!(Record::decode(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn a_changed_record_is_refused_or_sound(
        sample in sample(),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut bytes = encode(&sample);
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(record) = Record::decode(&bytes) {
            let mut next = 0;
            for (connection, orphans) in record.connections() {
                prop_assert!(connection.index >= next && connection.index < 8);
                next = connection.index + 1;
                let mut slots: Vec<_> = orphans.map(|o| slot(o.cookie).unwrap()).collect();
                let all = slots.len();
                slots.sort_unstable();
                slots.dedup();
                prop_assert_eq!(slots.len(), all);
            }
        }
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Record::decode(&bytes);
    }
}

#[test]
fn the_longest_record_has_room() {
    let connection = |index| {
        let parser = Parser::new(true);
        let connection =
            Connection { index, key: 254, generation: 9, parser, sent: 1, answered: 1 };
        let orphan =
            |slot| Orphan { cookie: cookie(8, slot), sector: 1, bytes: 1, op: 1, sent_ns: 1 };
        (connection, (0..SLOTS).map(orphan).collect())
    };
    let state = State {
        bytes: 1,
        flags: 1,
        blocks: Blocks::DEFAULT,
        since_ns: 1,
        failed: true,
        back_off: BackOff::NONE,
        reconnects: 1,
        resent: 1,
        protocol_errors: 1,
        last_error: Text::EMPTY,
    };
    let bytes = encode(&(state, (0..8).map(connection).collect()));
    assert_eq!(bytes.len(), MAX_RECORD_BYTES);
    assert!(Record::decode(&bytes).is_ok());
}
