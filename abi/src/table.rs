// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The operations table that a payload registers with Atom.
//!
//! Each operation that can fail returns 0 or a negative errno of the kernel. Unless its line says
//! otherwise an operation is called in process context, may sleep, and is called under Atom's
//! turn, so that at most one of them runs at a time. While the gate is closed Atom sets `PF_MEMALLOC_NOIO` on the
//! calling task: what is allocated there never waits for I/O.

use core::ffi::c_void;
use core::mem::offset_of;

use super::control::Blocker;
use super::request::Request;
use super::text::Text;
use super::version::{AbiRange, Offer, SchemaRange};

/// What *prepare* may size its memory by.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PrepareArgs {
    /// Bytes of this structure that Atom knows.
    pub size: u32,
    /// Devices that exist now. More may be created before *adopt*.
    pub devices: u32,
    /// Bytes of the stored image, or the bound that the live payload gave for its own.
    pub image_bytes: u64,
}

/// Where *freeze* writes the image.
#[repr(C)]
#[derive(Debug)]
pub struct FreezeArgs {
    /// Bytes of this structure that Atom knows.
    pub size: u32,
    /// The schema to write, within the payload's own range.
    pub schema: u32,
    /// The buffer, in Atom's memory.
    pub buffer: *mut u8,
    /// Bytes in the buffer.
    pub capacity: u64,
    /// Bytes of the image; set by the payload. On `-ENOSPC`: the bytes it needs.
    pub used: u64,

    /// Since 1.3. Bits of [`freeze_flags`].
    pub flags: u32,
    /// Since 1.3. Zero.
    pub reserved: u32,
    /// Since 1.3. The most bytes that a difference can have in this handoff; set by *copy_ahead*.
    pub delta_bytes: u64,
}

/// Bits of [`FreezeArgs::flags`]. Since 1.3.
pub mod freeze_flags {
    /// Only what differs from what *copy_ahead* has written before in this handoff. It is an image by itself, of
    /// the same schema.
    pub const DELTA: u32 = 1 << 0;
}

/// What *adopt* takes over.
#[repr(C)]
#[derive(Debug)]
pub struct AdoptArgs {
    /// Bytes of this structure that Atom knows.
    pub size: u32,
    /// Devices that wait to be bound with `atom_device_bind`. All of them must be.
    pub devices: u32,
    /// The epoch in which the payload will own requests.
    pub epoch: u64,
    /// The image; null when there is none and the payload begins empty.
    pub image: *const u8,
    /// Bytes of the image.
    pub image_bytes: u64,

    /// Since 1.1. Bits of [`adopt_flags`].
    pub flags: u32,
    /// Since 1.1. Zero.
    pub reserved: u32,
}

/// Bits of [`AdoptArgs::flags`].
pub mod adopt_flags {
    /// The image is the last checkpoint of a payload that could not be asked any more: devices and
    /// preserved objects are as they are now, everything else as it was then.
    pub const CHECKPOINT: u32 = 1 << 0;
    /// The image is what differs from those that *adopt_ahead* was given in this handoff. Since 1.3.
    pub const DELTA: u32 = 1 << 1;
}

/// How *suspend* is to wait. Since 1.1.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SuspendArgs {
    /// Bytes of this structure that Atom knows.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Nanoseconds that this call may wait. Atom calls again until nothing is left or its deadline has passed.
    pub wait_ns: u64,
}

/// What has passed when *resume* is called. Since 1.1.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ResumeArgs {
    /// Bytes of this structure that Atom knows.
    pub size: u32,
    /// Devices whose changes of this *adopt* could not be made; they go on as they were.
    pub unchanged: u32,
    /// Nanoseconds for which the gate was closed, to be added to every deadline that the payload keeps.
    pub paused_ns: u64,
}

/// A command forwarded to the payload. Opaque to Atom.
#[repr(C)]
#[derive(Debug)]
pub struct CommandArgs {
    /// Bytes of this structure that Atom knows.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// The command, in kernel memory.
    pub input: *const u8,
    /// Bytes of the command, at most [`MAX_COMMAND_BYTES`].
    pub input_bytes: u64,
    /// Where the answer goes, in kernel memory.
    pub output: *mut u8,
    /// Bytes there is room for.
    pub output_capacity: u64,
    /// Bytes of the answer; set by the payload.
    pub output_bytes: u64,
}

/// Longest command and longest answer, in bytes.
pub const MAX_COMMAND_BYTES: usize = 64 << 10;

/// The operations table. It lies in the payload's module and stays there until it unregisters.
#[repr(C)]
pub struct PayloadTable {
    /// Bytes of this table that the payload knows.
    pub size: u32,
    /// Bytes of scratch it needs in each request.
    pub scratch_bytes: u32,
    /// Versions of the interface it can work with.
    pub abi: AbiRange,
    /// Its [`super::layout::HASH`].
    pub layout_hash: u64,
    /// Capabilities it offers.
    pub provides: u64,
    /// Capabilities it needs.
    pub requires: u64,
    /// Image schemas it can read and write.
    pub schema: SchemaRange,
    /// Its version.
    pub version: Text,
    /// Its `struct module *`, on which Atom holds a reference while it is live.
    pub module: *mut c_void,

    /// Gets everything that can fail or be slow before the pause; the old payload is still serving.
    pub prepare: Option<unsafe extern "C" fn(args: *const PrepareArgs) -> i32>,
    /// Inverse of *prepare*. Must succeed; what it returns is reported.
    pub unprepare: Option<unsafe extern "C" fn() -> i32>,
    /// An upper bound for the image in `schema`, in bytes. Called before the pause.
    pub image_bytes: Option<unsafe extern "C" fn(schema: u32) -> u64>,
    /// Exports the image. The payload owes no request and must change no state until *thaw* or
    /// *abandon*. On an error it is as if it had not been called.
    pub freeze: Option<unsafe extern "C" fn(args: *mut FreezeArgs) -> i32>,
    /// Inverse of *freeze*: the payload serves again. Must succeed; what it returns is reported.
    pub thaw: Option<unsafe extern "C" fn() -> i32>,
    /// Imports the image and takes over every device. On an error it has undone all it did; what it has
    /// bound and claimed Atom forgets by itself.
    pub adopt: Option<unsafe extern "C" fn(args: *const AdoptArgs) -> i32>,
    /// Forgets what it froze: Atom or another payload has it now. When it returns, nothing of the
    /// payload may run or be scheduled to run. Must succeed; what it returns is reported.
    pub abandon: Option<unsafe extern "C" fn() -> i32>,
    /// Takes a request of the device bound to `cookie`. Called by the block layer's dispatch: RCU
    /// read side, possibly softirq-disabled, must not sleep; since 1.2, for a device with
    /// [`super::device::feature::SLEEPS`]: process context, may sleep, but must not wait for another request of
    /// its own devices. Returns one of [`super::request::status`]; with anything but OK the payload has not
    /// taken the request.
    pub queue_rq: Option<unsafe extern "C" fn(cookie: u64, request: *mut Request) -> u32>,
    /// Carries out an opaque command. May create and destroy devices.
    pub command: Option<unsafe extern "C" fn(args: *mut CommandArgs) -> i32>,

    /// Since 1.1, optional, as all that follow. Stops background work while I/O is still served: whatever
    /// runs without a request, as resynchronisation, reconnecting, keep-alives. Returns how much is
    /// left, 0 when nothing runs any more, or a negative errno. Called again while something is left.
    pub suspend: Option<unsafe extern "C" fn(args: *const SuspendArgs) -> i32>,
    /// Inverse of *suspend*, and the last step of a handoff for the payload that serves after it:
    /// background work begins, deadlines move by the length of the pause. I/O is served already.
    /// Also called without a *suspend* before. Must succeed; what it returns is reported.
    pub resume: Option<unsafe extern "C" fn(args: *const ResumeArgs) -> i32>,
    /// Lets go of every request that the payload owes, because the deadline of a drain has passed. No
    /// dispatch runs. When it returns 0 the payload will touch none of them, or their data, again, and nothing that it has sent on
    /// their behalf can still reach a medium: no late write, no DMA. Atom then takes the requests
    /// back. An errno: it cannot promise that, and the handoff is undone. Needed by
    /// [`super::version::caps::REISSUE`].
    pub revoke: Option<unsafe extern "C" fn() -> i32>,
    /// Says in a few words why it has not ended a request yet. The request may end meanwhile: `blocker` is
    /// a copy. An empty text, or an errno: it does not know.
    pub explain: Option<
        unsafe extern "C" fn(cookie: u64, blocker: *const Blocker, reason: *mut Text) -> i32,
    >,
    /// A request of the device bound to `cookie` has been owed for the time that the device's spec
    /// gives. RCU read side, in the block layer's timeout work: must not sleep. The gate is open, and
    /// time in which it was closed is not counted. The request may be ended before it returns.
    /// Returns one of [`super::request::timeout`].
    pub timeout: Option<unsafe extern "C" fn(cookie: u64, request: *mut Request) -> u32>,

    /// Since 1.2, optional. After a request with [`super::request::flags::MORE`] no other one follows, on
    /// hardware queue `hctx` of the device bound to `cookie`: what the payload has kept back of them until there
    /// are more has to be carried out. Context: that of *queue_rq*, within the same dispatch, so that a gate
    /// that closes waits for it. Also called when nothing was kept back.
    pub commit: Option<unsafe extern "C" fn(cookie: u64, hctx: u32)>,

    /// Since 1.3, optional, as what follows; only called when the live payload has this and the candidate has
    /// *adopt_ahead*. Exports an image as *freeze* does, while requests are served: the first time in a handoff all of
    /// it, then with [`freeze_flags::DELTA`] what differs from what was exported before, as often as Atom finds it
    /// worth it; *freeze* exports the last difference. What exists does not change meanwhile, because Atom forwards no
    /// command; what is counted does. It stands for a checkpoint, too. Nothing is undone after it. On an error Atom goes on
    /// without it, and *freeze* exports everything.
    pub copy_ahead: Option<unsafe extern "C" fn(args: *mut FreezeArgs) -> i32>,
    /// Imports an image that *copy_ahead* has exported, after *prepare* and before the pause, with an epoch of 0: the
    /// first time all of it, then with [`adopt_flags::DELTA`] what differs. The payload may bind devices and
    /// claim page stores, but use none of them; preserved files and sockets are claimed in *adopt*, which gets the last
    /// difference. Undone by *unprepare*, on an error too: the handoff ends then.
    pub adopt_ahead: Option<unsafe extern "C" fn(args: *const AdoptArgs) -> i32>,

    /// Since 1.5, optional. Ends with [`super::request::status::NOT_STARTED`] every request that the payload has and that
    /// waits for something: that was not sent yet, or whose target is away. They wait at the gate and not in the drain, for the
    /// next payload, or for this one when the handoff is undone. The gates are closed and no dispatch runs; other requests
    /// end meanwhile. Nothing of a request that it ends so may still be under way. On an error the drain waits for what
    /// was not handed back.
    pub hand_back: Option<unsafe extern "C" fn() -> i32>,
}

impl PayloadTable {
    /// Bytes of the table in 1.0: the shortest that Atom takes.
    pub const BYTES_1_0: usize = offset_of!(Self, suspend);

    /// Bytes of the table in 1.1.
    pub const BYTES_1_1: usize = offset_of!(Self, commit);

    /// Bytes of the table in 1.2.
    pub const BYTES_1_2: usize = offset_of!(Self, copy_ahead);

    /// Bytes of the table in 1.3 and 1.4.
    pub const BYTES_1_3: usize = offset_of!(Self, hand_back);

    /// What the payload brings to the negotiation.
    pub fn offer(&self) -> Offer {
        Offer {
            abi: self.abi,
            layout_hash: self.layout_hash,
            provides: self.provides,
            requires: self.requires,
            scratch_bytes: self.scratch_bytes,
        }
    }

    /// True when no operation is missing.
    pub fn is_complete(&self) -> bool {
        let lifecycle = self.prepare.is_some()
            && self.unprepare.is_some()
            && self.image_bytes.is_some()
            && self.freeze.is_some()
            && self.thaw.is_some()
            && self.adopt.is_some()
            && self.abandon.is_some();
        lifecycle && self.queue_rq.is_some() && self.command.is_some() && !self.module.is_null()
    }
}
