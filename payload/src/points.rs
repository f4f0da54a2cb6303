// SPDX-License-Identifier: GPL-2.0

//! The failpoints of the payload: the beginning of each operation, and what within them can really fail.
//!
//! Names are `payload.STEP.OPERATION`. An inverse that fails has done its work all the same; *image_bytes* has no error,
//! and says more than any image can have.

use crate::failpoint::{failpoints, Failpoint};
use crate::fault::Step;

failpoints! {
    /// *prepare* begins.
    PREPARE_BEGIN = "payload.prepare.begin": Error | NoMemory | Delay | Hang | Oops;
    /// Memory for the volumes that will come.
    PREPARE_ALLOC = "payload.prepare.alloc": NoMemory | Delay;
    /// What clients have in common is about to be made.
    PREPARE_CLIENTS = "payload.prepare.clients": Error | NoMemory | Delay;
    /// *unprepare* begins.
    UNPREPARE_BEGIN = "payload.unprepare.begin": Error | Delay | Hang | Oops;
    /// *image_bytes* begins.
    IMAGE_BYTES_BEGIN = "payload.image_bytes.begin": Error | Delay | Hang | Oops;
    /// *copy_ahead* begins. The payload serves.
    #[cfg(payload_ahead)]
    COPY_BEGIN = "payload.copy.begin": Error | NoMemory | Delay | Hang | Oops;
    /// A copy was written.
    #[cfg(payload_ahead)]
    COPY_IMAGE = "payload.copy.image": Error | NoMemory | Delay | Data;
    /// *adopt_ahead* begins.
    #[cfg(payload_ahead)]
    AHEAD_BEGIN = "payload.ahead.begin": Error | NoMemory | Delay | Hang | Oops;
    /// *suspend* begins.
    SUSPEND_BEGIN = "payload.suspend.begin": Error | Delay | Hang | Oops;
    /// *freeze* begins.
    FREEZE_BEGIN = "payload.freeze.begin": Error | Delay | Hang | Oops;
    /// Whoever looks after connections is about to be stopped.
    FREEZE_PARK = "payload.freeze.park": Error | Delay;
    /// The image was written.
    FREEZE_IMAGE = "payload.freeze.image": Error | NoMemory | Delay | Data;
    /// *thaw* begins.
    THAW_BEGIN = "payload.thaw.begin": Error | Delay | Hang | Oops;
    /// *adopt* begins.
    ADOPT_BEGIN = "payload.adopt.begin": Error | NoMemory | Delay | Hang | Oops;
    /// What Atom kept for a volume is about to be claimed.
    ADOPT_CLAIM = "payload.adopt.claim": Error | NoMemory | Delay | Oops;
    /// The device of a volume is about to be bound.
    ADOPT_BIND = "payload.adopt.bind": Error | Delay | Oops;
    /// Memory for what this version does not know.
    ADOPT_CARRY = "payload.adopt.carry": NoMemory | Delay;
    /// *abandon* begins.
    ABANDON_BEGIN = "payload.abandon.begin": Error | Delay | Hang | Oops;
    /// *resume* begins.
    RESUME_BEGIN = "payload.resume.begin": Error | Delay | Hang | Oops;
    /// *hand_back* begins.
    #[cfg(payload_client)]
    HAND_BACK_BEGIN = "payload.hand_back.begin": Error | Delay | Hang | Oops;
    /// *revoke* begins.
    REVOKE_BEGIN = "payload.revoke.begin": Error | Delay | Hang | Oops;
    /// *explain* begins.
    EXPLAIN_BEGIN = "payload.explain.begin": Error | Delay | Hang | Oops;
    /// A command begins.
    COMMAND_BEGIN = "payload.command.begin": Error | NoMemory | Delay | Hang | Oops;
    /// A new volume has its place, and no device yet.
    COMMAND_DEVICE = "payload.command.device": Error | NoMemory | Delay;
    /// A checkpoint is about to be written.
    CHECKPOINT_WRITE = "payload.checkpoint.write": Error | NoMemory | Delay;
    /// A request comes. Atomic.
    QUEUE_REQUEST = "payload.queue.request": NoMemory | Oops;
    /// A page of memory is about to be read or written. Atomic.
    QUEUE_PAGE = "payload.queue.page": NoMemory;

    /// A target is about to be made or taken over.
    #[cfg(payload_client)]
    TARGET_MAKE = "payload.target.make": Error | NoMemory | Delay;
    /// An attempt to connect begins.
    #[cfg(payload_client)]
    NBD_CONNECT = "payload.nbd.connect": Error | NoMemory | Delay | Hang;
    /// A new connection is about to be kept by Atom.
    #[cfg(payload_client)]
    NBD_PRESERVE = "payload.nbd.preserve": Error | NoMemory | Delay;
    /// Requests are about to be sent.
    #[cfg(payload_client)]
    NBD_SEND = "payload.nbd.send": Error | Delay | Hang;
    /// Answers are about to be received.
    #[cfg(payload_client)]
    NBD_RECEIVE = "payload.nbd.receive": Error | Delay | Hang;
    /// A connection is about to be written down.
    #[cfg(payload_client)]
    NBD_RECORD = "payload.nbd.record": Error;
    /// A connection of an earlier payload is about to be gone on with.
    #[cfg(payload_client)]
    NBD_RESTORE = "payload.nbd.restore": Error | NoMemory;
}

impl Step {
    /// The point at its beginning.
    pub(crate) fn point(self) -> &'static Failpoint {
        match self {
            Self::Prepare => &PREPARE_BEGIN,
            Self::Unprepare => &UNPREPARE_BEGIN,
            Self::ImageBytes => &IMAGE_BYTES_BEGIN,
            Self::Suspend => &SUSPEND_BEGIN,
            Self::Freeze => &FREEZE_BEGIN,
            Self::Thaw => &THAW_BEGIN,
            Self::Adopt => &ADOPT_BEGIN,
            Self::Abandon => &ABANDON_BEGIN,
            Self::Resume => &RESUME_BEGIN,
            #[cfg(payload_client)]
            Self::HandBack => &HAND_BACK_BEGIN,
            Self::Revoke => &REVOKE_BEGIN,
            Self::Command => &COMMAND_BEGIN,
            #[cfg(payload_ahead)]
            Self::CopyAhead => &COPY_BEGIN,
            #[cfg(payload_ahead)]
            Self::AdoptAhead => &AHEAD_BEGIN,
        }
    }
}
