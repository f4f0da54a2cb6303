// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The payload's reader of all volumes, in every schema: the bytes as they are, and within a frame that fits. What it
//! takes is written again, and must then be the same.

#![no_main]

use atom_abi::text::Text;
use atom_abi::version::SchemaRange;
use atom_fuzz::{budget, frame};
use atom_payload::counts::OPS;
use atom_payload::history::History;
use atom_payload::latency::OpLatency;
use atom_payload::shape::Description;
use atom_payload::spec::Source;
use atom_payload::state::{
    composed_bytes, image_bytes, Export, Import, Past, SCHEMA_MAX, SCHEMA_MIN,
};
use libfuzzer_sys::fuzz_target;

/// All schemas that there are.
const RANGE: SchemaRange = SchemaRange {
    read_min: SCHEMA_MIN,
    read_max: SCHEMA_MAX,
    write_min: SCHEMA_MIN,
    write_max: SCHEMA_MAX,
};

fn read(bytes: &[u8]) {
    let Ok(import) = budget::within(0, || Import::parse(bytes, &RANGE)) else { return };
    let volumes: Vec<_> = import.volumes().collect();
    assert_eq!(volumes.len(), import.volumes, "the table counts the volumes");
    let mut more = 0;
    let mut walk = import.volumes();
    while walk.next().is_some() {
        if let Some(past) = walk.past() {
            let nbd = past.targets().iter().map(|target| target.nbd.len()).max().unwrap_or(0);
            more += composed_bytes(&past.made, nbd);
        }
    }

    // In the newest schema nothing is lost, so reading and writing again changes nothing.
    let bound = image_bytes(SCHEMA_MAX, volumes.len()).expect("it was read, so it can be counted");
    let mut again = vec![0; bound + more];
    let producer = Text::new("fuzz");
    let mut export =
        Export::new(&mut again, &producer, SCHEMA_MAX, volumes.len(), import.next_serial)
            .expect("there is room for the table");
    let mut walk = import.volumes();
    while let Some((volume, counts)) = walk.next() {
        export.volume(&volume, counts).expect("there is room for each volume");
        if let Some(past) = walk.past() {
            write_past(&mut export, &volume, past);
        }
    }
    let used = export.finish().expect("there is room for the end");
    let second = Import::parse(&again[..used], &RANGE).expect("what was written is read");
    assert_eq!(second.next_serial, import.next_serial);
    for ((first, counts), (second, read)) in volumes.iter().zip(second.volumes()) {
        assert_eq!(*first, second, "a volume is as it was");
        assert_eq!(counts.as_three(), read.as_three(), "statistics are as they were");
    }
}

/// Writes what was left of a volume over targets.
fn write_past(export: &mut Export<'_>, volume: &Description, past: &Past<'_>) {
    export.made(volume.id, &past.limits, &past.made).expect("there is room for what it is made of");
    for (at, (target, spec)) in past.targets().iter().zip(past.made.targets()).enumerate() {
        let history = History::default();
        target.failures(&history);
        let mut latency = [OpLatency::default(); OPS.len()];
        target.latency(|op, measured| latency[op] = *measured);
        export
            .target(volume.id, at, target.pages, &history, |op| latency[op])
            .expect("there is room for each target");
        if matches!(spec.source, Source::Nbd(_)) {
            export.nbd(volume.id, at, target.nbd).expect("there is room for its record");
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    if let Some(sealed) = frame::sealed(bytes) {
        read(&sealed);
    }
});
