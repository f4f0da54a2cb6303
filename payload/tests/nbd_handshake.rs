// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The handshake with an NBD server: servers of every kind, and hostile ones.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

use atom_payload::nbd::handshake::{Agreed, Blocks, Goal, Handshake, Refusal};
use atom_payload::nbd::wire::{
    handshake_flag, info, option, reply, transmission, IHAVEOPT, INIT_PASSWD, OLDSTYLE,
    OPTION_REPLY,
};
use proptest::prelude::*;

const FLAGS: u16 = transmission::HAS_FLAGS | transmission::SEND_FLUSH | transmission::SEND_TRIM;
const BOTH: u16 = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;

fn greeting(flags: u16) -> Vec<u8> {
    [&INIT_PASSWD.to_be_bytes()[..], &IHAVEOPT.to_be_bytes(), &flags.to_be_bytes()].concat()
}

fn answer(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    [
        &OPTION_REPLY.to_be_bytes()[..],
        &option.to_be_bytes(),
        &kind.to_be_bytes(),
        &(data.len() as u32).to_be_bytes(),
        data,
    ]
    .concat()
}

fn export_info(bytes: u64, flags: u16) -> Vec<u8> {
    [&info::EXPORT.to_be_bytes()[..], &bytes.to_be_bytes(), &flags.to_be_bytes()].concat()
}

fn block_info(minimum: u32, preferred: u32, maximum: u32) -> Vec<u8> {
    let sizes = [minimum, preferred, maximum].map(u32::to_be_bytes).concat();
    [&info::BLOCK_SIZE.to_be_bytes()[..], &sizes].concat()
}

/// A server that says everything at once; its bytes arrive in pieces of these lengths, in turn.
fn talk(
    said: &[u8],
    goal: Goal,
    pieces: &[usize],
) -> (Result<Option<Agreed>, Refusal>, Vec<u8>, usize) {
    let mut client = Handshake::new("disk", goal).unwrap();
    let mut sent = Vec::new();
    let mut at = 0;
    for piece in pieces.iter().cycle() {
        let output = client.output().to_vec();
        client.sent(output.len());
        sent.extend(output);
        let length = client.wanted().min(*piece).min(said.len() - at);
        if length == 0 {
            break;
        }
        if let Err(refusal) = client.receive(&said[at..at + length]) {
            return (Err(refusal), sent, at + length);
        }
        at += length;
    }
    (Ok(client.agreed()), sent, at)
}

fn whole(said: &[u8]) -> Result<Option<Agreed>, Refusal> {
    talk(said, Goal::Transmission, &[usize::MAX]).0
}

fn modern() -> Vec<u8> {
    [
        greeting(BOTH),
        answer(option::STRUCTURED_REPLY, reply::ACK, &[]),
        answer(option::GO, reply::INFO, &[&[0, 1][..], b"disk"].concat()),
        answer(option::GO, reply::INFO, &export_info(1 << 30, FLAGS)),
        answer(option::GO, reply::INFO, &block_info(4096, 8192, 1 << 20)),
        answer(option::GO, reply::ACK, &[]),
    ]
    .concat()
}

const MODERN: Agreed = Agreed {
    bytes: 1 << 30,
    flags: FLAGS,
    blocks: Blocks { minimum: 4096, preferred: 8192, maximum: 1 << 20 },
    structured: true,
};

#[test]
fn a_modern_server_is_understood_and_nothing_behind_its_last_reply_is_taken() {
    let mut said = modern();
    let length = said.len();
    said.extend([0xee; 40]);
    let (agreed, sent, taken) = talk(&said, Goal::Transmission, &[usize::MAX]);
    assert_eq!(agreed, Ok(Some(MODERN)));
    assert_eq!(taken, length);
    let mut expected = 3u32.to_be_bytes().to_vec();
    for (code, data) in [
        (option::STRUCTURED_REPLY, &[][..]),
        (option::GO, &[&[0, 0, 0, 4][..], b"disk", &[0, 1, 0, 3]].concat()[..]),
    ] {
        expected.extend(IHAVEOPT.to_be_bytes());
        expected.extend(code.to_be_bytes());
        expected.extend((data.len() as u32).to_be_bytes());
        expected.extend(data);
    }
    assert_eq!(sent, expected);
}

#[test]
fn the_facts_are_asked_for_without_entering_the_transmission_phase() {
    let said = [
        greeting(BOTH),
        answer(option::STRUCTURED_REPLY, reply::ERR_UNSUP, b"no"),
        answer(option::INFO, reply::INFO, &export_info(512, FLAGS)),
        answer(option::INFO, reply::ACK, &[]),
    ]
    .concat();
    let agreed = talk(&said, Goal::Facts, &[7]).0.unwrap().unwrap();
    assert_eq!((agreed.bytes, agreed.structured, agreed.blocks), (512, false, Blocks::DEFAULT));
}

#[test]
fn a_server_without_go_is_asked_by_name_with_and_without_its_zeroes() {
    for (flags, zeroes) in [(BOTH, 0), (handshake_flag::FIXED_NEWSTYLE, 124), (0, 124)] {
        let options = [
            answer(option::STRUCTURED_REPLY, reply::ERR_UNSUP, &[]),
            answer(option::GO, reply::ERR_UNSUP, b"what?"),
        ];
        let options = if flags == 0 { Vec::new() } else { options.concat() };
        let said = [
            greeting(flags),
            options,
            (1u64 << 20).to_be_bytes().to_vec(),
            FLAGS.to_be_bytes().to_vec(),
            vec![0; zeroes],
        ]
        .concat();
        let (agreed, sent, taken) = talk(&said, Goal::Transmission, &[usize::MAX]);
        assert_eq!(agreed.unwrap().unwrap().bytes, 1 << 20);
        assert_eq!(taken, said.len());
        assert!(sent.ends_with(&[0, 0, 0, 1, 0, 0, 0, 4, b'd', b'i', b's', b'k']), "{sent:?}");
    }
}

#[test]
fn what_a_server_refuses_is_named() {
    let until_go = |last: Vec<u8>| {
        let ack = answer(option::STRUCTURED_REPLY, reply::ACK, &[]);
        whole(&[greeting(BOTH), ack, last].concat())
    };
    let go = |kind, data: &[u8]| until_go(answer(option::GO, kind, data));
    assert_eq!(go(reply::ERR_UNKNOWN, b"no such export"), Err(Refusal::UnknownExport));
    assert_eq!(go(reply::ERR_TLS_REQD, &[]), Err(Refusal::Tls));
    assert_eq!(go(reply::ERR_SHUTDOWN, &[]), Err(Refusal::ShuttingDown));
    assert_eq!(go(reply::ERR_POLICY, &[]), Err(Refusal::Forbidden));
    assert_eq!(go(reply::ERR_INVALID, &[]), Err(Refusal::Refused(reply::ERR_INVALID)));
    assert_eq!(go(reply::ACK, &[]), Err(Refusal::NoExport));
    assert_eq!(go(reply::ACK, &[1]), Err(Refusal::NoExport).or(Err(Refusal::TooLong(1))));
    assert_eq!(go(reply::INFO, &[0]), Err(Refusal::Unexpected(reply::INFO)));
    assert_eq!(go(2, &[]), Err(Refusal::Unexpected(2)));
    assert_eq!(go(reply::INFO, &[0; 11]), Err(Refusal::BadExport));
    assert_eq!(go(reply::INFO, &export_info(4096, 0)), Err(Refusal::BadExport));
    assert_eq!(go(reply::INFO, &export_info(1 << 63, FLAGS)), Err(Refusal::BadExport));
    for (minimum, preferred, maximum) in [
        (0, 512, 512),
        (3, 512, 512),
        (1 << 17, 1 << 17, 1 << 20),
        (4096, 512, 4096),
        (512, 512, 511),
    ] {
        let said = go(reply::INFO, &block_info(minimum, preferred, maximum));
        assert_eq!(said, Err(Refusal::BadExport), "{minimum} {preferred} {maximum}");
    }
    assert_eq!(until_go(answer(option::INFO, reply::ACK, &[])), Err(Refusal::NoReply));
    assert_eq!(whole(&[0x55; 18]), Err(Refusal::NotNbd));
    let old = [&INIT_PASSWD.to_be_bytes()[..], &OLDSTYLE.to_be_bytes(), &[0; 2]].concat();
    assert_eq!(whole(&old), Err(Refusal::OldStyle));
}

#[test]
fn a_server_that_sends_too_much_is_left() {
    let start = [greeting(BOTH), answer(option::STRUCTURED_REPLY, reply::ACK, &[])].concat();
    let long = [&start[..], &answer(option::GO, reply::INFO, &[9; 20 << 10])].concat();
    assert_eq!(whole(&long), Err(Refusal::TooLong(20 << 10)));
    let mut many = start;
    for _ in 0..65 {
        many.extend(answer(option::GO, reply::INFO, &[0, 9, 1]));
    }
    assert_eq!(whole(&many), Err(Refusal::TooMany));
}

#[test]
fn the_servers_own_words_are_kept_as_far_as_they_are_text() {
    let said = [
        greeting(BOTH),
        answer(option::STRUCTURED_REPLY, reply::ACK, &[]),
        answer(option::GO, reply::ERR_UNKNOWN, b"export 'disk'\nis gone \xff"),
    ]
    .concat();
    let mut client = Handshake::new("disk", Goal::Transmission).unwrap();
    let mut refused = false;
    for byte in said {
        refused |= client.receive(&[byte]).is_err();
    }
    assert!(refused);
    assert_eq!(client.words(), "export 'disk'");
}

#[test]
fn a_name_that_is_too_long_is_refused() {
    assert!(Handshake::new(&"x".repeat(255), Goal::Facts).is_some());
    assert!(Handshake::new(&"x".repeat(256), Goal::Facts).is_none());
}

/// Replies as a server could send them, some of them wrong.
fn dialogue() -> impl Strategy<Value = Vec<u8>> {
    let option = prop_oneof![Just(option::GO), Just(option::STRUCTURED_REPLY), any::<u32>()];
    let kind =
        prop_oneof![Just(reply::ACK), Just(reply::INFO), Just(reply::ERR_UNSUP), any::<u32>(),];
    let data = prop_oneof![
        Just(Vec::new()),
        Just(export_info(1 << 20, FLAGS)),
        Just(block_info(512, 4096, 1 << 20)),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::vec((option, kind, data), 0..8).prop_map(|replies| {
        let mut said = greeting(BOTH);
        for (option, kind, data) in replies {
            said.extend(answer(option, kind, &data));
        }
        said
    })
}

proptest! {
    #[test]
    fn it_makes_no_difference_where_the_bytes_are_split(
        said in prop_oneof![
            dialogue(),
            Just(modern()),
            proptest::collection::vec(any::<u8>(), 0..200),
        ],
        pieces in proptest::collection::vec(1..40usize, 1..20),
    ) {
        let (one, sent_at_once, _) = talk(&said, Goal::Transmission, &[usize::MAX]);
        let (other, sent, _) = talk(&said, Goal::Transmission, &pieces);
        prop_assert_eq!(one, other);
        prop_assert_eq!(sent_at_once, sent);
    }

    #[test]
    fn what_is_agreed_is_sound(said in dialogue()) {
        if let Ok(Some(agreed)) = whole(&said) {
            prop_assert!(agreed.blocks.is_valid());
            prop_assert!(agreed.bytes <= i64::MAX as u64);
            prop_assert!(agreed.flags & transmission::HAS_FLAGS != 0);
        }
    }
}
