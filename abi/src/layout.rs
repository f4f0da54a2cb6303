// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The layout hash: one number for how the structures of the boundary are laid out.
//!
//! Both sides compute it from their own compiler's view, so that a payload built with other
//! structures, or by a compiler that lays them out otherwise, is refused before it is called. The hash
//! covers the structures of the major version's first minor, as they were then: what a later minor adds
//! is left out of it, so that minors can be mixed. A hash of its own covers what the present minor has.

use core::mem::{align_of, offset_of, size_of};

/// One field of a structure.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its name in minor 0, where that was another one.
    pub first_name: &'static str,
    /// Its offset in bytes.
    pub offset: usize,
    /// Its size in bytes.
    pub size: usize,
    /// Its size in minor 0; that of a structure that has grown since is smaller.
    pub first_size: usize,
}

/// One structure.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Its name.
    pub name: &'static str,
    /// The minor version that it came with.
    pub since: u16,
    /// Its size in bytes.
    pub size: usize,
    /// Its size in the minor version that it came with.
    pub first_size: usize,
    /// Its alignment in bytes.
    pub align: usize,
    /// The fields that it came with, in order.
    pub fields: &'static [Field],
    /// The fields that were added since, in order.
    pub added: &'static [Field],
}

/// The size of what an accessor leads to.
const fn size_behind<T, F>(_field: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// The second value where there is one, else the first.
macro_rules! or {
    ($default:expr) => {
        $default
    };
    ($default:expr, $given:expr) => {
        $given
    };
}

macro_rules! layouts {
    ($($module:ident::$name:ident $since:literal {
        $($field:ident $(as $first_name:literal)? $(was $first_size:expr)?),+ $(,)?
    } $(+ { $($added:ident),+ $(,)? })?)+) => {
        /// Every structure that crosses the boundary.
        pub const LAYOUTS: &[Layout] = &[$(
            Layout {
                name: stringify!($name),
                since: $since,
                size: size_of::<super::$module::$name>(),
                first_size: {
                    let fields: &[Field] = &[$(layouts!(@field $module $name $field
                        $(as $first_name)? $(was $first_size)?)),+];
                    fields[fields.len() - 1].offset + fields[fields.len() - 1].first_size
                },
                align: align_of::<super::$module::$name>(),
                fields: &[$(layouts!(@field $module $name $field
                    $(as $first_name)? $(was $first_size)?)),+],
                added: &[$($(layouts!(@field $module $name $added)),+)?],
            }
        ),+];

        /// Fails to compile when a structure has a field that its layout does not list.
        const _: () = {
            $({
                #[allow(dead_code)]
                fn every_field_is_listed(value: &super::$module::$name) {
                    let super::$module::$name { $($field: _),+ $(, $($added: _),+)? } = value;
                }
            })+
        };
    };
    (@field $module:ident $name:ident $field:ident
        $(as $first_name:literal)? $(was $first_size:expr)?) => {
        Field {
            name: stringify!($field),
            first_name: or!(stringify!($field) $(, $first_name)?),
            offset: offset_of!(super::$module::$name, $field),
            size: size_behind(|value: &super::$module::$name| &value.$field),
            first_size: or!(
                size_behind(|value: &super::$module::$name| &value.$field) $(, $first_size)?
            ),
        }
    };
}

/// Bytes of a report in 1.0, which stands at the end of two structures.
const REPORT_1_0: usize = offset_of!(super::control::Report, cause);

layouts! {
    version::AbiRange 0 { major, minor_min, minor_max, reserved }
    version::SchemaRange 0 { read_min, read_max, write_min, write_max }
    version::Refusal 0 { code, reserved, expected, found }
    request::Request 0 {
        ownership, rq, sector, bytes, op, flags, hctx, tag, device, scratch
    }
    device::DeviceSpec 0 {
        size, features, capacity_sectors, logical_block_bytes, physical_block_bytes, max_sectors,
        max_segments, discard_granularity_bytes, max_discard_sectors, max_write_zeroes_sectors,
        hw_queues, queue_depth,
    } + {
        timeout_ms, reserved, io_min_bytes, io_opt_bytes, chunk_sectors, dma_alignment_mask,
    }
    table::PrepareArgs 0 { size, devices, image_bytes }
    table::FreezeArgs 0 { size, schema, buffer, capacity, used } + { flags, reserved, delta_bytes }
    table::AdoptArgs 0 { size, devices, epoch, image, image_bytes } + { flags, reserved }
    table::CommandArgs 0 {
        size, reserved, input, input_bytes, output, output_capacity, output_bytes,
    }
    table::PayloadTable 0 {
        size, scratch_bytes, abi, layout_hash, provides, requires, schema, version, module, prepare,
        unprepare, image_bytes, freeze, thaw, adopt, abandon, queue_rq, command,
    } + { suspend, resume, revoke, explain, timeout, commit, copy_ahead, adopt_ahead, hand_back }
    control::Status 0 {
        size, place, abi, layout_hash, provides, epoch, live, payloads, devices, opens, preserved,
        reserved, image_bytes, handoffs, stale_completions, held_ns, version, refused, refusal,
    } + {
        events, soak_left_ns, parked, stage, outstanding, fallback_error, checkpoint_bytes,
    }
    control::PayloadInfo 0 { size, index, id, state, abi, schema, version, module }
    control::DeviceInfo 0 {
        size, index, id, opens, capacity_sectors, features, hw_queues, queue_depth, owed, reserved,
    } + { errors, oldest_ns }
    control::Blocker 0 { sector, age_ns, bytes, device, tag, hctx, op, flags }
    control::Report 0 {
        sequence, epoch, kind, outcome, refusal, from, to, started_ns, phases_ns, pause_ns,
        image_bytes, schema, devices, opens, preserved, owed, inverse_errors, blockers,
    } + { cause, policy, revoked, changed, stages, reasons, handed_back, reserved }
    control::Handoff 0 {
        size, payload, schema, policy as "reserved", deadline_ns, report was REPORT_1_0,
    }
    control::Command 0 { size, result, input, output, input_bytes, output_bytes }
    control::ReportQuery 0 { size, index, report was REPORT_1_0 }
    table::SuspendArgs 1 { size, reserved, wait_ns }
    table::ResumeArgs 1 { size, unchanged, paused_ns }
    control::Stage 1 { began, left, ns }
    control::Settings 1 {
        size, change, hold, back_policy, hold_deadline_ns, soak_ns, stall_ns, back_deadline_ns,
        fallback,
    }
    control::Commit 1 { size, payload }
    bio::BioEnd 2 { end }
}

/// The layout hash of this major version: of its first minor.
pub const HASH: u64 = hash(LAYOUTS, 0);
/// The hash of all that the present minor has.
pub const MINOR_HASH: u64 = hash(LAYOUTS, super::version::ABI_MINOR);

/// Bytes of a structure in the minor that it came with: what the oldest caller hands over.
pub const fn first_bytes(name: &str) -> usize {
    let mut at = 0;
    while at < LAYOUTS.len() {
        if same(LAYOUTS[at].name.as_bytes(), name.as_bytes()) {
            return LAYOUTS[at].first_size;
        }
        at += 1;
    }
    usize::MAX
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

// FNV-1a, 64 bit: Fowler, Noll, Vo; draft-eastlake-fnv.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

const fn hash(layouts: &[Layout], minor: u16) -> u64 {
    let mut state = FNV_OFFSET;
    let mut at = 0;
    while at < layouts.len() {
        let layout = &layouts[at];
        if layout.since <= minor {
            state = bytes(state, layout.name.as_bytes());
            state = number(state, if minor == 0 { layout.first_size } else { layout.size });
            state = number(state, layout.align);
            state = fields(state, layout.fields, minor);
            if minor > 0 {
                state = fields(state, layout.added, minor);
            }
        }
        at += 1;
    }
    state
}

const fn fields(mut state: u64, fields: &[Field], minor: u16) -> u64 {
    let mut at = 0;
    while at < fields.len() {
        let field = &fields[at];
        state = bytes(state, if minor == 0 { field.first_name } else { field.name }.as_bytes());
        state = number(state, field.offset);
        state = number(state, if minor == 0 { field.first_size } else { field.size });
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
