// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What files of volumes say, and where they are wrong.

use atom_payload::spec::{Layout, Terms};

use super::*;
use crate::volume::target::At;

const WHOLE: &str = r#"
[defaults]
deadline = "10s"
block-size = 512

[[volume]]
name = "scratch"
targets = ["ram:64M"]

[[volume]]
name = "db"
layout = "stripe"
chunk = "128K"
size = "1G"
block-size = 4096
hw-queues = 2
queue-depth = 64
polled = true
on-failure = "error"
targets = [
    "bdev:/dev/vdb",
    { at = "nbd://store/db", deadline = "60s", retries = 3, connections = 4, keepalive = "5s" },
]
"#;

#[test]
fn a_file_says_what_its_volumes_are() {
    let listed = parse(WHOLE).unwrap();
    let [scratch, db] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((scratch.line, db.line), (6, 10));
    let scratch = &scratch.volume;
    assert_eq!((scratch.layout, scratch.block_bytes), (Layout::Linear, Some(512)));
    assert_eq!(scratch.targets[0].bytes, Some(64 << 20));

    let db = &db.volume;
    assert_eq!(db.layout, Layout::Stripe { chunk_sectors: 256 });
    assert_eq!((db.bytes, db.block_bytes), (Some(1 << 30), Some(4096)));
    assert_eq!((db.hw_queues, db.queue_depth, db.polled), (2, 64, true));
    assert!(!scratch.polled);
    assert_eq!(db.targets[0].at, At::Bdev("/dev/vdb".to_owned()));
}

#[test]
fn what_a_target_does_not_say_the_volume_says_and_then_the_defaults() {
    let listed = parse(WHOLE).unwrap();
    let scratch = listed[0].volume.targets[0].agreed;
    assert_eq!(scratch.terms, Terms { deadline_ms: 10_000, ..Terms::DEFAULT });
    let [disk, export] = &listed[1].volume.targets[..] else { panic!() };
    let error = OnFailure::Error;
    assert_eq!(
        disk.agreed.terms,
        Terms { deadline_ms: 10_000, on_failure: error, ..Terms::DEFAULT }
    );
    let terms = Terms { deadline_ms: 60_000, on_failure: error, retries: 3, ..Terms::DEFAULT };
    assert_eq!(export.agreed, Agreed { terms, connections: 4, keepalive_s: 5 });
}

#[test]
fn a_file_without_volumes_is_a_file_of_no_volumes() {
    assert_eq!(parse("").unwrap(), []);
    assert_eq!(parse("[defaults]\nretries = 1\n").unwrap(), []);
}

#[test]
fn a_mistake_is_told_with_its_line_its_volume_and_its_field() {
    let volume = "[[volume]]\nname = \"a\"\n";
    let two = "[[volume]]\nname = \"a\"\ntargets = [\"ram:1M\"]\n";
    for (text, told) in [
        ("[[volume]\n".to_owned(), "line 1: "),
        ("\n\na = 1\nb = \n".to_owned(), "line 4: "),
        ("volume = 3".to_owned(), "line 1, volume: this is a number: use [[volume]]"),
        ("volume = [3]".to_owned(), "line 1, volume: this is a number: use [[volume]]"),
        ("\nsize = 3".to_owned(), "line 2, size: there is no such field"),
        ("[defaults]\nchunk = \"4K\"".to_owned(), "line 2, defaults.chunk: there is no such field"),
        ("[defaults]\nretry-max = \"1ms\"".to_owned(), "line 2, defaults.retry-max: 1ms is less"),
        ("defaults = 1".to_owned(), "line 1, defaults: this is a number"),
        ("[[volume]]\ntargets = []".to_owned(), "line 1, volume 1, name: it is missing"),
        ("[[volume]]\nname = \"a b\"".to_owned(), "line 2, volume 1, name: "),
        ("[[volume]]\n\nname = 7".to_owned(), "line 3, volume 1, name: this is a number"),
        (volume.to_owned(), "line 1, volume a, targets: it is missing"),
        (format!("{volume}targets = \"ram:1M\""), "line 3, volume a, targets: this is a string"),
        (format!("{volume}targets = []"), "line 3, volume a, targets: a volume has at least one"),
        (
            format!("{volume}targets = [\n\n3.5]"),
            "line 5, volume a, target 1: this is a number with",
        ),
        (
            format!("{volume}targets = [\"ram:1M\",\n\"tape\"]"),
            "line 4, volume a, target 2: \"tape\" is",
        ),
        (
            format!("{volume}targets = [{{size = 1}}]"),
            "line 3, volume a, target 1.at: it is missing",
        ),
        (
            format!("{volume}targets = [{{at = \"ram:1M\", size = \"1M\"}}]"),
            "line 3, volume a, target 1.size: ram:1M says it already",
        ),
        (
            format!("{volume}targets = [{{at = \"ram\", size = \"1M\", color = 1}}]"),
            "line 3, volume a, target 1.color: there is no such field: known are at, size",
        ),
        (
            format!("{volume}targets = [{{at = \"ram:1M\", deadline = \"25h\"}}]"),
            "line 3, volume a, target 1.deadline: 90000s is more than a day",
        ),
        (format!("{two}connections = 9"), "line 4, volume a, connections: 9 connections"),
        (
            format!("{two}polled = 1"),
            "line 4, volume a, polled: this is a number: use true or false",
        ),
        (format!("{two}hw-queues = -1"), "line 4, volume a, hw-queues: -1 is not a number"),
        (format!("{two}hw-queues = 257"), "line 4, volume a, hw-queues: 257 queues"),
        (format!("{two}block-size = 513"), "line 4, volume a, block-size: 513 bytes"),
        (format!("{two}layout = \"mirror\""), "line 4, volume a, layout: \"mirror\" is no layout"),
        (format!("{two}chunk = \"4K\""), "line 4, volume a, chunk: only a stripe"),
        (
            format!("{two}size = \"2M\""),
            "line 4, volume a, size: the targets give 1 MiB, not 2 MiB",
        ),
        (format!("{two}size = 0"), "line 4, volume a, size: a size is not zero"),
        (
            format!("{two}on-failure = \"weep\""),
            "line 4, volume a, on-failure: \"weep\" is no policy",
        ),
        (
            format!("{two}\n{two}"),
            "line 6, volume a, name: there is a volume of this name on line 1",
        ),
    ] {
        let wrong = parse(&text).unwrap_err().to_string();
        assert!(wrong.starts_with(told), "{text}\nsays: {wrong}\nnot:  {told}");
    }
}

#[test]
fn a_file_that_is_too_long_is_not_read() {
    assert!(parse(&" ".repeat(MAX_FILE_BYTES)).is_ok());
    assert!(parse(&" ".repeat(MAX_FILE_BYTES + 1)).is_err());
}
