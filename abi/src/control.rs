// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The control interface: ioctls of `/dev/atom-control` (mode 0600, `CAP_SYS_ADMIN`).
//!
//! Every ioctl takes one structure that begins with its size and is filled in place. The ioctl itself
//! returns an error only when it could not be carried out at all (`-EPERM`, `-EFAULT`, `-EINVAL` for a
//! size that Atom does not know, `-ENOTTY`, `-ENOENT` past the end of a list, `-ENOMEM`); what became
//! of a handoff stands in its [`Report`]. Of a handoff only the drain waits for others: it ends at its
//! deadline, or when the calling task is killed, and the handoff is undone.

use core::mem::size_of;

use super::text::Text;
use super::version::{AbiRange, Refusal, SchemaRange};

/// Path of the device.
pub const DEVICE_PATH: &str = "/dev/atom-control";

const MAGIC: u32 = 0xEA;

const fn iowr(number: u32, bytes: usize) -> u32 {
    const READ_WRITE: u32 = 3;
    (READ_WRITE << 30) | ((bytes as u32 & 0x3fff) << 16) | (MAGIC << 8) | number
}

/// The state of Atom, a [`Status`].
pub const IOC_STATUS: u32 = iowr(1, size_of::<Status>());
/// The payload at [`PayloadInfo::index`].
pub const IOC_PAYLOAD: u32 = iowr(2, size_of::<PayloadInfo>());
/// The device at [`DeviceInfo::index`].
pub const IOC_DEVICE: u32 = iowr(3, size_of::<DeviceInfo>());
/// Warm handoff from the live payload to [`Handoff::payload`].
pub const IOC_SWITCH: u32 = iowr(4, size_of::<Handoff>());
/// The live payload gives the devices to Atom, which holds I/O. First half of a cold handoff.
pub const IOC_ABANDON: u32 = iowr(5, size_of::<Handoff>());
/// [`Handoff::payload`] takes over what Atom holds, or begins empty. Second half.
pub const IOC_ADOPT: u32 = iowr(6, size_of::<Handoff>());
/// Forwards a [`Command`] to the live payload; `-ENODEV` when none is live.
pub const IOC_COMMAND: u32 = iowr(7, size_of::<Command>());
/// One of the last [`REPORTS_KEPT`] reports, by [`ReportQuery::index`], newest first.
pub const IOC_REPORT: u32 = iowr(8, size_of::<ReportQuery>());

/// Reports that Atom keeps.
pub const REPORTS_KEPT: usize = 16;
/// Blockers that a report names.
pub const BLOCKERS_NAMED: usize = 8;

/// Phases of a handoff: indices into [`Report::phases_ns`].
pub mod phase {
    /// Checks and *prepare*; I/O is served. Not part of the pause.
    pub const PREPARE: usize = 0;
    /// The gates close; one expedited grace period.
    pub const CLOSE: usize = 1;
    /// The payload finishes what it owes.
    pub const DRAIN: usize = 2;
    /// The image is written.
    pub const FREEZE: usize = 3;
    /// The image is read, devices and preserved objects change hands.
    pub const ADOPT: usize = 4;
    /// The gates open.
    pub const OPEN: usize = 5;
    /// The old payload lets go; I/O is served. Not part of the pause.
    pub const RELEASE: usize = 6;
    /// Nobody was adopted, between the halves of a cold handoff.
    pub const HELD: usize = 7;
    /// Number of phases.
    pub const COUNT: usize = 8;

    /// Their names, in reports.
    pub const NAMES: [&str; COUNT] =
        ["prepare", "close", "drain", "freeze", "adopt", "open", "release", "held"];
}

/// What kind of handoff a [`Report`] is about.
pub mod kind {
    /// From a live payload to another one.
    pub const SWITCH: u32 = 0;
    /// From a live payload to Atom.
    pub const ABANDON: u32 = 1;
    /// From Atom to a payload.
    pub const ADOPT: u32 = 2;
}

/// What became of a handoff.
pub mod outcome {
    /// Carried out.
    pub const DONE: u32 = 0;
    /// Refused before anything changed.
    pub const REFUSED: u32 = 1;
    /// Begun and undone: the old payload serves, or Atom holds as before.
    pub const UNDONE: u32 = 2;
}

/// State of a registered payload.
pub mod payload_state {
    /// Registered, never live.
    pub const LOADED: u32 = 0;
    /// Serving.
    pub const LIVE: u32 = 1;
    /// Was live; a switch back restores it.
    pub const PARKED: u32 = 2;
}

/// The state of Atom.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// Bytes of this structure.
    pub size: u32,
    /// A [`super::lifecycle::Place`] by its code.
    pub place: u32,
    /// Versions of the interface.
    pub abi: AbiRange,
    /// Layout hash of the interface.
    pub layout_hash: u64,
    /// Capabilities offered.
    pub provides: u64,
    /// Number of the live generation; requests carry it.
    pub epoch: u64,
    /// Identity of the live payload, 0 when none is.
    pub live: u32,
    /// Payloads registered.
    pub payloads: u32,
    /// Devices that exist.
    pub devices: u32,
    /// Open handles on all devices together.
    pub opens: u32,
    /// Preserved objects.
    pub preserved: u32,
    /// Zero.
    pub reserved: u32,
    /// Bytes of the stored image, 0 when none is stored.
    pub image_bytes: u64,
    /// Handoffs that were carried out or undone.
    pub handoffs: u64,
    /// Completions refused because their epoch did not own the request.
    pub stale_completions: u64,
    /// Nanoseconds for which I/O has been held, 0 when it is served.
    pub held_ns: u64,
    /// Version of Atom.
    pub version: Text,
    /// Version of the payload that was refused last at registration.
    pub refused: Text,
    /// Why it was refused.
    pub refusal: Refusal,
}

/// One registered payload.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PayloadInfo {
    /// Bytes of this structure.
    pub size: u32,
    /// In: position in the list, from 0.
    pub index: u32,
    /// Its identity.
    pub id: u32,
    /// One of [`payload_state`].
    pub state: u32,
    /// Versions of the interface it can work with.
    pub abi: AbiRange,
    /// Schemas it reads and writes.
    pub schema: SchemaRange,
    /// Its version.
    pub version: Text,
    /// The name of its kernel module.
    pub module: Text,
}

/// One device.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DeviceInfo {
    /// Bytes of this structure.
    pub size: u32,
    /// In: position in the list, from 0.
    pub index: u32,
    /// N of `/dev/atomN`.
    pub id: u32,
    /// Open handles.
    pub opens: u32,
    /// Capacity in sectors of 512 bytes.
    pub capacity_sectors: u64,
    /// Bits of [`super::device::feature`].
    pub features: u32,
    /// Hardware queues.
    pub hw_queues: u16,
    /// Requests per hardware queue.
    pub queue_depth: u16,
    /// Requests that the payload owes at this moment.
    pub owed: u32,
    /// Zero.
    pub reserved: u32,
}

/// A request that the payload still owed at the deadline.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Blocker {
    /// First sector.
    pub sector: u64,
    /// Nanoseconds since the block layer began with it, the time in which I/O was held included. Only
    /// meaningful while the queue's `iostats` is on, as it is by default.
    pub age_ns: u64,
    /// Length in bytes.
    pub bytes: u32,
    /// N of `/dev/atomN`.
    pub device: u32,
    /// Tag within the hardware queue.
    pub tag: u32,
    /// Hardware queue.
    pub hctx: u16,
    /// One of [`super::request::op`].
    pub op: u8,
    /// Bits of [`super::request::flags`].
    pub flags: u8,
}

impl Blocker {
    /// An unused entry.
    pub const NONE: Self =
        Self { sector: 0, age_ns: 0, bytes: 0, device: 0, tag: 0, hctx: 0, op: 0, flags: 0 };
}

/// What became of a handoff, with the time of each phase.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Counts handoffs from 1; 0 for one that was refused.
    pub sequence: u64,
    /// The epoch that serves after it.
    pub epoch: u64,
    /// One of [`kind`].
    pub kind: u32,
    /// One of [`outcome`].
    pub outcome: u32,
    /// Why it was refused or undone.
    pub refusal: Refusal,
    /// Version that was live before; empty when none was.
    pub from: Text,
    /// Version that was to be live; empty for an abandon.
    pub to: Text,
    /// When it began: nanoseconds of the kernel's monotonic clock.
    pub started_ns: u64,
    /// Nanoseconds by [`phase`].
    pub phases_ns: [u64; phase::COUNT],
    /// Nanoseconds from the first gate that closed to the last that opened; for an abandon, until it
    /// ended; for an adopt, since the gate closed.
    pub pause_ns: u64,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// The schema of the image.
    pub schema: u32,
    /// Devices that changed hands.
    pub devices: u32,
    /// Open handles meanwhile.
    pub opens: u32,
    /// Preserved objects that changed hands.
    pub preserved: u32,
    /// Requests still owed at the deadline; the first few are named.
    pub owed: u32,
    /// Sum of the errors of inverses, which must not fail: 0.
    pub inverse_errors: u32,
    /// The first requests that were still owed.
    pub blockers: [Blocker; BLOCKERS_NAMED],
}

impl Report {
    /// An empty report.
    pub const EMPTY: Self = Self {
        sequence: 0,
        epoch: 0,
        kind: kind::SWITCH,
        outcome: outcome::REFUSED,
        refusal: Refusal::NONE,
        from: Text::EMPTY,
        to: Text::EMPTY,
        started_ns: 0,
        phases_ns: [0; phase::COUNT],
        pause_ns: 0,
        image_bytes: 0,
        schema: 0,
        devices: 0,
        opens: 0,
        preserved: 0,
        owed: 0,
        inverse_errors: 0,
        blockers: [Blocker::NONE; BLOCKERS_NAMED],
    };
}

/// Asks for a handoff and carries its report back.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Handoff {
    /// Bytes of this structure.
    pub size: u32,
    /// In: identity of the payload that is to take over; ignored by an abandon.
    pub payload: u32,
    /// In: the image schema to write, 0 for the newest that fits. An abandon cannot know who adopts
    /// next, so whoever asks for one names a schema that the next payload reads.
    pub schema: u32,
    /// Zero.
    pub reserved: u32,
    /// In: nanoseconds that the drain may take, at most [`MAX_DEADLINE_NS`].
    pub deadline_ns: u64,
    /// Out: what became of it.
    pub report: Report,
}

/// Longest drain that may be asked for: ten minutes.
pub const MAX_DEADLINE_NS: u64 = 600_000_000_000;

/// Forwards opaque bytes to the live payload.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Bytes of this structure.
    pub size: u32,
    /// Out: what the payload returned, 0 or a negative errno.
    pub result: i32,
    /// In: address of the command.
    pub input: u64,
    /// In: address for the answer.
    pub output: u64,
    /// In: bytes of the command, at most [`super::table::MAX_COMMAND_BYTES`].
    pub input_bytes: u32,
    /// In: room for the answer. Out: its length.
    pub output_bytes: u32,
}

/// Asks for an earlier report.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ReportQuery {
    /// Bytes of this structure.
    pub size: u32,
    /// In: 0 for the newest.
    pub index: u32,
    /// Out: the report.
    pub report: Report,
}
