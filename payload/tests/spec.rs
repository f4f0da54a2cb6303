// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What a volume is made of, the commands about it, and their answers.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

mod samples;

use atom_payload::answers::{
    decode_outcome_done, encode_outcome_done, Composed, Given, Outcome, Refused,
    MAX_COMPOSED_BYTES, MAX_WHY_BYTES,
};
use atom_payload::counts::{Counts2, OPS};
use atom_payload::latency::{bucket, bucket_end_ns, OpLatency, BUCKETS};
use atom_payload::limits::Facts;
use atom_payload::protocol::{Command, Compose, Output, ProtocolError, MAX_COMMAND_BYTES};
use atom_payload::shown::{Connection, Shown, ShownWriter, Status, TargetState};
use atom_payload::spec::{
    Address, Layout, Made, Nbd, OnFailure, Source, Target, Terms, MAX_CONNECTIONS, MAX_MADE_BYTES,
    MAX_STRING_BYTES, MAX_TARGETS,
};
use proptest::prelude::*;
use samples::{kept_composed, kept_failures, kept_latency, kept_made, made_bytes, names};

/// A target without borrows.
#[derive(Clone, Debug)]
enum Kind {
    Null,
    Ram,
    Bdev(String),
    V4([u8; 4], u16, String, String),
    V6([u8; 16], u16, u32, String, String),
    Unix(String, String),
}

fn kinds() -> impl Strategy<Value = Kind> {
    let text = || "[ -~]{0,255}";
    prop_oneof![
        Just(Kind::Null),
        Just(Kind::Ram),
        "/[ -~]{0,254}".prop_map(Kind::Bdev),
        (any::<[u8; 4]>(), 1..=u16::MAX, text(), text())
            .prop_map(|(a, p, h, e)| Kind::V4(a, p, h, e)),
        (any::<[u8; 16]>(), 1..=u16::MAX, any::<u32>(), text(), text())
            .prop_map(|(a, p, s, h, e)| Kind::V6(a, p, s, h, e)),
        ("/[ -~]{0,106}", text()).prop_map(|(p, e)| Kind::Unix(p, e)),
    ]
}

type Sample = (Kind, u64, u32, bool);

fn target((kind, sectors, number, hold): &Sample) -> Target<'_> {
    let connections = 1 + number % MAX_CONNECTIONS;
    let nbd = |address, export| {
        Source::Nbd(Nbd { address, export, connections, keepalive_s: number % 32768 })
    };
    let source = match kind {
        Kind::Null => Source::Null,
        Kind::Ram => Source::Ram,
        Kind::Bdev(path) => Source::Bdev(path),
        Kind::V4(address, port, host, export) => {
            nbd(Address::V4 { address: *address, port: *port, host }, export)
        }
        Kind::V6(address, port, scope, host, export) => {
            nbd(Address::V6 { address: *address, port: *port, scope: *scope, host }, export)
        }
        Kind::Unix(path, export) => nbd(Address::Unix { path }, export),
    };
    let on_failure = if *hold { OnFailure::Hold } else { OnFailure::Error };
    let terms =
        Terms { on_failure, deadline_ms: number % 86_400_001, retries: *number, ..Terms::DEFAULT };
    Target { source, sectors: *sectors, terms }
}

fn samples_of() -> impl Strategy<Value = (Layout, Vec<Sample>)> {
    let layouts = prop_oneof![
        Just(Layout::Linear),
        (3..22u32).prop_map(|shift| Layout::Stripe { chunk_sectors: 1 << shift }),
    ];
    let one = (kinds(), 0..1u64 << 54, any::<u32>(), any::<bool>());
    (layouts, proptest::collection::vec(one, 1..=MAX_TARGETS))
}

fn encoded(layout: Layout, targets: &[Sample]) -> Vec<u8> {
    let mut bytes = vec![0; MAX_MADE_BYTES];
    let mut out = Output::new(&mut bytes);
    Made::encode(layout, targets.iter().map(target), &mut out).unwrap();
    let length = out.len();
    bytes.truncate(length);
    bytes
}

proptest! {
    #[test]
    fn what_a_volume_is_made_of_arrives_as_it_was_sent((layout, targets) in samples_of()) {
        let bytes = encoded(layout, &targets);
        let made = Made::decode(&bytes).unwrap();
        prop_assert_eq!((made.layout, made.len(), made.bytes()), (layout, targets.len(), bytes.len()));
        prop_assert!(made.targets().eq(targets.iter().map(target)));
        let mut again = vec![0; bytes.len()];
        made.put(&mut Output::new(&mut again)).unwrap();
        prop_assert_eq!(&again, &bytes);
        for length in 0..bytes.len() {
            prop_assert_eq!(Made::decode(&bytes[..length]), Err(ProtocolError::Truncated));
        }
        let longer = [&bytes[..], &[0]].concat();
        prop_assert_eq!(Made::decode(&longer), Err(ProtocolError::Trailing));
    }

    #[test]
    fn changed_bytes_are_refused_or_read_to_what_they_say(
        (layout, targets) in samples_of(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encoded(layout, &targets);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(made) = Made::decode(&bytes) {
            prop_assert_eq!(made.targets().count(), made.len());
            prop_assert!(made.targets().all(|target| target.terms.is_valid()));
        }
    }

    #[test]
    fn a_command_about_targets_arrives_as_it_was_sent(
        (layout, targets) in samples_of(),
        name in names(),
        numbers in (any::<u32>(), any::<u16>(), any::<u16>(), any::<bool>()),
    ) {
        let bytes = encoded(layout, &targets);
        let made = Made::decode(&bytes).unwrap();
        let (block_bytes, hw_queues, queue_depth, polled) = numbers;
        for command in [
            Command::Compose(Compose { name, block_bytes, hw_queues, queue_depth, polled, made }),
            Command::Resize { name, made },
            Command::Show { name },
            Command::Reconnect { name, target: block_bytes },
        ] {
            let mut buffer = [0; MAX_COMMAND_BYTES];
            let length = command.encode(&mut buffer).unwrap();
            prop_assert_eq!(Command::decode(&buffer[..length]), Ok(command));
            prop_assert!(Command::decode(&buffer[..length - 1]).is_err());
        }
    }

    #[test]
    fn a_refusal_arrives_with_as_much_of_its_reason_as_fits(
        errno in any::<u32>(),
        target in proptest::option::of(0..16u32),
        why in ".{0,300}",
    ) {
        let mut buffer = [0; 256];
        let length = Refused { errno, target, why: &why }.encode(&mut buffer).unwrap();
        let Ok(Outcome::Refused(read)) = decode_outcome_done(&buffer[..length]) else {
            return Err(TestCaseError::fail("it was refused"));
        };
        prop_assert_eq!((read.errno, read.target), (errno, target));
        prop_assert!(why.starts_with(read.why) && read.why.len() <= MAX_WHY_BYTES);
        prop_assert!(read.why == why || read.why.len() > MAX_WHY_BYTES - 4);
    }

    #[test]
    fn hostile_answers_about_targets_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
        let sound = [&1u32.to_le_bytes()[..], &0u32.to_le_bytes(), &bytes].concat();
        for bytes in [&bytes, &sound] {
            let _ = decode_outcome_done(bytes);
            if let Ok(Outcome::Done(composed)) = Composed::decode(bytes) {
                let _ = composed.targets().count();
            }
            let _ = Shown::decode(bytes);
        }
    }

    #[test]
    fn a_length_of_time_is_in_the_class_whose_end_is_behind_it(ns in any::<u64>()) {
        let class = bucket(ns);
        prop_assert!(class < BUCKETS);
        prop_assert!(bucket_end_ns(class).is_none_or(|end| ns < end));
        if let Some(before) = class.checked_sub(1) {
            prop_assert!(bucket_end_ns(before).is_some_and(|end| ns >= end));
        }
    }

    #[test]
    fn latency_that_goes_up_and_down_again_is_the_same(
        unplaced in 0..1u64 << 40,
        buckets in proptest::array::uniform32(0..1u64 << 40),
    ) {
        let five = OpLatency { unplaced, total_ns: 5, longest_ns: 6, buckets };
        let through = |latency: &OpLatency, schema| {
            let bytes = latency.encode(schema, |bytes| bytes.to_vec());
            OpLatency::decode(schema, &mut atom_abi::image::Fields::new(&bytes)).unwrap()
        };
        prop_assert_eq!(through(&five, 5), five);
        let four = through(&five, 4);
        prop_assert_eq!(four.count(), five.count());
        prop_assert_eq!(through(&through(&four, 5), 4), four);
        prop_assert_eq!(through(&four, 5).buckets, [0; BUCKETS]);
    }
}

#[test]
fn an_answer_to_compose_arrives_as_it_was_sent() {
    let given = [Given { used: 1, sectors: 2 }, Given { used: 3, sectors: 4 }];
    let mut buffer = [0; MAX_COMPOSED_BYTES];
    let length = Composed::encode(7, 8, 9, given.into_iter(), &mut buffer).unwrap();
    let Ok(Outcome::Done(read)) = Composed::decode(&buffer[..length]) else {
        panic!("it was carried out");
    };
    assert_eq!((read.volume, read.device, read.sectors), (7, 8, 9));
    assert!(read.targets().eq(given));
    let length = encode_outcome_done(&mut buffer).unwrap();
    assert_eq!(decode_outcome_done(&buffer[..length]), Ok(Outcome::Done(())));
}

#[test]
fn what_is_shown_of_a_volume_arrives_as_it_was_sent() {
    let bytes = made_bytes();
    let made = kept_made(&bytes);
    let volume = kept_composed();
    let mut buffer = vec![0; 64 << 10];
    let counts = Counts2::default();
    let mut writer = ShownWriter::new(&mut buffer, 5, &volume, &counts, &made).unwrap();
    let connection =
        |local_port| Connection { local_port, state: TargetState::Retrying, sent: 10, answered: 9 };
    let status = |number: u32| Status {
        state: TargetState::Failed,
        connections: number,
        wanted: 4,
        waiting: 5,
        since_ns: 6,
        reconnects: 7,
        resent: 8,
        protocol_errors: 9,
        failures: 10,
        pages: 11,
        facts: Facts::of_memory(12),
        last_error: atom_abi::text::Text::new("no answer"),
    };
    for number in 0..4 {
        let connections = (0..number as u16).map(connection).collect::<Vec<_>>();
        let failures = kept_failures();
        writer
            .target(&status(number), connections.into_iter(), kept_latency, failures.failures())
            .unwrap();
    }
    let length = writer.finish();
    let Ok(Outcome::Done(shown)) = Shown::decode(&buffer[..length]) else {
        panic!("it was carried out");
    };
    assert_eq!((shown.schema, shown.volume, shown.made), (5, volume, made));
    let mut seen = 0;
    for (number, target) in shown.targets().enumerate() {
        assert_eq!(target.status, status(number as u32));
        assert!(target.connections().eq((0..number as u16).map(connection)));
        assert!(target
            .latency()
            .eq(OPS.into_iter().enumerate().map(|(at, op)| (op, kept_latency(at)))));
        assert!(target.failures().eq(kept_failures().failures()));
        seen += 1;
    }
    assert_eq!(seen, 4);
    for length in 0..length {
        assert!(Shown::decode(&buffer[..length]).is_err());
    }
}

#[test]
fn what_no_volume_can_be_made_of_is_refused() {
    let nbd = |address, connections, keepalive_s| {
        Source::Nbd(Nbd { address, export: "", connections, keepalive_s })
    };
    let host = Address::V4 { address: [1, 2, 3, 4], port: 1, host: "h" };
    let long = format!("/{}", "x".repeat(MAX_STRING_BYTES));
    let of = |layout, source, terms: Terms, sectors| {
        let mut bytes = vec![0; MAX_MADE_BYTES];
        let mut out = Output::new(&mut bytes);
        let one = [Target { source, sectors, terms }];
        Made::encode(layout, one.into_iter(), &mut out).unwrap();
        let length = out.len();
        Made::decode(&bytes[..length]).map(|made| made.len())
    };
    let source = |source| of(Layout::Linear, source, Terms::DEFAULT, 8);
    assert_eq!(source(nbd(host, 1, 0)), Ok(1));
    let invalid = |outcome, field| assert_eq!(outcome, Err(ProtocolError::Invalid(field)));
    invalid(source(nbd(host, 0, 0)), "number of connections");
    invalid(source(nbd(host, MAX_CONNECTIONS + 1, 0)), "number of connections");
    invalid(source(nbd(host, 1, 32768)), "keep-alive");
    invalid(source(nbd(Address::V4 { address: [0; 4], port: 0, host: "" }, 1, 0)), "port");
    invalid(source(nbd(Address::Unix { path: "here" }, 1, 0)), "path");
    invalid(source(nbd(Address::Unix { path: &long[..108] }, 1, 0)), "address");
    invalid(source(Source::Bdev("vda")), "path");
    invalid(source(Source::Bdev("/dev/\0")), "string");
    invalid(source(Source::Bdev(&long)), "length of a string");
    let stripe =
        |chunk_sectors| of(Layout::Stripe { chunk_sectors }, Source::Null, Terms::DEFAULT, 8);
    assert_eq!(stripe(8), Ok(1));
    for chunk_sectors in [0, 4, 12, 4 << 20] {
        invalid(stripe(chunk_sectors), "chunk size");
    }
    let terms = |terms| of(Layout::Linear, Source::Null, terms, 8);
    invalid(terms(Terms { retry_ms: 99, ..Terms::DEFAULT }), "time of a target");
    invalid(terms(Terms { deadline_ms: 86_400_001, ..Terms::DEFAULT }), "time of a target");
    invalid(of(Layout::Linear, Source::Null, Terms::DEFAULT, u64::MAX), "size of a target");
}
