// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Writes the seeds: one small valid input for each thing that a target reads. `cargo run --example seeds` in this
//! folder, after a format has changed. Images of volumes are kept in `payload/tests/golden` and used as they are there.

use std::fs;
use std::path::Path;

use atom_abi::crc32c::crc32c;
use atom_abi::image::{Writer, MANDATORY};
use atom_abi::request::op;
use atom_abi::stamp::{Stamp, SECTION};
use atom_abi::text::Text;
use atom_abi::version::{caps, Offer, SchemaRange};
use atom_payload::answers::{encode_done, Created, Entry, ListWriter};
use atom_payload::counts::Counts;
use atom_payload::protocol::{Command, Compose, Create, Output};
use atom_payload::shape::{self, Description, Shape, VolumeId};
use atom_payload::spec::{Address, Layout, Made, Nbd, Source, Target, Terms};
use atomctl::journal::{
    Began, Ended, Found, Identity, Kind, Moment, Origin, Process, Record, Settled,
};
use atomctl::report::{JournalDocument, Mode, Phases, UpgradeReport};
use atomctl::trace::{Sample, Trace};
use object::write::{Object, StandardSegment};
use object::{Architecture, BinaryFormat, Endianness, SectionKind};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    image()?;
    command()?;
    journal()?;
    ioctl()?;
    write("live", "committed", b"2.1.0\n")?;
    let all = "# A node.\n[packages]\nhot-upgrade = false\nsoak = \"30s\"\n\n[boot]\npayload = \"2.0.0\"\n";
    write("atom-toml", "all", all.as_bytes())?;
    write("atom-toml", "wrong", b"[boot]\npayload = 7\n")?;
    let stamp = Stamp {
        offer: Offer { provides: caps::REISSUE, requires: caps::DEVICES, ..Offer::ATOM },
        schema: SchemaRange { read_min: 1, read_max: 2, write_min: 1, write_max: 2 },
        version: Text::new("1.1.0"),
    };
    write("stamp", "payload", &stamp.to_bytes())?;
    write("module-file", "payload", &module(Some(&stamp.to_bytes()))?)?;
    write("module-file", "no-payload", &module(None)?)
}

fn write(target: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(name), bytes)?;
    Ok(())
}

/// A file of the journal, and an attempt of it with the samples around its pause.
fn journal() -> Result<()> {
    let identity = Identity { attempt: 1, boot: "b".to_owned() };
    let moment = |second: u64| Moment {
        at: format!("2026-01-01T00:00:{second:02}.000Z"),
        monotonic_ns: second * 1_000_000_000,
    };
    let began = Began {
        identity: identity.clone(),
        moment: moment(1),
        kind: Kind::Upgrade,
        mode: Some(Mode::Warm),
        origin: Origin::Operator,
        user: "root".to_owned(),
        process: Process { id: 1, started: 2 },
        from: "1.0.0".to_owned(),
        to: "1.1.0".to_owned(),
        kernel: "7.2.12".to_owned(),
        tool: "0.1.0".to_owned(),
    };
    let mut report = UpgradeReport::begin("7.2.12", "1.0.0", "1.1.0", Mode::Warm);
    report.phases_us = Phases::from_iter([
        ("prepare", 900),
        ("close", 210),
        ("drain", 4200),
        ("adopt", 330),
        ("open", 20),
        ("release", 110),
    ]);
    (report.pause_us, report.began_ns) = (4760, Some(1_000_000_000));
    let ended = Ended {
        identity: identity.clone(),
        moment: moment(2),
        outcome: "aborted".to_owned(),
        exit_code: 1,
        reason: Some("a request did not end".to_owned()),
        report: serde_json::to_value(&report)?,
    };
    let outcome = "undone".to_owned();
    let settled = Settled { identity, moment: moment(3), by: 2, live: "1.0.0".to_owned(), outcome };
    let records = vec![Record::Began(began), Record::Ended(ended), Record::Settled(settled)];
    let mut file = Vec::new();
    for record in &records {
        let mut line = serde_json::to_vec(record)?;
        line.pop();
        let seal = format!(",\"crc\":\"{:08x}\"}}\n", crc32c(&line));
        file.extend_from_slice(&line);
        file.extend_from_slice(seal.as_bytes());
    }
    let found = Found::of_file(&file);
    assert_eq!((found.records.len(), found.damaged), (3, 0), "the journal reads it");
    write("journal", "three-records", &file)?;
    let document = JournalDocument::new(&found, "b");
    let attempt = document.attempts.first().ok_or("no attempt")?;
    let samples = (995..1012).map(|ms: u64| Sample {
        at_ns: ms * 1_000_000,
        in_flight: ms % 8,
        completed: ms.saturating_sub(900),
        took_ms: ms,
    });
    let schema = Trace::SCHEMA.to_owned();
    let trace = Trace { schema, attempt: 1, boot: "b".to_owned(), samples: samples.collect() };
    let two = format!("{}\n{}", serde_json::to_string(attempt)?, serde_json::to_string(&trace)?);
    write("trace", "an-attempt-and-its-samples", two.as_bytes())
}

/// Structures as callers hand them over, behind the two bytes that choose the ioctl.
fn ioctl() -> Result<()> {
    let words = |choice: [u8; 2], words: &[u32]| -> Vec<u8> {
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        choice.into_iter().chain(bytes).collect()
    };
    write("ioctl", "status", &words([3, 0], &[32, 0, 0, 0, 0, 0, 0, 0]))?;
    write("ioctl", "handoff", &words([60, 8], &[488, 3, 0, 257, 0x3b9a_ca00, 0]))?;
    write("ioctl", "command", &words([3, 0], &[32, 0, 4096, 0, 8192, 0, 65_536, 65_536]))?;
    write("ioctl", "longer", &words([0, 0], &[24, 0, 0, 0, 0, 1]))?;
    write("ioctl", "too-long", &words([0, 0], &[u32::MAX]))
}

fn image() -> Result<()> {
    let mut buffer = [0; 512];
    let fits = |error| format!("{error}");
    let length = Writer::new(&mut buffer, &Text::new("1.0.0"), 1).map_err(fits)?.finish();
    write("image", "empty", &buffer[..length.map_err(fits)?])?;
    let mut writer = Writer::new(&mut buffer, &Text::new("1.1.0"), 2).map_err(fits)?;
    writer.record(1, 1, MANDATORY, &[&[3; 8]]).map_err(fits)?;
    writer.record(0x7001, 9, 0, &[]).map_err(fits)?;
    writer.record(2, 1, MANDATORY, &[&[5; 13], &[7; 20]]).map_err(fits)?;
    let length = writer.finish().map_err(fits)?;
    write("image", "three-records", &buffer[..length])
}

fn command() -> Result<()> {
    let name = Text::new("db-0");
    let create = Create {
        name,
        kind: shape::Kind::Ram,
        bytes: 1 << 30,
        block_bytes: 4096,
        hw_queues: 2,
        queue_depth: 64,
        polled: true,
    };
    let address = Address::V4 { address: [192, 0, 2, 7], port: 10809, host: "store-7" };
    let nbd = Nbd { address, export: "disk", connections: 2, keepalive_s: 30 };
    let target = |source| Target { source, sectors: 4096, terms: Terms::DEFAULT };
    let targets = [
        target(Source::Null),
        target(Source::Ram),
        target(Source::Bdev("/dev/vdb")),
        target(Source::Nbd(nbd)),
    ];
    let mut made_bytes = [0; 1024];
    let mut out = Output::new(&mut made_bytes);
    let layout = Layout::Stripe { chunk_sectors: 128 };
    Made::encode(layout, targets.into_iter(), &mut out).map_err(|error| format!("{error}"))?;
    let length = out.len();
    let made_bytes = &made_bytes[..length];
    let made = Made::decode(made_bytes).map_err(|error| format!("{error}"))?;
    let compose =
        Compose { name, block_bytes: 0, hw_queues: 2, queue_depth: 64, polled: true, made };
    let commands = [
        ("create", Command::Create(create)),
        ("destroy", Command::Destroy { name }),
        ("list", Command::List { from: 3 }),
        ("fill", Command::Fill { pages: 3 }),
        ("hold", Command::Hold { op: op::WRITE, requests: 2 }),
        ("release", Command::Release),
        ("compose", Command::Compose(compose)),
        ("resize", Command::Resize { name, made }),
        ("show", Command::Show { name }),
        ("reconnect", Command::Reconnect { name, target: 1 }),
    ];
    write("spec", "one-of-each", made_bytes)?;
    let mut buffer = [0; 1024];
    let fits = |error| format!("{error}");
    for (seed, command) in commands {
        let length = command.encode(&mut buffer).map_err(fits)?;
        write("command", seed, &buffer[..length])?;
    }
    let length = encode_done(&mut buffer).map_err(fits)?;
    write("command", "answer-done", &buffer[..length])?;
    let length = Created { volume: 1 << 16, device: 4 }.encode(&mut buffer).map_err(fits)?;
    write("command", "answer-created", &buffer[..length])?;
    let volume = Description {
        id: VolumeId::new(2, 9).ok_or("no such volume")?,
        device: 4,
        shape: Shape::new(shape::Kind::Null, 1 << 20, 512, 1, 32).ok_or("no such shape")?,
        pages: 0,
        name,
    };
    let mut list = ListWriter::new(&mut buffer, 2).map_err(fits)?;
    list.entry(&Entry { volume, counts: Counts::none().as_two() }).map_err(fits)?;
    let length = list.finish(u32::MAX).map_err(fits)?;
    write("command", "answer-list", &buffer[..length])
}

fn module(stamp: Option<&[u8]>) -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let data = object.segment_name(StandardSegment::Data).to_vec();
    let mut add = |name: &str, kind: SectionKind, bytes: &[u8]| {
        let id = object.add_section(data.clone(), name.as_bytes().to_vec(), kind);
        object.append_section_data(id, bytes, 8);
    };
    let modinfo = b"license=GPL\0depends=atom\0name=payload\0vermagic=7.2.12 SMP mod_unload \0";
    add(".modinfo", SectionKind::ReadOnlyData, modinfo);
    if let Some(stamp) = stamp {
        add(SECTION, SectionKind::ReadOnlyData, stamp);
    }
    let mut note = vec![4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0];
    note.extend(b"GNU\0");
    note.extend([0xab; 20]);
    add(".note.gnu.build-id", SectionKind::Note, &note);
    Ok(object.write()?)
}
