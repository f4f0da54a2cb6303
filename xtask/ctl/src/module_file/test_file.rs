// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Small module files, and an Atom with a live payload, for tests.

use std::path::Path;

use atom_abi::control::{payload_state, PayloadInfo, Status};
use atom_abi::lifecycle::Place;
use atom_abi::stamp::{Stamp, SECTION};
use atom_abi::text::Text;
use atom_abi::version::{Offer, SchemaRange};
use object::write::{Object, StandardSegment};
use object::{Architecture, BinaryFormat, Endianness, SectionKind};

use super::{note, ModuleFile, Refused};

/// The release that the test files are built for.
pub const KERNEL: &str = "7.2.12";

/// What a test payload says about itself.
pub fn stamp(version: &str) -> Stamp {
    Stamp {
        offer: Offer { scratch_bytes: 64, requires: 0, ..Offer::ATOM },
        schema: SCHEMA,
        version: Text::new(version),
    }
}

/// The schemas of all test payloads.
pub const SCHEMA: SchemaRange =
    SchemaRange { read_min: 1, read_max: 2, write_min: 1, write_max: 2 };

/// An Atom with payload 1 live.
pub fn status() -> Status {
    Status {
        place: Place::Live.code(),
        abi: Offer::ATOM.abi,
        layout_hash: Offer::ATOM.layout_hash,
        provides: Offer::ATOM.provides,
        epoch: 1,
        live: 1,
        payloads: 1,
        devices: 2,
        opens: 3,
        preserved: 1,
        handoffs: 1,
        version: Text::new("0.1.0"),
        ..Status::EMPTY
    }
}

/// Payload 1 of [`status`], version 1.0.0.
pub fn live() -> PayloadInfo {
    PayloadInfo {
        size: 0,
        index: 0,
        id: 1,
        state: payload_state::LIVE,
        abi: Offer::ATOM.abi,
        schema: SCHEMA,
        version: Text::new("1.0.0"),
        module: Text::new("payload_1_0_0"),
    }
}

/// What a small module file is made of.
pub struct TestFile {
    name: String,
    stamp: Option<Vec<u8>>,
}

impl TestFile {
    /// A payload of this version, whose module is named after it.
    pub fn payload(version: &str) -> Self {
        Self {
            name: format!("payload_{}", version.replace('.', "_")),
            stamp: Some(stamp(version).to_bytes().to_vec()),
        }
    }

    /// The same under another module name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// The same with another stamp.
    pub fn with_stamp(mut self, stamp: &Stamp) -> Self {
        self.stamp = Some(stamp.to_bytes().to_vec());
        self
    }

    /// The same without a stamp.
    pub fn without_stamp(mut self) -> Self {
        self.stamp = None;
        self
    }

    /// The content of the file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let data = object.segment_name(StandardSegment::Data).to_vec();
        let mut add = |name: &str, kind: SectionKind, bytes: &[u8]| {
            let id = object.add_section(data.clone(), name.as_bytes().to_vec(), kind);
            object.append_section_data(id, bytes, 8);
        };
        let modinfo = format!(
            "license=GPL\0depends=atom\0name={}\0vermagic={KERNEL} SMP preempt mod_unload \0",
            self.name
        );
        add(".text", SectionKind::Text, &[0x90; 32]);
        add(".modinfo", SectionKind::ReadOnlyData, modinfo.as_bytes());
        if let Some(stamp) = &self.stamp {
            add(SECTION, SectionKind::ReadOnlyData, stamp);
        }
        let mut build_id = vec![4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0];
        build_id.extend(b"GNU\0");
        build_id.extend([0xab; 20]);
        add(note::BUILD_ID_SECTION, SectionKind::Note, &build_id);
        object.write().unwrap()
    }

    /// The file as the tool reads it.
    pub fn parse(&self) -> Result<ModuleFile, Refused> {
        ModuleFile::parse(Path::new("test.ko"), self.bytes())
    }
}
