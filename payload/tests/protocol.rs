// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Commands and answers.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

mod samples;

use atom_abi::text::Text;
use atom_payload::answers::{
    decode_done, encode_done, Asked, Created, Entry, Late, List, ListWriter, Probed, ASKED_BYTES,
    CREATED_BYTES, DONE_BYTES, END_OF_LIST, ENTRY_BYTES, LATE_BYTES, PROBED_BYTES,
};
use atom_payload::protocol::{Command, Create, ProtocolError, MAX_COMMAND_BYTES};
use atom_payload::shape::{name, Kind, MAX_NAME_BYTES};
use proptest::prelude::*;
use samples::{counts2, kinds, names, volumes};

fn commands() -> impl Strategy<Value = Command<'static>> {
    let queues = (any::<u16>(), any::<u16>(), any::<bool>());
    let create = (names(), kinds(), any::<u64>(), any::<u32>(), queues).prop_map(
        |(name, kind, bytes, block_bytes, (hw_queues, queue_depth, polled))| {
            Command::Create(Create {
                name,
                kind,
                bytes,
                block_bytes,
                hw_queues,
                queue_depth,
                polled,
            })
        },
    );
    prop_oneof![
        create,
        names().prop_map(|name| Command::Destroy { name }),
        any::<u32>().prop_map(|from| Command::List { from }),
        (any::<u8>(), any::<u32>()).prop_map(|(op, requests)| Command::Hold { op, requests }),
        Just(Command::Release),
        Just(Command::Late),
        Just(Command::Asked),
        ("/[ -~]{0,63}", any::<u16>())
            .prop_map(|(path, port)| Command::Keep { path: Text::new(&path), port }),
        any::<u8>().prop_map(|byte| Command::Probe { byte }),
        Just(Command::Drop),
        any::<u32>().prop_map(|pages| Command::Fill { pages }),
    ]
}

fn encoded(command: &Command) -> Vec<u8> {
    let mut buffer = [0; MAX_COMMAND_BYTES];
    let length = command.encode(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

proptest! {
    #[test]
    fn a_command_arrives_as_it_was_sent(command in commands()) {
        let bytes = encoded(&command);
        prop_assert_eq!(Command::decode(&bytes), Ok(command));
    }

    #[test]
    fn a_command_with_bytes_more_or_less_is_refused(command in commands(), more in any::<u8>()) {
        let mut bytes = encoded(&command);
        for length in 0..bytes.len() {
            prop_assert_eq!(Command::decode(&bytes[..length]), Err(ProtocolError::Truncated));
        }
        bytes.push(more);
        prop_assert_eq!(Command::decode(&bytes), Err(ProtocolError::Trailing));
    }

    #[test]
    fn a_command_does_not_write_past_its_buffer(command in commands()) {
        for length in 0..encoded(&command).len() {
            let mut short = vec![0; length];
            prop_assert_eq!(command.encode(&mut short), Err(ProtocolError::NoRoom));
        }
    }

    #[test]
    fn what_is_decoded_from_hostile_bytes_encodes_to_the_same(
        number in 0..16u32,
        version in 0..3u32,
        rest in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let bytes = [&number.to_le_bytes()[..], &version.to_le_bytes(), &rest].concat();
        if let Ok(command) = Command::decode(&bytes) {
            prop_assert_eq!(encoded(&command), bytes);
        }
    }

    #[test]
    fn hostile_answers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode_done(&bytes);
        let _ = Created::decode(&bytes);
        let _ = Late::decode(&bytes);
        let _ = Asked::decode(&bytes);
        let _ = Probed::decode(&bytes);
        if let Ok(list) = List::decode(&bytes) {
            let _ = list.entries().count();
        }
    }

    #[test]
    fn hostile_entries_in_a_sound_list_never_panic(
        entries in 0..4usize,
        bytes in proptest::collection::vec(any::<u8>(), 4 * ENTRY_BYTES),
    ) {
        let words = [1, 2, END_OF_LIST, entries as u32];
        let header: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let answer = [&header[..], &bytes[..entries * ENTRY_BYTES]].concat();
        if let Ok(list) = List::decode(&answer) {
            prop_assert_eq!(list.entries().count(), entries);
        }
    }

    #[test]
    fn a_list_arrives_as_it_was_sent(
        sample in volumes(counts2()),
        schema in 1..3u32,
        next in any::<u32>(),
    ) {
        let mut buffer = vec![0; 16 + sample.len() * ENTRY_BYTES];
        let mut writer = ListWriter::new(&mut buffer, schema).unwrap();
        prop_assert!(writer.is_empty());
        for (volume, counts) in &sample {
            prop_assert!(writer.has_room());
            writer.entry(&Entry { volume: *volume, counts: *counts }).unwrap();
        }
        prop_assert!(!writer.has_room());
        let length = writer.finish(next).unwrap();
        let list = List::decode(&buffer[..length]).unwrap();
        prop_assert_eq!((list.schema, list.next), (schema, next));
        let arrived: Vec<_> = list.entries().map(|entry| (entry.volume, entry.counts)).collect();
        prop_assert_eq!(arrived, sample);
        prop_assert!(List::decode(&buffer[..length - 1]).is_err());
    }

    #[test]
    fn a_created_volume_arrives_as_it_was_sent(volume in any::<u64>(), device in any::<u32>()) {
        let created = Created { volume, device };
        let mut buffer = [0; CREATED_BYTES];
        prop_assert_eq!(created.encode(&mut buffer), Ok(CREATED_BYTES));
        prop_assert_eq!(Created::decode(&buffer), Ok(created));
    }

    #[test]
    fn the_answers_of_the_variants_arrive_as_they_were_sent(
        counts in any::<(u32, u32)>(),
        asked in any::<(u64, u64)>(),
        probed in any::<(u16, u8, [u8; 8])>(),
    ) {
        let late = Late { refused: counts.0, accepted: counts.1 };
        let mut buffer = [0; LATE_BYTES];
        prop_assert_eq!(late.encode(&mut buffer), Ok(LATE_BYTES));
        prop_assert_eq!(Late::decode(&buffer), Ok(late));
        prop_assert_eq!(Late::decode(&buffer[1..]).is_ok(), false);
        let asked = Asked { timeouts: asked.0, paused_ns: asked.1 };
        let mut buffer = [0; ASKED_BYTES];
        prop_assert_eq!(asked.encode(&mut buffer), Ok(ASKED_BYTES));
        prop_assert_eq!(Asked::decode(&buffer), Ok(asked));
        let probed = Probed { port: probed.0, byte: probed.1, first: probed.2 };
        let mut buffer = [0; PROBED_BYTES];
        prop_assert_eq!(probed.encode(&mut buffer), Ok(PROBED_BYTES));
        prop_assert_eq!(Probed::decode(&buffer), Ok(probed));
    }
}

#[test]
fn an_empty_answer_says_only_that_it_is_done() {
    let mut buffer = [0; DONE_BYTES];
    assert_eq!(encode_done(&mut buffer), Ok(DONE_BYTES));
    assert_eq!(decode_done(&buffer), Ok(()));
    assert_eq!(decode_done(&[]), Err(ProtocolError::Truncated));
    assert_eq!(decode_done(&[2, 0, 0, 0]), Err(ProtocolError::Version(2)));
}

#[test]
fn another_version_and_an_unknown_number_are_told_apart() {
    let bytes = |number: u32, version: u32| [number.to_le_bytes(), version.to_le_bytes()].concat();
    assert_eq!(Command::decode(&bytes(5, 2)), Err(ProtocolError::Version(2)));
    assert_eq!(Command::decode(&bytes(99, 1)), Err(ProtocolError::UnknownCommand(99)));
    assert_eq!(Command::decode(&bytes(5, 1)), Ok(Command::Release));
}

#[test]
fn only_names_of_plain_characters_are_taken() {
    assert!(name("vol-0_A.b").is_some());
    for bad in ["", " ", "a b", "a/b", "ä", "a\0b", &"x".repeat(MAX_NAME_BYTES + 1)] {
        assert_eq!(name(bad), None, "{bad:?}");
    }
    assert!(name(&"x".repeat(MAX_NAME_BYTES)).is_some());
}

#[test]
fn a_name_with_bytes_behind_its_end_is_refused() {
    let mut bytes = encoded(&Command::Destroy { name: name("disk").unwrap() });
    bytes[8 + 10] = b'x';
    assert_eq!(Command::decode(&bytes), Err(ProtocolError::Invalid("name")));
}

#[test]
fn a_path_that_is_not_absolute_or_has_bytes_behind_its_end_is_refused() {
    let keep = |path: &str| Command::Keep { path: Text::new(path), port: 1 };
    let refused = Err(ProtocolError::Invalid("path"));
    assert_eq!(Command::decode(&encoded(&keep("dev/sda"))), refused);
    assert_eq!(Command::decode(&encoded(&keep(""))), refused);
    let mut bytes = encoded(&keep("/dev/sda"));
    bytes[8 + 10] = b'x';
    assert_eq!(Command::decode(&bytes), refused);
    let mut bytes = encoded(&keep("/dev/sda"));
    bytes[8 + 64 + 2] = 1;
    assert_eq!(Command::decode(&bytes), Err(ProtocolError::Invalid("port")));
}

#[test]
fn a_volume_that_atom_could_not_have_is_refused() {
    let sound = Create {
        name: name("disk").unwrap(),
        kind: Kind::Ram,
        bytes: 1 << 30,
        block_bytes: 512,
        hw_queues: 4,
        queue_depth: 64,
        polled: false,
    };
    assert!(sound.shape().is_ok());
    for bad in [
        Create { bytes: 0, ..sound },
        Create { bytes: 1000, ..sound },
        Create { bytes: 512, block_bytes: 4096, ..sound },
        Create { block_bytes: 256, ..sound },
        Create { block_bytes: 8192, ..sound },
        Create { block_bytes: 1536, ..sound },
        Create { hw_queues: 257, ..sound },
        Create { queue_depth: u16::MAX, ..sound },
    ] {
        assert!(bad.shape().is_err(), "{bad:?}");
    }
}

#[test]
fn a_new_volume_is_never_named_like_a_folder() {
    let name = Text::new("..");
    let create = Create {
        name,
        kind: Kind::Ram,
        bytes: 1 << 20,
        block_bytes: 4096,
        hw_queues: 1,
        queue_depth: 1,
        polled: false,
    };
    let refused = Err(ProtocolError::Invalid("name"));
    assert_eq!(Command::decode(&encoded(&Command::Create(create))), refused);
    let bytes = encoded(&Command::Create(Create { name: Text::new("..."), ..create }));
    assert!(Command::decode(&bytes).is_ok());
    // What is there, from before this was looked at, can still go.
    assert!(Command::decode(&encoded(&Command::Destroy { name })).is_ok());
}

#[test]
fn a_volume_without_options_is_asked_for_as_it_was_before_there_were_some() {
    let plain = Create {
        name: name("disk").unwrap(),
        kind: Kind::Null,
        bytes: 1 << 20,
        block_bytes: 4096,
        hw_queues: 1,
        queue_depth: 1,
        polled: false,
    };
    let polled = Create { polled: true, ..plain };
    let [before, with] = [plain, polled].map(|create| encoded(&Command::Create(create)));
    let differ: Vec<_> = (0..with.len()).filter(|at| before[*at] != with[*at]).collect();
    // The highest byte of the kind: to a payload that has no such option it is a kind that it does not know.
    assert_eq!((before.len(), differ), (with.len(), vec![8 + 64 + 3]));
    let mut unknown = before.clone();
    unknown[8 + 64 + 3] = 0x40;
    assert_eq!(Command::decode(&unknown), Err(ProtocolError::Invalid("kind")));
}
