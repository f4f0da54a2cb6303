// SPDX-License-Identifier: GPL-2.0

//! The shortest payload: one device that reads as zeroes and drops what is written. See README.md.

#![allow(clippy::missing_safety_doc, reason = "Only Atom calls, by the contract of the table.")]

#[path = "abi/abi.rs"]
mod abi;

use abi::calls::*;
use abi::device::DeviceSpec;
use abi::image::{
    record_bytes, Fields, Image, ImageError, Record, Writer, HEADER_BYTES, MANDATORY, TRAILER_BYTES,
};
use abi::request::{op, status, Request};
use abi::stamp::{Stamp, STAMP_BYTES};
use abi::table::{AdoptArgs, CommandArgs, FreezeArgs, PayloadTable, PrepareArgs};
use abi::version::{caps, AbiRange, Offer, SchemaRange};
use abi::{layout, text::Text};
use core::mem::size_of;
use core::slice::{from_raw_parts, from_raw_parts_mut};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use kernel::{bindings, prelude::*};

module! {
    type: Template,
    name: "payload_template",
    authors: ["The Atom authors"],
    description: "The shortest payload",
    license: "GPL",
}

const OFFER: Offer = Offer {
    // It reads all of its arguments, and 1.0 has less of them.
    abi: AbiRange { minor_min: 1, ..AbiRange::CURRENT },
    layout_hash: layout::HASH,
    provides: 0,
    requires: caps::DEVICES | caps::COMMANDS,
    scratch_bytes: 0,
};
const SCHEMA: SchemaRange = SchemaRange { read_min: 1, read_max: 1, write_min: 1, write_max: 1 };
const VERSION: Text = Text::new(env!("PAYLOAD_VERSION"));
const DEVICE: u32 = 1; // The key of the record with the number of the device.
const NONE: u32 = u32::MAX;

/// What the tools read from the file before they load it.
#[used(compiler)]
#[link_section = ".atom.payload"]
static STAMP: [u8; STAMP_BYTES] =
    Stamp { offer: OFFER, schema: SCHEMA, version: VERSION }.to_bytes();

/// All of the state: N of `/dev/atomN`, and the epoch in which requests are owned.
static ID: AtomicU32 = AtomicU32::new(NONE);
static EPOCH: AtomicU64 = AtomicU64::new(0);

#[repr(transparent)]
struct Table(PayloadTable);
// SAFETY: It is never written.
unsafe impl Sync for Table {}

static TABLE: Table = Table(PayloadTable {
    size: size_of::<PayloadTable>() as u32,
    scratch_bytes: OFFER.scratch_bytes,
    abi: OFFER.abi,
    layout_hash: OFFER.layout_hash,
    provides: OFFER.provides,
    requires: OFFER.requires,
    schema: SCHEMA,
    version: VERSION,
    module: THIS_MODULE.as_ptr().cast(),
    prepare: Some(prepare),
    unprepare: Some(nothing),
    image_bytes: Some(image_bytes),
    freeze: Some(freeze),
    thaw: Some(nothing),
    adopt: Some(adopt),
    abandon: Some(nothing),
    queue_rq: Some(queue_rq),
    command: Some(command),
    suspend: None,
    resume: None,
    revoke: None,
    explain: None,
    timeout: None,
    commit: None,
    copy_ahead: None,
    adopt_ahead: None,
    hand_back: None,
});

// SAFETY, of all below: Atom calls them with arguments that are valid for the call.

unsafe extern "C" fn prepare(_args: *const PrepareArgs) -> i32 {
    0
}

unsafe extern "C" fn nothing() -> i32 {
    0
}

unsafe extern "C" fn image_bytes(_schema: u32) -> u64 {
    (HEADER_BYTES + record_bytes(4) + TRAILER_BYTES) as u64
}

unsafe extern "C" fn freeze(args: *mut FreezeArgs) -> i32 {
    // SAFETY: See above.
    let args = unsafe { &mut *args };
    // SAFETY: See above.
    let buffer = unsafe { from_raw_parts_mut(args.buffer, args.capacity as usize) };
    let image = Writer::new(buffer, &VERSION, args.schema).and_then(|mut image| {
        image.record(DEVICE, 1, MANDATORY, &[&ID.load(Relaxed).to_le_bytes()])?;
        image.finish()
    });
    image.map_or(ENOSPC.to_errno(), |used| {
        args.used = used as u64;
        0
    })
}

unsafe extern "C" fn adopt(args: *const AdoptArgs) -> i32 {
    // SAFETY: See above.
    let args = unsafe { &*args };
    EPOCH.store(args.epoch, Relaxed);
    ID.store(NONE, Relaxed);
    if args.image.is_null() {
        return 0;
    }
    // SAFETY: See above.
    let bytes = unsafe { from_raw_parts(args.image, args.image_bytes as usize) };
    let id = Image::parse(bytes).and_then(|image| {
        let mut records = image.records();
        match (records.next(), records.next()) {
            (Some(Record { key: DEVICE, version: 1, bytes, .. }), None) => Fields::new(bytes).u32(),
            _ => Err(ImageError::Inconsistent),
        }
    });
    let Ok(id) = id else {
        return EINVAL.to_errno();
    };
    ID.store(id, Relaxed);
    if id == NONE {
        return 0;
    }
    // SAFETY: Has no precondition.
    unsafe { atom_device_bind(id, 0) }
}

/// Whatever the command: creates the device, or removes it when it is there. The answer is its number.
unsafe extern "C" fn command(args: *mut CommandArgs) -> i32 {
    // SAFETY: See above.
    let args = unsafe { &mut *args };
    if args.output_capacity < 4 {
        return EMSGSIZE.to_errno();
    }
    let (before, mut after) = (ID.load(Relaxed), NONE);
    // SAFETY: Both pointers are valid for the call.
    let result = unsafe {
        match before {
            NONE => atom_device_create(&DeviceSpec::new(1 << 11), 0, &mut after),
            _ => atom_device_destroy(before),
        }
    };
    if result != 0 {
        return result;
    }
    ID.store(after, Relaxed);
    // SAFETY: There is room for four bytes.
    unsafe { args.output.cast::<[u8; 4]>().write(before.min(after).to_le_bytes()) };
    args.output_bytes = 4;
    0
}

unsafe extern "C" fn queue_rq(_cookie: u64, request: *mut Request) -> u32 {
    // SAFETY: See above; the bios are the request's until it ends.
    unsafe {
        if (*request).op == op::READ {
            let mut bio = (*(*request).rq.cast::<bindings::request>()).bio;
            while !bio.is_null() {
                bindings::zero_fill_bio(bio);
                bio = (*bio).bi_next;
            }
        }
        // It is owned in this epoch since a moment ago, so Atom does not refuse the end.
        atom_request_end(request, EPOCH.load(Relaxed), status::OK);
    }
    status::OK
}

/// Registered with Atom for as long as it is loaded.
struct Template(i32);

impl kernel::Module for Template {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        // SAFETY: The table is a static, which outlives the registration.
        let id = unsafe { atom_payload_register(&TABLE.0) };
        kernel::error::to_result(id.min(0)).map(|()| Self(id))
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        // SAFETY: Has no precondition; Atom knows this number.
        unsafe { atom_payload_unregister(self.0) };
    }
}
