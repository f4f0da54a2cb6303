// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What a payload registers: what it brings to the negotiation, and what must not be missing.

use core::ffi::c_void;
use core::ptr::{null_mut, NonNull};

use atom_abi::request::Request;
use atom_abi::table::{AdoptArgs, CommandArgs, FreezeArgs, PayloadTable, PrepareArgs};
use atom_abi::text::Text;
use atom_abi::version::{AbiRange, Offer, SchemaRange};

extern "C" fn prepare(_args: *const PrepareArgs) -> i32 {
    0
}
extern "C" fn freeze(_args: *mut FreezeArgs) -> i32 {
    0
}
extern "C" fn adopt(_args: *const AdoptArgs) -> i32 {
    0
}
extern "C" fn command(_args: *mut CommandArgs) -> i32 {
    0
}
extern "C" fn plain() -> i32 {
    0
}
extern "C" fn image_bytes(_schema: u32) -> u64 {
    0
}
extern "C" fn queue_rq(_cookie: u64, _request: *mut Request) -> u32 {
    0
}

/// A table with all that 1.0 asks for, and nothing that came later.
fn table() -> PayloadTable {
    PayloadTable {
        size: PayloadTable::BYTES_1_0 as u32,
        scratch_bytes: 24,
        abi: AbiRange { major: 1, minor_min: 2, minor_max: 3, reserved: 0 },
        layout_hash: 4,
        provides: 5,
        requires: 6,
        schema: SchemaRange { read_min: 7, read_max: 8, write_min: 9, write_max: 10 },
        version: Text::new("1.0.0"),
        module: NonNull::<c_void>::dangling().as_ptr(),
        prepare: Some(prepare),
        unprepare: Some(plain),
        image_bytes: Some(image_bytes),
        freeze: Some(freeze),
        thaw: Some(plain),
        adopt: Some(adopt),
        abandon: Some(plain),
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
    }
}

/// Takes one thing out of a table.
type Removal = fn(&mut PayloadTable);

#[test]
fn what_came_after_the_first_version_may_be_missing_and_nothing_else() {
    assert!(table().is_complete());
    let removals: [(&str, Removal); 10] = [
        ("prepare", |table| table.prepare = None),
        ("unprepare", |table| table.unprepare = None),
        ("image_bytes", |table| table.image_bytes = None),
        ("freeze", |table| table.freeze = None),
        ("thaw", |table| table.thaw = None),
        ("adopt", |table| table.adopt = None),
        ("abandon", |table| table.abandon = None),
        ("queue_rq", |table| table.queue_rq = None),
        ("command", |table| table.command = None),
        ("module", |table| table.module = null_mut()),
    ];
    for (name, remove) in removals {
        let mut table = table();
        remove(&mut table);
        assert!(!table.is_complete(), "without {name}");
    }
}

#[test]
fn a_table_is_negotiated_by_what_it_says() {
    let offer = Offer {
        abi: AbiRange { major: 1, minor_min: 2, minor_max: 3, reserved: 0 },
        layout_hash: 4,
        provides: 5,
        requires: 6,
        scratch_bytes: 24,
    };
    assert_eq!(table().offer(), offer);
}
