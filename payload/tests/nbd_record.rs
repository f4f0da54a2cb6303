// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The record of an NBD target: what is written is read, and nothing that cannot be is.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

use atom_abi::request::op;
use atom_abi::text::Text;
use atom_payload::nbd::handshake::Blocks;
use atom_payload::nbd::record::{
    cookie, slot, Connection, Orphan, Record, State, Writer, MAX_RECORD_BYTES, SLOTS,
};
use atom_payload::nbd::reply::Parser;
use atom_payload::nbd::rules::BackOff;
use atom_payload::protocol::ProtocolError;
use proptest::prelude::*;

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

/// A record of two connections, the first with two orphans. What stands where is in `record.rs`.
fn kept() -> Vec<u8> {
    let connection = |index| {
        let parser = Parser::new(true);
        Connection { index, key: 1, generation: 9, parser, sent: 2, answered: 3 }
    };
    let orphan = |slot| Orphan { cookie: cookie(8, slot), sector: 1, bytes: 1, op: 1, sent_ns: 1 };
    let state = State {
        bytes: 1 << 20,
        flags: 1,
        blocks: Blocks::DEFAULT,
        since_ns: 1,
        failed: false,
        back_off: BackOff::NONE,
        reconnects: 1,
        resent: 1,
        protocol_errors: 1,
        last_error: Text::EMPTY,
    };
    let orphans = vec![orphan(0), orphan(SLOTS - 1)];
    encode(&(state, vec![(connection(2), orphans), (connection(5), vec![])]))
}

/// Where the first connection, its first orphan, the second orphan and the second connection begin.
const CONNECTION: usize = 144;
const ORPHAN: usize = CONNECTION + 92;
const SECOND_ORPHAN: usize = ORPHAN + 32;
const SECOND: usize = SECOND_ORPHAN + 32;

/// What a reader says of the record with a number put into it.
fn with(at: usize, number: &[u8]) -> Result<(), ProtocolError> {
    let mut bytes = kept();
    bytes[at..at + number.len()].copy_from_slice(number);
    Record::decode(&bytes).map(|_| ())
}

#[test]
fn the_largest_numbers_that_can_be_are_read() {
    assert_eq!(Record::decode(&kept()).map(|_| ()), Ok(()));
    assert_eq!(with(4, &1u32.to_le_bytes()), Ok(()), "the target counts as failed");
    assert_eq!(with(8, &(i64::MAX as u64).to_le_bytes()), Ok(()), "size of an export");
    assert_eq!(with(16, &0xffffu32.to_le_bytes()), Ok(()), "flags");
    assert_eq!(with(CONNECTION + 4, &255u32.to_le_bytes()), Ok(()), "key");
    assert_eq!(with(CONNECTION + 8, &(u64::MAX >> 8).to_le_bytes()), Ok(()), "generation");
    assert_eq!(with(SECOND, &7u32.to_le_bytes()), Ok(()), "the last connection");
    let last = (i64::MAX as u64 / 512).to_le_bytes();
    assert_eq!(with(ORPHAN + 8, &last), Ok(()), "sector");
    for code in [op::READ, op::WRITE, op::FLUSH, op::DISCARD, op::WRITE_ZEROES] {
        assert_eq!(with(ORPHAN + 20, &u32::from(code).to_le_bytes()), Ok(()), "operation {code}");
    }
}

#[test]
fn a_number_that_cannot_be_is_refused_by_its_name() {
    let is = |what| Err(ProtocolError::Invalid(what));
    assert_eq!(with(0, &2u32.to_le_bytes()), is("format of a target"));
    assert_eq!(with(4, &2u32.to_le_bytes()), is("bits of a target"));
    assert_eq!(with(4, &3u32.to_le_bytes()), is("bits of a target"));
    assert_eq!(with(8, &(1u64 << 63).to_le_bytes()), is("size of an export"));
    assert_eq!(with(20, &0u32.to_le_bytes()), is("size of an export"), "blocks of nothing");
    assert_eq!(with(16, &0x1_0000u32.to_le_bytes()), is("flags of an export"));
    assert_eq!(with(140, &9u32.to_le_bytes()), is("number of connections"));
    assert_eq!(with(CONNECTION + 4, &256u32.to_le_bytes()), is("key"));
    assert_eq!(with(CONNECTION + 8, &(1u64 << 56).to_le_bytes()), is("generation"));
    assert_eq!(with(CONNECTION + 88, &65u32.to_le_bytes()), is("number of orphans"));
    assert_eq!(with(SECOND, &8u32.to_le_bytes()), is("number of a connection"));
    assert_eq!(with(SECOND, &2u32.to_le_bytes()), is("order of connections"), "the same twice");
    assert_eq!(with(SECOND, &1u32.to_le_bytes()), is("order of connections"));
    assert_eq!(with(ORPHAN, &64u64.to_le_bytes()), is("slot"), "there are so many, from 0 on");
    assert_eq!(with(SECOND_ORPHAN, &cookie(7, 0).to_le_bytes()), is("cookie"), "a slot twice");
    assert_eq!(with(ORPHAN, &cookie(9, 0).to_le_bytes()), is("cookie"), "not sent yet");
    assert_eq!(with(ORPHAN + 8, &(1u64 << 63).to_le_bytes()), is("sector"));
    for code in [4u32, 5, 10, 256 + 1] {
        assert_eq!(with(ORPHAN + 20, &code.to_le_bytes()), is("operation"), "{code}");
    }
    let mut longer = kept();
    longer.push(0);
    assert_eq!(Record::decode(&longer).map(|_| ()), Err(ProtocolError::Trailing));
}

#[test]
fn an_orphan_may_still_change_the_export_if_it_writes_discards_or_zeroes() {
    let writes = |op| Orphan { cookie: 0, sector: 0, bytes: 0, op, sent_ns: 0 }.writes();
    assert!([op::WRITE, op::DISCARD, op::WRITE_ZEROES].into_iter().all(writes));
    assert!(![op::READ, op::FLUSH].into_iter().any(writes));
}

#[test]
fn a_cookie_names_its_slot_and_its_generation() {
    for at in 0..SLOTS {
        assert_eq!(slot(cookie(5, at)), Some(at));
        assert_eq!(cookie(5, at) >> 8, 5);
    }
    assert_eq!(slot(cookie(5, SLOTS)), None);
    assert_eq!(slot(cookie(5, 255)), None);
}
