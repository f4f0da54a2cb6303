// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The layout hash: one number for how the structures of the boundary are laid out.
//!
//! Both sides compute it from their own compiler's view, so that a payload built with other
//! structures, or by a compiler that lays them out otherwise, is refused before it is called. The hash
//! covers the fields of the major version's first minor; fields that a later minor adds at the end of
//! a table are left out of it.

use core::mem::{align_of, offset_of, size_of};

/// One field of a structure.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its offset in bytes.
    pub offset: usize,
    /// Its size in bytes.
    pub size: usize,
}

/// One structure.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Its name.
    pub name: &'static str,
    /// Its size in bytes.
    pub size: usize,
    /// Its alignment in bytes.
    pub align: usize,
    /// Its fields, in order.
    pub fields: &'static [Field],
}

/// The size of what an accessor leads to.
const fn size_behind<T, F>(_field: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! layouts {
    ($($module:ident::$name:ident { $($field:ident),+ $(,)? })+) => {
        /// Every structure that crosses the boundary.
        pub const LAYOUTS: &[Layout] = &[$(
            Layout {
                name: stringify!($name),
                size: size_of::<super::$module::$name>(),
                align: align_of::<super::$module::$name>(),
                fields: &[$(Field {
                    name: stringify!($field),
                    offset: offset_of!(super::$module::$name, $field),
                    size: size_behind(|value: &super::$module::$name| &value.$field),
                }),+],
            }
        ),+];

        /// Fails to compile when a structure has a field that its layout does not list.
        const _: () = {
            $({
                #[allow(dead_code)]
                fn every_field_is_listed(value: &super::$module::$name) {
                    let super::$module::$name { $($field: _),+ } = value;
                }
            })+
        };
    };
}

layouts! {
    version::AbiRange { major, minor_min, minor_max, reserved }
    version::SchemaRange { read_min, read_max, write_min, write_max }
    version::Refusal { code, reserved, expected, found }
    request::Request { ownership, rq, sector, bytes, op, flags, hctx, tag, device, scratch }
    device::DeviceSpec {
        size, features, capacity_sectors, logical_block_bytes, physical_block_bytes, max_sectors,
        max_segments, discard_granularity_bytes, max_discard_sectors, max_write_zeroes_sectors,
        hw_queues, queue_depth,
    }
    table::PrepareArgs { size, devices, image_bytes }
    table::FreezeArgs { size, schema, buffer, capacity, used }
    table::AdoptArgs { size, devices, epoch, image, image_bytes }
    table::CommandArgs {
        size, reserved, input, input_bytes, output, output_capacity, output_bytes,
    }
    table::PayloadTable {
        size, scratch_bytes, abi, layout_hash, provides, requires, schema, version, module, prepare,
        unprepare, image_bytes, freeze, thaw, adopt, abandon, queue_rq, command,
    }
    control::Status {
        size, place, abi, layout_hash, provides, epoch, live, payloads, devices, opens, preserved,
        reserved, image_bytes, handoffs, stale_completions, held_ns, version, refused, refusal,
    }
    control::PayloadInfo { size, index, id, state, abi, schema, version, module }
    control::DeviceInfo {
        size, index, id, opens, capacity_sectors, features, hw_queues, queue_depth, owed, reserved,
    }
    control::Blocker { sector, age_ns, bytes, device, tag, hctx, op, flags }
    control::Report {
        sequence, epoch, kind, outcome, refusal, from, to, started_ns, phases_ns, pause_ns,
        image_bytes, schema, devices, opens, preserved, owed, inverse_errors, blockers,
    }
    control::Handoff { size, payload, schema, reserved, deadline_ns, report }
    control::Command { size, result, input, output, input_bytes, output_bytes }
    control::ReportQuery { size, index, report }
}

/// The layout hash: FNV-1a over names, sizes, alignments and offsets.
pub const HASH: u64 = hash(LAYOUTS);

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

const fn hash(layouts: &[Layout]) -> u64 {
    let mut state = FNV_OFFSET;
    let mut at = 0;
    while at < layouts.len() {
        let layout = &layouts[at];
        state = bytes(state, layout.name.as_bytes());
        state = number(state, layout.size);
        state = number(state, layout.align);
        let mut field = 0;
        while field < layout.fields.len() {
            state = bytes(state, layout.fields[field].name.as_bytes());
            state = number(state, layout.fields[field].offset);
            state = number(state, layout.fields[field].size);
            field += 1;
        }
        at += 1;
    }
    state
}

const fn bytes(mut state: u64, bytes: &[u8]) -> u64 {
    let mut at = 0;
    while at < bytes.len() {
        state = (state ^ bytes[at] as u64).wrapping_mul(FNV_PRIME);
        at += 1;
    }
    // A separator, so that ("ab", "c") and ("a", "bc") differ.
    (state ^ 0xff).wrapping_mul(FNV_PRIME)
}

const fn number(state: u64, value: usize) -> u64 {
    bytes(state, &(value as u64).to_le_bytes())
}
