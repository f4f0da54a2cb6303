// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The stream of replies: every split, every position, and hostile servers.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

use atom_payload::nbd::reply::{Coverage, Event, Fault, Parser, MAX_SCATTERED};
use atom_payload::nbd::wire::{chunk, command, error, verdict, Request, Verdict, REQUEST_BYTES};
use atom_payload::nbd::wire::{SIMPLE_REPLY, STRUCTURED_REPLY};
use proptest::prelude::*;

fn simple(error: u32, cookie: u64) -> Vec<u8> {
    [&SIMPLE_REPLY.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes()].concat()
}

fn piece(flags: u16, kind: u16, cookie: u64, length: u32, payload: &[u8]) -> Vec<u8> {
    [
        &STRUCTURED_REPLY.to_be_bytes()[..],
        &flags.to_be_bytes(),
        &kind.to_be_bytes(),
        &cookie.to_be_bytes(),
        &length.to_be_bytes(),
        payload,
    ]
    .concat()
}

fn sound(flags: u16, kind: u16, cookie: u64, payload: &[u8]) -> Vec<u8> {
    piece(flags, kind, cookie, payload.len() as u32, payload)
}

fn data(done: u16, cookie: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
    sound(done, chunk::OFFSET_DATA, cookie, &[&offset.to_be_bytes()[..], bytes].concat())
}

fn failed(done: u16, kind: u16, cookie: u64, error: u32, words: &[u8], behind: &[u8]) -> Vec<u8> {
    let head = [&error.to_be_bytes()[..], &(words.len() as u16).to_be_bytes()].concat();
    sound(done, kind, cookie, &[&head[..], words, behind].concat())
}

/// What came out: events, and data with its place.
#[derive(Clone, PartialEq, Debug)]
enum Out {
    Event(Event),
    Data(u64, u64, Vec<u8>),
    Over(u64),
    Fault(Fault),
}

/// Reads a stream in pieces of these lengths, in turn. Even cookies of simple replies without an error are reads
/// of `cookie % 16` bytes. With `handed_over` the position goes through an image after each piece.
fn read(stream: &[u8], structured: bool, pieces: &[usize], handed_over: bool) -> Vec<Out> {
    let mut parser = Parser::new(structured);
    let mut out = Vec::new();
    let mut rest = stream;
    for piece in pieces.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (mut now, later) = rest.split_at((*piece).min(rest.len()));
        rest = later;
        while !now.is_empty() {
            if let Some((cookie, offset, left)) = parser.data() {
                let length = now.len().min(left as usize);
                let (bytes, behind) = now.split_at(length);
                now = behind;
                match out.last_mut() {
                    Some(Out::Data(same, from, before))
                        if *same == cookie && *from + before.len() as u64 == offset =>
                    {
                        before.extend(bytes);
                    }
                    _ => out.push(Out::Data(cookie, offset, bytes.to_vec())),
                }
                if let Some(cookie) = parser.took(length as u32) {
                    out.push(Out::Over(cookie));
                }
                continue;
            }
            assert!(parser.wanted() > 0, "there is always something to wait for");
            match parser.push(now) {
                Ok((taken, event)) => {
                    assert!(taken > 0, "it goes on");
                    now = &now[taken..];
                    if let Some(event) = event {
                        out.push(Out::Event(event));
                        if let Event::Simple { cookie, error: 0 } = event {
                            if cookie % 2 == 0 {
                                parser.expect(cookie, cookie, (cookie % 16) as u32);
                            }
                        }
                    }
                }
                Err(fault) => {
                    out.push(Out::Fault(fault));
                    return out;
                }
            }
        }
        if handed_over {
            assert_eq!(Parser::from_bytes(&parser.to_bytes()), Some(parser));
            parser = Parser::from_bytes(&parser.to_bytes()).unwrap();
        }
    }
    out
}

fn faults(stream: &[u8]) -> Option<Fault> {
    match read(stream, true, &[usize::MAX], false).pop() {
        Some(Out::Fault(fault)) => Some(fault),
        _ => None,
    }
}

#[test]
fn simple_replies_come_out_with_the_data_of_reads() {
    let stream = [simple(0, 18), b"ab".to_vec(), simple(error::EIO, 4), simple(0, 3)].concat();
    let expected = [
        Out::Event(Event::Simple { cookie: 18, error: 0 }),
        Out::Data(18, 18, b"ab".to_vec()),
        Out::Over(18),
        Out::Event(Event::Simple { cookie: 4, error: 5 }),
        Out::Event(Event::Simple { cookie: 3, error: 0 }),
    ];
    assert_eq!(read(&stream, false, &[usize::MAX], false), expected);
}

#[test]
fn the_chunks_of_a_structured_reply_come_out_one_by_one() {
    let hole = [&512u64.to_be_bytes()[..], &4096u32.to_be_bytes()].concat();
    let stream = [
        data(0, 7, 512, b"abc"),
        sound(0, chunk::OFFSET_HOLE, 7, &hole),
        failed(0, chunk::ERROR | 1, 9, error::ENOSPC, b"full", &[]),
        failed(1, chunk::ERROR_OFFSET, 9, error::EIO, b"", &[0; 8]),
        sound(1, chunk::NONE, 7, &[]),
        data(1, 8, 0, b"z"),
        simple(0, 5),
    ]
    .concat();
    let expected = [
        Out::Event(Event::Data { cookie: 7, offset: 512, bytes: 3, done: false }),
        Out::Data(7, 512, b"abc".to_vec()),
        Out::Event(Event::Hole { cookie: 7, offset: 512, bytes: 4096, done: false }),
        Out::Event(Event::Failed { cookie: 9, error: 28, done: false }),
        Out::Event(Event::Failed { cookie: 9, error: 5, done: true }),
        Out::Event(Event::End { cookie: 7 }),
        Out::Event(Event::Data { cookie: 8, offset: 0, bytes: 1, done: true }),
        Out::Data(8, 0, b"z".to_vec()),
        Out::Over(8),
        Out::Event(Event::Simple { cookie: 5, error: 0 }),
    ];
    assert_eq!(read(&stream, true, &[usize::MAX], false), expected);
}

#[test]
fn what_is_received_as_the_head_of_a_reply_never_has_data_of_a_read_in_it() {
    let hole = sound(1, chunk::OFFSET_HOLE, 2, &[&[0u8; 8][..], &512u32.to_be_bytes()].concat());
    let shortest = failed(1, chunk::ERROR | 1, 2, error::EIO, b"", &[]);
    let end = sound(1, chunk::NONE, 2, b"");
    let structured = data(1, 6, 512, b"ab");
    let read = [simple(0, 6), b"ab".to_vec()].concat();
    let cases = [
        (true, vec![vec![], simple(0, 3), end, shortest, hole], structured),
        (false, vec![vec![], simple(0, 3), simple(error::EIO, 4)], read),
    ];
    for (mode, first, second) in cases {
        for before in first {
            let mut parser = Parser::new(mode);
            let stream = [before, second.clone()].concat();
            let mut head = &stream[..parser.head_bytes()];
            while !head.is_empty() {
                assert_eq!(parser.data(), None, "{head:?} of {stream:?} would be data");
                head = &head[parser.push(head).unwrap().0..];
            }
        }
    }
}

#[test]
fn what_no_server_may_send_is_named() {
    assert_eq!(faults(&[1, 2, 3, 4]), Some(Fault::Magic(0x0102_0304)));
    let unasked = read(&sound(1, chunk::NONE, 1, &[]), false, &[usize::MAX], false);
    assert_eq!(unasked, [Out::Fault(Fault::NotAgreed)]);
    assert_eq!(faults(&sound(0, chunk::NONE, 1, &[])), Some(Fault::NotDone));
    assert_eq!(faults(&sound(1, chunk::NONE, 1, &[0])), Some(Fault::Length(1)));
    assert_eq!(faults(&sound(1, chunk::OFFSET_DATA, 1, &[0; 8])), Some(Fault::Length(8)));
    assert_eq!(faults(&sound(1, chunk::OFFSET_HOLE, 1, &[0; 11])), Some(Fault::Length(11)));
    assert_eq!(faults(&sound(1, chunk::OFFSET_HOLE, 1, &[0; 12])), Some(Fault::Length(0)));
    assert_eq!(faults(&sound(1, 5, 1, &[0; 12])), Some(Fault::Type(5)));
    let error = chunk::ERROR | 1;
    assert_eq!(faults(&sound(1, error, 1, &[0; 5])), Some(Fault::Length(5)));
    assert_eq!(faults(&sound(1, error, 1, &[0; 6])), Some(Fault::NoError));
    assert_eq!(faults(&sound(1, error, 1, &[0, 0, 0, 5, 0, 1])), Some(Fault::Length(6)));
    assert_eq!(
        faults(&failed(1, chunk::ERROR_OFFSET, 1, 5, b"", &[0; 7])),
        Some(Fault::Length(13))
    );
    assert_eq!(
        faults(&failed(1, chunk::ERROR_OFFSET, 1, 5, b"1", &[0; 7])),
        Some(Fault::Length(14))
    );
    for length in [5000, u32::MAX] {
        assert_eq!(faults(&piece(1, error, 1, length, &[])), Some(Fault::Length(length)));
    }
}

#[test]
fn a_length_is_believed_only_as_far_as_its_owner_takes_the_data() {
    let stream = piece(1, chunk::OFFSET_DATA, 6, u32::MAX, &[0; 8]);
    let mut parser = Parser::new(true);
    let (taken, event) = parser.push(&stream).unwrap();
    assert_eq!(taken, stream.len());
    let bytes = u32::MAX - 8;
    assert_eq!(event, Some(Event::Data { cookie: 6, offset: 0, bytes, done: true }));
    assert_eq!(parser.data(), Some((6, 0, bytes)));
    assert_eq!(parser.wanted(), 0);
}

/// Whole replies, some of them wrong.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let cookie = 0..64u64;
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let reply =
        prop_oneof![
            (prop_oneof![Just(0u32), Just(5), any::<u32>()], cookie.clone()).prop_map(|(e, c)| {
                let mut reply = simple(e, c);
                if e == 0 && c % 2 == 0 {
                    reply.extend(vec![c as u8; (c % 16) as usize]);
                }
                reply
            }),
            (0..2u16, cookie.clone(), any::<u64>(), bytes())
                .prop_map(|(d, c, o, b)| data(d, c, o, &b)),
            (cookie.clone(), any::<u64>(), 0..9000u32).prop_map(|(c, o, n)| {
                sound(1, chunk::OFFSET_HOLE, c, &[&o.to_be_bytes()[..], &n.to_be_bytes()].concat())
            }),
            (0..2u16, cookie.clone(), 0..3u32, bytes(), bytes())
                .prop_map(|(d, c, e, w, b)| failed(d, chunk::ERROR | 1, c, e, &w, &b)),
            (0..2u16, cookie.clone(), bytes()).prop_map(|(d, c, w)| failed(
                d,
                chunk::ERROR_OFFSET,
                c,
                5,
                &w,
                &[3; 8]
            )),
            cookie.clone().prop_map(|c| sound(1, chunk::NONE, c, &[])),
            (any::<u16>(), any::<u16>(), cookie, any::<u32>(), bytes())
                .prop_map(|(f, k, c, l, b)| piece(f, k, c, l, &b)),
        ];
    proptest::collection::vec(reply, 0..12).prop_map(|replies| replies.concat())
}

proptest! {
    #[test]
    fn it_makes_no_difference_where_the_bytes_are_split(
        stream in prop_oneof![stream(), proptest::collection::vec(any::<u8>(), 0..200)],
        pieces in proptest::collection::vec(1..50usize, 1..20),
        structured in any::<bool>(),
    ) {
        let whole = read(&stream, structured, &[usize::MAX], false);
        prop_assert_eq!(&read(&stream, structured, &pieces, false), &whole);
        prop_assert_eq!(&read(&stream, structured, &pieces, true), &whole);
        prop_assert_eq!(&read(&stream, structured, &[1], true), &whole);
    }

    #[test]
    fn a_position_of_hostile_bytes_is_refused_or_sound(
        bytes in any::<[u8; 56]>(),
        state in 0..4u8,
        length in 0..40u8,
        rest in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut bytes = bytes;
        bytes[0] = state;
        bytes[2] = length;
        bytes[3] = 0;
        if let Some(mut parser) = Parser::from_bytes(&bytes) {
            prop_assert_eq!(Parser::from_bytes(&parser.to_bytes()), Some(parser));
            prop_assert_eq!(parser.data().is_some(), parser.wanted() == 0);
            let _ = parser.push(&rest);
        }
    }
}

#[test]
fn a_request_stands_on_the_wire_as_the_specification_says() {
    let request = Request::new(1, 8, 4096, true, false, 0x0102_0304_0506_0708).unwrap();
    let expected: [u8; REQUEST_BYTES] = [
        0x25, 0x60, 0x95, 0x13, 0, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0x10, 0, 0,
        0, 0x10, 0,
    ];
    assert_eq!(request.to_bytes(), expected);
    let flush = Request::new(2, 8, 4096, true, true, 5).unwrap();
    assert_eq!((flush.command, flush.flags, flush.offset, flush.bytes), (command::FLUSH, 0, 0, 0));
    let read = Request::new(0, 1, 512, true, true, 5).unwrap();
    assert_eq!((read.command, read.flags), (command::READ, 0));
    let zeroes = Request::new(9, 0, 512, true, true, 5).unwrap();
    assert_eq!(zeroes.flags, command::FLAG_FUA | command::FLAG_NO_HOLE);
    assert_eq!(Request::new(7, 0, 512, false, false, 5), None);
    assert_eq!(Request::new(0, u64::MAX, 512, false, false, 5), None);
}

#[test]
fn errors_of_a_server_become_those_of_the_block_layer() {
    use atom_abi::request::{op, status};
    let ends = |op, error| match verdict(op, error) {
        Verdict::Ends(status) => status,
        Verdict::SendAgain => panic!("{error} is to be sent again"),
    };
    assert_eq!(ends(op::READ, 0), status::OK);
    assert_eq!(ends(op::WRITE, error::EPERM), status::IO);
    assert_eq!(ends(op::WRITE, error::ENOSPC), status::NO_SPACE);
    assert_eq!(ends(op::WRITE, error::EINVAL), status::IO);
    assert_eq!(ends(op::DISCARD, error::EINVAL), status::NOT_SUPPORTED);
    assert_eq!(ends(op::WRITE_ZEROES, error::ENOTSUP), status::NOT_SUPPORTED);
    assert_eq!(ends(op::READ, error::ENODATA), status::MEDIUM);
    assert_eq!(ends(op::READ, 4711), status::IO);
    assert_eq!(verdict(op::READ, error::ESHUTDOWN), Verdict::SendAgain);
}

fn covered(chunks: &[(u32, u32)]) -> Result<Coverage, Fault> {
    chunks.iter().try_fold(Coverage::NONE, |mut coverage, &(from, bytes)| {
        coverage.add(from, bytes).map(|()| coverage)
    })
}

#[test]
fn a_read_is_whole_when_its_chunks_have_brought_each_byte_once() {
    assert!(covered(&[(0, 4096)]).unwrap().is_whole(4096));
    assert!(covered(&[(3072, 1024), (0, 1024), (1024, 2048)]).unwrap().is_whole(4096));
    assert!(!Coverage::NONE.is_whole(4096));
    assert!(!covered(&[(0, 4095)]).unwrap().is_whole(4096));
    assert!(!covered(&[(0, 1024), (2048, 2048)]).unwrap().is_whole(4096));
}

#[test]
fn chunks_that_overlap_do_not_stand_for_bytes_that_have_not_come() {
    assert_eq!(covered(&[(0, 2048), (0, 2048)]), Err(Fault::Overlap));
    assert_eq!(covered(&[(0, 1024), (2048, 2048), (1023, 1)]), Err(Fault::Overlap));
    assert_eq!(covered(&[(1024, 1024), (0, 4096)]), Err(Fault::Overlap));
    assert_eq!(covered(&[(u32::MAX, 1)]), Err(Fault::Length(1)));
}

#[test]
fn chunks_with_too_many_gaps_between_them_are_refused() {
    let scattered: Vec<_> = (0..=MAX_SCATTERED as u32).map(|at| (at * 1024, 512)).collect();
    assert!(covered(&scattered[..MAX_SCATTERED]).is_ok());
    assert_eq!(covered(&scattered), Err(Fault::Scattered));
}

proptest! {
    /// Against one flag for each byte.
    #[test]
    fn coverage_agrees_with_a_map_of_the_bytes(chunks in prop::collection::vec((0u32..24, 1u32..8), 0..12)) {
        let (mut coverage, mut map) = (Coverage::NONE, [false; 32]);
        for (from, bytes) in chunks {
            let place = &mut map[from as usize..(from + bytes) as usize];
            match coverage.add(from, bytes) {
                Ok(()) => {
                    prop_assert!(!place.contains(&true));
                    place.fill(true);
                }
                Err(Fault::Overlap) => prop_assert!(place.contains(&true)),
                Err(fault) => prop_assert_eq!(fault, Fault::Scattered),
            }
            let end = map.iter().rposition(|came| *came).map_or(0, |last| last + 1);
            prop_assert_eq!(coverage.is_whole(end as u32), end != 0 && !map[..end].contains(&false));
        }
    }
}
