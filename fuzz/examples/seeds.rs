// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Writes the seeds: one small valid input for each thing that a target reads. `cargo run --example seeds` in this
//! folder, after a format has changed. Images of volumes are kept in `payload/tests/golden` and used as they are there.

use std::fs;
use std::path::Path;

use atom_abi::image::{Writer, MANDATORY};
use atom_abi::request::op;
use atom_abi::stamp::{Stamp, SECTION};
use atom_abi::text::Text;
use atom_abi::version::{caps, Offer, SchemaRange};
use atom_payload::answers::{encode_done, Created, Entry, ListWriter};
use atom_payload::counts::Counts;
use atom_payload::protocol::{Command, Compose, Create, Output};
use atom_payload::shape::{Description, Kind, Shape, VolumeId};
use atom_payload::spec::{Address, Layout, Made, Nbd, Source, Target, Terms};
use object::write::{Object, StandardSegment};
use object::{Architecture, BinaryFormat, Endianness, SectionKind};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    image()?;
    command()?;
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
        kind: Kind::Ram,
        bytes: 1 << 30,
        block_bytes: 4096,
        hw_queues: 2,
        queue_depth: 64,
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
    let compose = Compose { name, block_bytes: 0, hw_queues: 2, queue_depth: 64, made };
    let commands = [
        ("create", Command::Create(create)),
        ("destroy", Command::Destroy { name }),
        ("list", Command::List { from: 3 }),
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
        shape: Shape::new(Kind::Null, 1 << 20, 512, 1, 32).ok_or("no such shape")?,
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
