// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The control interface: ioctls of `/dev/atom-control` (mode 0600, `CAP_SYS_ADMIN`).
//!
//! Every ioctl takes one structure that begins with its size and is filled in place. It may be shorter than
//! Atom's own, when the caller is older: Atom takes what is missing as zero and fills in what there is room for.
//! It may be longer: what Atom does not know must be zero. The ioctl itself
//! returns an error only when it could not be carried out at all (`-EPERM`, `-EFAULT`, `-EINVAL` for a
//! size below that of 1.0, `-E2BIG` for what Atom does not know, `-ENOTTY`, `-ENOENT` past the end of a list, `-ENOMEM`); what became
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

/// Changes policies and says what they are, [`Settings`]. Since 1.1.
pub const IOC_SETTINGS: u32 = iowr(9, size_of::<Settings>());
/// Ends the soak of the live payload, a [`Commit`]. Since 1.1.
pub const IOC_COMMIT: u32 = iowr(10, size_of::<Commit>());

/// The number of an ioctl without the size of its structure, by which Atom knows it: a structure may be
/// shorter or longer than Atom's own, see the module.
pub const fn number(command: u32) -> u32 {
    command & !(0x3fff << 16)
}

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
    /// Nobody adopted in time: Atom fails I/O instead of holding it. Since 1.1.
    pub const EXPIRE: u32 = 3;
}

/// Who wanted a handoff. Since 1.1.
pub mod cause {
    /// Somebody asked for it.
    pub const ASKED: u32 = 0;
    /// During the soak a request was owed for longer than the limit: Atom switched back.
    pub const STALL: u32 = 1;
    /// The soak ended without a commit: Atom switched back.
    pub const NO_COMMIT: u32 = 2;
    /// Nobody adopted in time: Atom loaded the fallback payload, or fails I/O.
    pub const NOBODY: u32 = 3;
    /// The task that carried out a handoff died: Atom went back.
    pub const DIED: u32 = 4;

    /// Their names, in reports and events.
    pub fn name_of(code: u32) -> &'static str {
        match code {
            ASKED => "asked",
            STALL => "stall",
            NO_COMMIT => "no-commit",
            NOBODY => "nobody",
            DIED => "died",
            _ => "unknown",
        }
    }
}

/// What happens at the deadline of a drain: the values of [`Handoff::policy`]. Since 1.1.
pub mod policy {
    /// The handoff is undone.
    pub const ABORT: u32 = 0;
    /// The payload lets go of its requests, and Atom hands them to the next one, see
    /// [`super::super::request::reissue`].
    pub const REISSUE: u32 = 1;
    /// The payload lets go of its requests, and they fail (`BLK_STS_TIMEOUT`).
    pub const FAIL: u32 = 2;
    /// Only with [`FORSAKE`]: the requests are left as they are, for ever. Nobody ends them, whoever waits for them
    /// waits on, their tags are lost, and their devices cannot be destroyed any more. For requests
    /// whose task an oops has killed in *queue_rq*: what the block layer would touch at their
    /// end is memory of that task.
    pub const LEAVE: u32 = 3;
    /// The bits with one of the above.
    pub const AT_DEADLINE: u32 = 0xff;
    /// The live payload is not asked for anything: its checkpoint stands for its image, and what it owes is taken
    /// back without its promise. For a payload that is dead or hangs; implied for a dead one.
    pub const FORSAKE: u32 = 1 << 8;
}

/// What happens when nobody is adopted. Since 1.1.
pub mod hold {
    /// I/O waits until somebody adopts.
    pub const HOLD: u32 = 0;
    /// After the deadline I/O fails as on a dead path (`BLK_STS_TRANSPORT`), until somebody adopts.
    pub const FAIL: u32 = 1;
    /// After the deadline Atom has the kernel load the fallback payload, and it adopts.
    pub const FALLBACK: u32 = 2;
}

/// Stages of a drain: indices into [`Report::stages`]. Since 1.1.
pub mod stage {
    /// Background work, before the gate closes.
    pub const BACKGROUND: usize = 0;
    /// Reads, writes, discards, write-zeroes.
    pub const DATA: usize = 1;
    /// Flushes.
    pub const FLUSHES: usize = 2;
    /// Number of stages.
    pub const COUNT: usize = 3;

    /// Their names, in reports.
    pub const NAMES: [&str; COUNT] = ["background", "data", "flushes"];
}

/// One stage of a drain. Since 1.1.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage {
    /// What was outstanding when the stage began.
    pub began: u32,
    /// What was outstanding when it ended: 0, or what was left at the deadline.
    pub left: u32,
    /// Nanoseconds that it took.
    pub ns: u64,
}

impl Stage {
    /// A stage that has not begun.
    pub const NONE: Self = Self { began: 0, left: 0, ns: 0 };
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
    /// A task died in one of its operations: none is called any more, and its module stays. It may still
    /// be the one that serves: then it is the live one by [`super::Status::live`]. Since 1.1.
    pub const DEAD: u32 = 3;
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

    /// Since 1.1. Counts what has happened: handoffs, commits, payloads that came, went or died.
    pub events: u64,
    /// Since 1.1. Nanoseconds until the soak ends without a commit; 0 when nothing soaks.
    pub soak_left_ns: u64,
    /// Since 1.1. The payload to which one switch goes back, 0 when nothing soaks.
    pub parked: u32,
    /// Since 1.1. 1 more than the [`stage`] of the drain that is under way; 0: none is.
    pub stage: u32,
    /// Since 1.1. What is outstanding in that stage.
    pub outstanding: u32,
    /// Since 1.1. Errno of the fallback payload that could not be loaded, 0 when it was not asked for.
    pub fallback_error: i32,
    /// Since 1.1. Bytes of the checkpoint, 0 without one of the present devices.
    pub checkpoint_bytes: u64,
}

impl Status {
    /// A status of nothing.
    pub const EMPTY: Self = Self {
        size: size_of::<Self>() as u32,
        place: 0,
        abi: AbiRange::CURRENT,
        layout_hash: 0,
        provides: 0,
        epoch: 0,
        live: 0,
        payloads: 0,
        devices: 0,
        opens: 0,
        preserved: 0,
        reserved: 0,
        image_bytes: 0,
        handoffs: 0,
        stale_completions: 0,
        held_ns: 0,
        version: Text::EMPTY,
        refused: Text::EMPTY,
        refusal: Refusal::NONE,
        events: 0,
        soak_left_ns: 0,
        parked: 0,
        stage: 0,
        outstanding: 0,
        fallback_error: 0,
        checkpoint_bytes: 0,
    };
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

    /// Since 1.1. Requests that have ended with an error since the device exists.
    pub errors: u64,
    /// Since 1.1. Nanoseconds for which the oldest request has been owed, as far as Atom's watch has seen.
    pub oldest_ns: u64,
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

    /// Since 1.1. One of [`cause`].
    pub cause: u32,
    /// Since 1.1. The [`policy`] that applied.
    pub policy: u32,
    /// Since 1.1. Requests that were taken back: reissued, ended as done, or failed, by the policy.
    pub revoked: u32,
    /// Since 1.1. Devices that were changed.
    pub changed: u32,
    /// Since 1.1. The drain, by [`stage`].
    pub stages: [Stage; stage::COUNT],
    /// Since 1.1. The payload's own reason for each of the blockers; may be empty.
    pub reasons: [Text; BLOCKERS_NAMED],

    /// Since 1.5. Requests that the payload had not started, and that went to whoever served next.
    pub handed_back: u32,
    /// Zero.
    pub reserved: u32,
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
        cause: cause::ASKED,
        policy: policy::ABORT,
        revoked: 0,
        changed: 0,
        stages: [Stage::NONE; stage::COUNT],
        reasons: [Text::EMPTY; BLOCKERS_NAMED],
        handed_back: 0,
        reserved: 0,
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
    /// In: the [`policy`] at the deadline. 1.0 had a reserved zero here, which means abort.
    pub policy: u32,
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

/// Policies, for Atom as a whole. Any of them can be changed at any time; a soak that is under way keeps
/// the terms with which it began. Since 1.1.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of this structure.
    pub size: u32,
    /// In: bits of [`setting`] that are to be changed. Out: unchanged. All other fields are filled in.
    pub change: u32,
    /// One of [`hold`].
    pub hold: u32,
    /// The [`policy`] at the deadline of a switch that Atom makes by itself.
    pub back_policy: u32,
    /// Nanoseconds from the closing of the gate after which the hold policy acts.
    pub hold_deadline_ns: u64,
    /// Nanoseconds after a switch within which a commit must come, or Atom switches back; 0: no soak, every
    /// switch is committed at once.
    pub soak_ns: u64,
    /// During the soak, nanoseconds for which a request may be owed before Atom switches back; 0: no limit.
    pub stall_ns: u64,
    /// Nanoseconds for the drain of a switch that Atom makes by itself.
    pub back_deadline_ns: u64,
    /// Name of the module with the fallback payload, as `modprobe` takes it.
    pub fallback: Text,
}

/// Bits of [`Settings::change`].
pub mod setting {
    /// `hold`, `hold_deadline_ns` and `fallback`.
    pub const HOLD: u32 = 1 << 0;
    /// `soak_ns`, `stall_ns`, `back_policy` and `back_deadline_ns`.
    pub const SOAK: u32 = 1 << 1;
    /// All that Atom knows; any other bit is refused.
    pub const ALL: u32 = HOLD | SOAK;
}

impl Settings {
    /// Those of an Atom that was just loaded: hold for ever, commit at once.
    pub const DEFAULT: Self = Self {
        size: size_of::<Self>() as u32,
        change: 0,
        hold: hold::HOLD,
        back_policy: policy::REISSUE,
        hold_deadline_ns: 0,
        soak_ns: 0,
        stall_ns: 0,
        back_deadline_ns: 1_000_000_000,
        fallback: Text::EMPTY,
    };

    /// True when every value is one that Atom can act on.
    pub fn is_valid(&self) -> bool {
        self.change & !setting::ALL == 0
            && self.hold <= hold::FALLBACK
            && self.back_policy <= policy::FAIL
            && self.back_deadline_ns <= MAX_DEADLINE_NS
            && (self.hold != hold::FALLBACK || !self.fallback.is_empty())
    }

    /// These settings, with what `wanted` changes. `None` when that is not valid.
    pub fn changed_by(&self, wanted: &Self) -> Option<Self> {
        if !wanted.is_valid() {
            return None;
        }
        let mut next = *self;
        if wanted.change & setting::HOLD != 0 {
            next.hold = wanted.hold;
            next.hold_deadline_ns = wanted.hold_deadline_ns;
            next.fallback = wanted.fallback;
        }
        if wanted.change & setting::SOAK != 0 {
            next.soak_ns = wanted.soak_ns;
            next.stall_ns = wanted.stall_ns;
            next.back_policy = wanted.back_policy;
            next.back_deadline_ns = wanted.back_deadline_ns;
        }
        Some(next)
    }
}

/// Ends the soak: the payload that was live before may be unloaded. Since 1.1.
///
/// Errors: `-ENOENT` when nothing soaks, `-ESTALE` when another payload is live.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// Bytes of this structure.
    pub size: u32,
    /// In: identity of the payload that stays.
    pub payload: u32,
}
