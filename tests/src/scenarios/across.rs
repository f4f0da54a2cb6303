// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Requests that reach from a disk into memory. Discards and zeroes have no data in which a place could be looked for: the part in
//! memory once looked for it all the same, and the kernel stumbled.

use anyhow::{ensure, Result};
use atom_payload::spec::Layout;

use super::Context;
use crate::composed::{self, stripe, Target};
use crate::oracle::device::{Device, Memory, Promise};
use crate::oracle::model::{Extent, Kind};
use crate::site::Site;

/// Bytes of the disk in the volume, and of its stripe's chunk.
const MIB: u64 = 1 << 20;
const CHUNK_KIB: u32 = 64;
/// Units on either side.
const BESIDE: u64 = 6;
/// The name of the run in the sectors.
const RUN: u64 = 77;

pub fn zeroes_and_discards_reach_from_a_disk_into_memory(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    for (name, layout, boundary, disk) in [
        ("linear", Layout::Linear, MIB, Target::bdev("/dev/vda").mib(1)),
        ("stripe", stripe(CHUNK_KIB), u64::from(CHUNK_KIB) << 10, Target::bdev("/dev/vdb").mib(16)),
    ] {
        let device = composed::create(&site, name, layout, &[disk, Target::ram(16)])?.device;
        let promise = Promise { discard_zeroes: false, blank: false };
        let device = Device::open(&device, RUN, 2 * MIB, promise)?;
        let mut memory = Memory::new(device.terms.bytes(2 * BESIDE));
        let start = boundary / device.terms.unit_bytes() as u64 - BESIDE;
        let extent = Extent { start, count: 2 * BESIDE };
        for (sequence, kind) in [(1, Kind::Zeroes), (2, Kind::Discard)] {
            context.step(&format!("{name}, {kind:?}"));
            device.change(Kind::Write { durable: false }, extent, sequence, 1, &mut memory)?;
            let written = device.read(extent, &mut memory)?.to_vec();
            ensure!(written.iter().any(|byte| *byte != 0), "nothing was written");
            device.change(kind, extent, sequence, 1, &mut memory)?;
            let behind = Extent { start: start + BESIDE, count: BESIDE };
            // What a discard leaves on the disk is the disk's business.
            let cleared = if kind == Kind::Zeroes { extent } else { behind };
            let data = device.read(cleared, &mut memory)?;
            ensure!(data.iter().all(|byte| *byte == 0), "{name}, {kind:?}: it is still there");
        }
    }
    site.leave()
}
