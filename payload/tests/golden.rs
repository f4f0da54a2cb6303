// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Images that were written once and are kept: whatever is released later has to read them.
//!
//! A file in `golden/` is never edited and never written again. `ATOM_BLESS=1` writes those that are
//! missing, as for a new schema.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

mod samples;

use std::path::PathBuf;
use std::sync::Once;

use atom_abi::crc32c::crc32c;
use atom_abi::image::{Image, Record};
use atom_abi::text::Text;
use atom_abi::version::SchemaRange;
use atom_payload::counts::{Counts, OPS};
use atom_payload::history::History;
use atom_payload::shape::Description;
use atom_payload::state::{
    image_bytes, Export, Import, ImportError, SCHEMA_MAX, SCHEMA_MIN, SCHEMA_TARGETS,
};
use proptest::prelude::*;
use samples::{
    export_composed, kept_composed, kept_counts, kept_failures, kept_latency, kept_limits,
    kept_made, kept_volumes, made_bytes, KEPT_NBD, NEXT_SERIAL,
};

/// An image that is kept: its file, the version that wrote it, and its schema.
struct Kept {
    file: &'static str,
    producer: &'static str,
    schema: u32,
    others: &'static [Record<'static>],
}

const UNKNOWN: Record<'static> = Record {
    key: 0x7001,
    version: 7,
    flags: 0,
    bytes: b"forty bytes that only one version knows.",
};

const ALL: [Kept; 6] = [
    Kept { file: "schema-1.img", producer: "1.0.0", schema: 1, others: &[] },
    Kept { file: "schema-2.img", producer: "1.1.0", schema: 2, others: &[] },
    Kept { file: "schema-3.img", producer: "1.2.0", schema: 3, others: &[] },
    Kept { file: "schema-4.img", producer: "2.0.0", schema: 4, others: &[] },
    Kept { file: "schema-5.img", producer: "2.1.0", schema: 5, others: &[] },
    Kept { file: "carried.img", producer: "1.1.0", schema: 2, others: &[UNKNOWN] },
];

impl Kept {
    fn path(&self) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "tests", "golden", self.file].iter().collect()
    }

    fn volumes(&self) -> Vec<(Description, Counts)> {
        let mut volumes: Vec<_> =
            kept_volumes().into_iter().zip(kept_counts(self.schema)).collect();
        if self.schema >= SCHEMA_TARGETS {
            volumes.insert(2, (kept_composed(), volumes[0].1));
        }
        volumes
    }

    /// The image as it is written today.
    fn written(&self) -> Vec<u8> {
        let volumes = self.volumes();
        let mut buffer = vec![0; image_bytes(self.schema, volumes.len()).unwrap() + (32 << 10)];
        let producer = Text::new(self.producer);
        let mut image =
            Export::new(&mut buffer, &producer, self.schema, volumes.len(), NEXT_SERIAL).unwrap();
        for (volume, counts) in volumes {
            image.volume(&volume, counts).unwrap();
            if !volume.shape.kind.is_simple() {
                export_composed(&mut image, &volume);
            }
        }
        for record in self.others {
            image.other(record).unwrap();
        }
        let length = image.finish().unwrap();
        buffer.truncate(length);
        buffer
    }

    /// The image as it was written then.
    fn read(&self) -> Vec<u8> {
        static BLESSED: Once = Once::new();
        BLESSED.call_once(|| {
            if std::env::var_os("ATOM_BLESS").is_some_and(|value| value == "1") {
                for kept in ALL.iter().filter(|kept| !kept.path().exists()) {
                    std::fs::write(kept.path(), kept.written()).unwrap();
                }
            }
        });
        let path = self.path();
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

const fn range(min: u32, max: u32) -> SchemaRange {
    SchemaRange { read_min: min, read_max: max, write_min: min, write_max: max }
}

const EVERY: SchemaRange = range(SCHEMA_MIN, SCHEMA_MAX);

#[test]
fn every_image_that_is_kept_reads_to_the_volumes_and_counts_that_it_was_written_with() {
    for kept in &ALL {
        let bytes = kept.read();
        let import = Import::parse(&bytes, &EVERY).unwrap();
        assert_eq!(import.volumes().collect::<Vec<_>>(), kept.volumes(), "{}", kept.file);
        assert_eq!(import.next_serial, NEXT_SERIAL, "{}", kept.file);
        assert_eq!(import.carried().collect::<Vec<_>>(), kept.others, "{}", kept.file);
        let image = Image::parse(&bytes).unwrap();
        assert_eq!((image.producer().as_str(), image.schema()), (kept.producer, kept.schema));
    }
}

#[test]
fn a_volume_over_targets_that_is_kept_reads_to_what_was_left_of_it() {
    for kept in ALL.iter().filter(|kept| kept.schema >= SCHEMA_TARGETS) {
        let bytes = kept.read();
        let import = Import::parse(&bytes, &EVERY).unwrap();
        let mut volumes = import.volumes();
        let mut seen = 0;
        while let Some((volume, _)) = volumes.next() {
            let Some(past) = volumes.past() else {
                assert!(volume.shape.kind.is_simple());
                continue;
            };
            seen += 1;
            let made = made_bytes();
            assert_eq!((past.limits, past.made), (kept_limits(), kept_made(&made)));
            assert_eq!(past.map.capacity(), volume.shape.capacity_sectors);
            assert_eq!(past.targets().len(), 4, "{}", kept.file);
            for (at, target) in past.targets().iter().enumerate() {
                let history = History::default();
                target.failures(&history);
                assert_eq!(history.total(), kept_failures().total());
                assert!(history.failures().eq(kept_failures().failures()));
                let mut operations = 0;
                target.latency(|op, latency| {
                    assert_eq!(op, operations, "by place");
                    operations += 1;
                    let mut wanted = kept_latency(op);
                    if kept.schema == 4 {
                        wanted.unplaced = wanted.count();
                        wanted.buckets = [0; 32];
                    }
                    assert_eq!(*latency, wanted, "{}, target {at}", kept.file);
                });
                assert_eq!(operations, OPS.len(), "{}, target {at}", kept.file);
                assert_eq!(target.pages, 100 + at as u64);
                assert_eq!(target.nbd, if at == 3 { KEPT_NBD } else { b"" });
            }
        }
        assert_eq!(seen, 1, "{}", kept.file);
    }
}

#[test]
fn every_schema_has_an_image_that_is_kept() {
    for schema in SCHEMA_MIN..=SCHEMA_MAX {
        assert!(ALL.iter().any(|kept| kept.schema == schema && kept.others.is_empty()), "{schema}");
    }
}

#[test]
fn every_release_reads_the_schemas_that_it_says_and_no_other() {
    for (min, max) in [(1, 1), (1, 2), (2, 3), (3, 4), (4, 5)] {
        for kept in &ALL {
            let outcome =
                Import::parse(&kept.read(), &range(min, max)).map(|import| import.volumes);
            if (min..=max).contains(&kept.schema) {
                assert_eq!(outcome, Ok(kept.volumes().len()), "{}", kept.file);
            } else {
                assert_eq!(outcome, Err(ImportError::Schema(kept.schema)), "{}", kept.file);
            }
        }
    }
}

#[test]
fn an_image_that_is_cut_short_anywhere_is_refused() {
    for kept in &ALL {
        let bytes = kept.read();
        for length in 0..bytes.len() {
            assert!(Import::parse(&bytes[..length], &EVERY).is_err(), "{} {length}", kept.file);
        }
    }
}

proptest! {
    #[test]
    fn a_kept_image_with_other_bytes_is_refused_or_consistent(
        which in 0..ALL.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        sealed in any::<bool>(),
    ) {
        let kept = &ALL[which];
        let whole = kept.read();
        let mut bytes = whole.clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let body = bytes.len() - 8;
        if sealed {
            let crc = crc32c(&bytes[..body]);
            bytes[body..body + 4].copy_from_slice(&crc.to_le_bytes());
        }
        if let Ok(import) = Import::parse(&bytes, &EVERY) {
            let volumes: Vec<_> = import.volumes().collect();
            prop_assert_eq!(volumes.len(), import.volumes);
            prop_assert!(volumes.iter().all(|(volume, _)| volume.shape.spec().is_valid()));
            prop_assert!(import.load.fits());
            if !sealed {
                // Without a right checksum nothing but the zero behind it may differ.
                prop_assert_eq!(&bytes[..body + 4], &whole[..body + 4]);
            }
        }
    }
}
