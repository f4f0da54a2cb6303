// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Versions, capabilities, and whether an Atom and a payload can work together.
//!
//! Versions of this interface, newest first:
//!
//! - 1.5: requests that a payload has not started are handed back, and the next one starts them.
//! - 1.4: hardware queues for polled I/O.
//! - 1.3: images are copied ahead of the pause, and only what differs is frozen.
//! - 1.2: a dispatch that may sleep, requests in batches, the ends of bios, the payload's own events; more limits
//!   of a device.
//! - 1.1: background work, taking requests back, reasons, timeouts; preserved files and sockets; checkpoints;
//!   changing a device; policies for the deadline, for a soak and for when nobody is adopted.
//! - 1.0: the first.

use core::fmt;

/// The interface changes incompatibly with this number.
pub const ABI_MAJOR: u16 = 1;
/// The interface grows at the end of its tables with this number.
pub const ABI_MINOR: u16 = 5;

/// The minor versions of one major version that a side can work with, both ends included.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbiRange {
    /// Major version.
    pub major: u16,
    /// Oldest minor version.
    pub minor_min: u16,
    /// Newest minor version.
    pub minor_max: u16,
    /// Zero.
    pub reserved: u16,
}

impl AbiRange {
    /// What this source tree implements.
    pub const CURRENT: Self =
        Self { major: ABI_MAJOR, minor_min: 0, minor_max: ABI_MINOR, reserved: 0 };
}

/// The image schemas that a payload can read and write, all ends included.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SchemaRange {
    /// Oldest schema that adopt understands.
    pub read_min: u32,
    /// Newest schema that adopt understands.
    pub read_max: u32,
    /// Oldest schema that freeze can write.
    pub write_min: u32,
    /// Newest schema that freeze can write.
    pub write_max: u32,
}

/// Capability bits. A side that meets a bit it does not know refuses it when it is required.
pub mod caps {
    /// Devices are created and destroyed on the payload's request.
    pub const DEVICES: u64 = 1 << 0;
    /// Pages outlive a payload in Atom's memory.
    pub const PRESERVED_PAGES: u64 = 1 << 1;
    /// Commands are forwarded to the payload as opaque bytes.
    pub const COMMANDS: u64 = 1 << 2;
    /// Requests of a stuck payload are handed to the next one as replays.
    pub const REISSUE: u64 = 1 << 3;
    /// Files and sockets outlive a payload in Atom's keeping. Since 1.1.
    pub const PRESERVED_OBJECTS: u64 = 1 << 4;
    /// A device can be changed. Since 1.1.
    pub const CHANGES: u64 = 1 << 5;
    /// A checkpoint stands in for a payload that cannot be asked any more. Since 1.1.
    pub const CHECKPOINTS: u64 = 1 << 6;
    /// The payload is asked about requests that take too long. Since 1.1.
    pub const TIMEOUTS: u64 = 1 << 7;
    /// *queue_rq* of a device may sleep. Since 1.2.
    pub const SLEEPING_DISPATCH: u64 = 1 << 8;
    /// Atom stands between the end of a bio and the payload. Since 1.2.
    pub const BIO_ENDS: u64 = 1 << 9;
    /// The payload's own events are told where Atom's are. Since 1.2.
    pub const EVENTS: u64 = 1 << 10;
    /// A device can have hardware queues for polled I/O. Since 1.4.
    pub const POLLED_QUEUES: u64 = 1 << 11;

    /// What this Atom offers.
    pub const OFFERED: u64 = DEVICES
        | PRESERVED_PAGES
        | COMMANDS
        | REISSUE
        | PRESERVED_OBJECTS
        | CHANGES
        | CHECKPOINTS
        | TIMEOUTS
        | SLEEPING_DISPATCH
        | BIO_ENDS
        | EVENTS
        | POLLED_QUEUES;

    /// The name of one capability bit, for messages.
    pub fn name(bit: u64) -> &'static str {
        match bit {
            DEVICES => "devices",
            PRESERVED_PAGES => "preserved-pages",
            COMMANDS => "commands",
            REISSUE => "reissue",
            PRESERVED_OBJECTS => "preserved-objects",
            CHANGES => "changes",
            CHECKPOINTS => "checkpoints",
            TIMEOUTS => "timeouts",
            SLEEPING_DISPATCH => "sleeping-dispatch",
            BIO_ENDS => "bio-ends",
            EVENTS => "events",
            POLLED_QUEUES => "polled-queues",
            _ => "unknown",
        }
    }
}

/// What one side brings to the negotiation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Interface versions.
    pub abi: AbiRange,
    /// The layout hash of the major version, see [`super::layout`].
    pub layout_hash: u64,
    /// Capabilities this side offers.
    pub provides: u64,
    /// Capabilities this side cannot do without.
    pub requires: u64,
    /// Bytes of scratch per request: what Atom has, or what the payload needs.
    pub scratch_bytes: u32,
}

impl Offer {
    /// What Atom of this source tree brings.
    pub const ATOM: Self = Self {
        abi: AbiRange::CURRENT,
        layout_hash: super::layout::HASH,
        provides: caps::OFFERED,
        requires: 0,
        scratch_bytes: super::request::SCRATCH_BYTES as u32,
    };
}

/// What both sides settled on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreement {
    /// The minor version that both use.
    pub minor: u16,
    /// The capabilities that both know.
    pub caps: u64,
}

/// Why a payload was refused, with the two values that did not fit.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// One of [`reason`].
    pub code: u32,
    /// Zero.
    pub reserved: u32,
    /// What the refusing side expected; its meaning depends on the code.
    pub expected: u64,
    /// What it found instead.
    pub found: u64,
}

/// Codes of a [`Refusal`].
pub mod reason {
    /// Nothing was refused.
    pub const NONE: u32 = 0;
    /// Another major version of the interface.
    pub const ABI_MAJOR: u32 = 1;
    /// No common minor version.
    pub const ABI_MINOR: u32 = 2;
    /// The structures that cross the boundary are laid out differently.
    pub const LAYOUT: u32 = 3;
    /// A required capability is missing.
    pub const CAPABILITY: u32 = 4;
    /// The payload wants more scratch per request than Atom has.
    pub const SCRATCH: u32 = 5;
    /// The table is shorter than the first version of it, or lacks an operation.
    pub const TABLE: u32 = 6;
    /// The live payload writes no schema that the candidate reads, or the stored image has another one.
    /// `expected` is the schema that there is, `found` what is read: the oldest, and the newest shifted
    /// left by 32.
    pub const SCHEMA: u32 = 7;
    /// The image is damaged or holds what the candidate must not ignore.
    pub const IMAGE: u32 = 8;
    /// A payload of this version is registered already.
    pub const DUPLICATE: u32 = 9;
    /// The slot is taken: another payload is live.
    pub const SLOT_TAKEN: u32 = 10;
    /// The candidate did not take over a device.
    pub const UNBOUND_DEVICE: u32 = 11;
    /// The lifecycle has no such step in the present state.
    pub const STATE: u32 = 12;
    /// No such payload is registered.
    pub const NO_PAYLOAD: u32 = 13;
    /// The payload's own operation failed; `found` is the errno.
    pub const OPERATION: u32 = 14;
    /// The drain did not end before the deadline; `found` is the number of requests still owed.
    pub const DEADLINE: u32 = 15;
    /// Memory was short before the pause.
    pub const NO_MEMORY: u32 = 16;
    /// The live payload does not write the schema that was asked for.
    pub const UNWRITABLE: u32 = 17;
    /// The deadline has passed, and the live payload cannot promise that nothing of what it owes is carried
    /// out late, so its requests cannot be taken back; `expected` is the number of requests still owed,
    /// `found` the errno, 0 without the capability.
    pub const NO_PROMISE: u32 = 18;
    /// The task that ran an operation of the payload died in it; `found` is the payload's identity.
    pub const DIED: u32 = 19;
    /// There is no checkpoint of the live payload, or devices have come or gone since.
    pub const NO_CHECKPOINT: u32 = 20;
    /// The payload is dead: none of its operations is called any more; `found` is its identity.
    pub const DEAD: u32 = 21;
    /// Nobody adopted in time.
    pub const NOBODY: u32 = 22;
    /// An oops has killed a task since the machine was started, and the payload is not one that is known to have
    /// died in an operation: what it owes may be that task's, and must not be ended or reissued.
    /// `expected` is the number of requests still owed.
    pub const TASK_DIED: u32 = 23;
}

impl Refusal {
    /// Nothing was refused.
    pub const NONE: Self = Self::new(reason::NONE, 0, 0);

    /// A refusal with the two values that did not fit.
    pub const fn new(code: u32, expected: u64, found: u64) -> Self {
        Self { code, reserved: 0, expected, found }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (expected, found) = (self.expected, self.found);
        match self.code {
            reason::NONE => f.write_str("nothing was refused"),
            reason::ABI_MAJOR => write!(f, "it speaks ABI {found}.x, Atom speaks ABI {expected}.x"),
            reason::ABI_MINOR => write!(
                f,
                "no common minor ABI version: Atom speaks up to .{expected}, it needs at least .{found}"
            ),
            reason::LAYOUT => write!(
                f,
                "it was built against another layout of the interface: {found:#018x}, Atom has {expected:#018x}"
            ),
            reason::CAPABILITY => {
                f.write_str("Atom does not have the capabilities it requires:")?;
                (0..64)
                    .map(|shift| 1u64 << shift)
                    .filter(|bit| found & bit != 0)
                    .try_for_each(|bit| match caps::name(bit) {
                        "unknown" => write!(f, " bit {}", bit.trailing_zeros()),
                        name => write!(f, " {name}"),
                    })
            }
            reason::SCRATCH => write!(
                f,
                "it needs {found} bytes of scratch per request, Atom has {expected}"
            ),
            reason::TABLE => write!(
                f,
                "its operations table is incomplete: {found} bytes or operations where {expected} are needed"
            ),
            reason::SCHEMA => write!(
                f,
                "no common image schema: what is there has schema {expected}, it reads {} to {}",
                found & 0xffff_ffff,
                found >> 32
            ),
            reason::IMAGE => write!(f, "it refused the image of the state (error {found})"),
            reason::DUPLICATE => f.write_str("a payload of this version is registered already"),
            reason::SLOT_TAKEN => f.write_str("another payload is live"),
            reason::UNBOUND_DEVICE => write!(f, "it did not take over device atom{found}"),
            reason::STATE => f.write_str("the present state has no such step"),
            reason::NO_PAYLOAD => f.write_str("no such payload is registered"),
            reason::OPERATION => write!(f, "its operation failed with error {found}"),
            reason::DEADLINE => write!(f, "{found} requests were still owed at the deadline"),
            reason::UNWRITABLE => write!(
                f,
                "the live payload does not write schema {found}; the newest that fits is {expected}"
            ),
            reason::NO_MEMORY => f.write_str("memory was short before the pause"),
            reason::NO_PROMISE if found == 0 => write!(
                f,
                "{expected} requests were still owed at the deadline, and the live payload does not offer to let go of them"
            ),
            reason::NO_PROMISE => write!(
                f,
                "{expected} requests were still owed at the deadline, and the live payload could not let go of them (error {found})"
            ),
            reason::DIED => write!(
                f,
                "an operation of payload {found} killed the task that ran it; the kernel log says where"
            ),
            reason::NO_CHECKPOINT => f.write_str(
                "the live payload cannot be asked, and it has left no checkpoint of the present devices",
            ),
            reason::DEAD => write!(f, "payload {found} is dead: nothing of it is called any more"),
            reason::NOBODY => f.write_str("nobody adopted in time"),
            reason::TASK_DIED => write!(
                f,
                "the kernel has killed a task that may have asked for some of the {expected} requests still owed: they can only be left as they are"
            ),
            code => write!(f, "refused with code {code} ({expected}, {found})"),
        }
    }
}

/// Settles whether `payload` can work under `atom`, and how.
///
/// Pure: the tools call it with what they read from a module file, Atom with what a module registers.
pub fn negotiate(atom: &Offer, payload: &Offer) -> Result<Agreement, Refusal> {
    if atom.abi.major != payload.abi.major {
        return Err(Refusal::new(
            reason::ABI_MAJOR,
            atom.abi.major.into(),
            payload.abi.major.into(),
        ));
    }
    let minor = atom.abi.minor_max.min(payload.abi.minor_max);
    if minor < atom.abi.minor_min || minor < payload.abi.minor_min {
        return Err(Refusal::new(
            reason::ABI_MINOR,
            atom.abi.minor_max.into(),
            payload.abi.minor_min.into(),
        ));
    }
    if atom.layout_hash != payload.layout_hash {
        return Err(Refusal::new(reason::LAYOUT, atom.layout_hash, payload.layout_hash));
    }
    let missing = (payload.requires & !atom.provides) | (atom.requires & !payload.provides);
    if missing != 0 {
        return Err(Refusal::new(reason::CAPABILITY, atom.provides, missing));
    }
    if payload.scratch_bytes > atom.scratch_bytes {
        return Err(Refusal::new(
            reason::SCRATCH,
            atom.scratch_bytes.into(),
            payload.scratch_bytes.into(),
        ));
    }
    Ok(Agreement { minor, caps: atom.provides & (payload.requires | payload.provides) })
}

impl SchemaRange {
    /// The refusal of a schema that is not among those that this side reads.
    pub fn refuses(&self, schema: u32) -> Refusal {
        let reads = u64::from(self.read_min) | u64::from(self.read_max) << 32;
        Refusal::new(reason::SCHEMA, schema.into(), reads)
    }

    /// Whether this side reads an image of that schema.
    pub fn reads(&self, schema: u32) -> Result<(), Refusal> {
        if (self.read_min..=self.read_max).contains(&schema) {
            Ok(())
        } else {
            Err(self.refuses(schema))
        }
    }
}

/// The newest schema that `from` writes and `to` reads.
pub fn common_schema(from: &SchemaRange, to: &SchemaRange) -> Result<u32, Refusal> {
    let newest = from.write_max.min(to.read_max);
    if newest < from.write_min || newest < to.read_min {
        return Err(to.refuses(from.write_max));
    }
    Ok(newest)
}
