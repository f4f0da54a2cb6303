// SPDX-License-Identifier: GPL-2.0

//! What Atom knows: the registered payloads, the devices, the preserved objects, the handoff under way.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::control::{Report, Settings, Status};
use crate::abi::device::DeviceSpec;
use crate::abi::image::MAX_BYTES;
use crate::abi::lifecycle::{self, Inverse, Place};
use crate::abi::text::Text;
use crate::abi::version::{reason, Refusal};
use crate::calls::PAGES;
use crate::checkpoints::Checkpoints;
use crate::reports::Reports;
use crate::sys::{Disk, ModuleRef, Object, Payload};
use crate::turn::Holder;

/// Highest number of devices; N of `/dev/atomN` stays below it.
pub(crate) const MAX_DEVICES: u32 = 4096;

/// A payload that has registered itself.
pub(crate) struct Registered {
    pub(crate) id: u32,
    pub(crate) payload: Payload,
    /// There while it is live, a candidate, or parked during a soak; for ever when it is dead.
    pub(crate) pin: Option<ModuleRef>,
    pub(crate) was_live: bool,
    /// A task died in one of its operations, or has been in one for too long: nothing of it is called.
    pub(crate) dead: bool,
    /// It was replaced without being asked to abandon: dead for ever.
    pub(crate) forsaken: bool,
    /// A task died in one of its operations, and none had died when it adopted.
    pub(crate) died: bool,
    /// No oops had killed a task when it adopted.
    pub(crate) clean: bool,
}

/// A device and what is to become of it in a handoff.
pub(crate) struct Device {
    pub(crate) disk: Arc<Disk>,
    pub(crate) spec: DeviceSpec,
    /// The cookie that the adopting payload has bound it with.
    pub(crate) bound: Option<u64>,
    /// What the adopting payload has asked to make of it.
    pub(crate) wanted: Option<DeviceSpec>,
}

/// An object that outlives a payload.
pub(crate) struct Preserved {
    pub(crate) key: u64,
    /// [`crate::calls::PAGES`] or one of [`crate::abi::device::object`].
    pub(crate) kind: u32,
    /// What a payload is given.
    pub(crate) address: usize,
    /// Dropped to release it.
    pub(crate) object: Object,
    /// The adopting payload has claimed it.
    pub(crate) claimed: bool,
}

/// An image in Atom's memory.
pub(crate) struct StoredImage {
    pub(crate) buffer: KVVec<u8>,
    pub(crate) used: usize,
    pub(crate) schema: u32,
}

impl StoredImage {
    /// Room for so many bytes. Sleeps.
    pub(crate) fn allocate(bytes: u64, schema: u32) -> Result<Self, Refusal> {
        let no_memory = Refusal::new(reason::NO_MEMORY, MAX_BYTES as u64, bytes);
        let length = usize::try_from(bytes).map_err(|_| no_memory)?;
        if length > MAX_BYTES {
            return Err(no_memory);
        }
        let buffer = KVVec::from_elem(0, length, GFP_KERNEL).map_err(|_| no_memory)?;
        Ok(Self { buffer, used: 0, schema })
    }

    /// The image itself.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.used).unwrap_or(&[])
    }

    /// The same for a failpoint that spoils it.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(..self.used).unwrap_or(&mut [])
    }
}

/// An operation of a payload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Prepare,
    CopyAhead,
    AdoptAhead,
    Unprepare,
    ImageBytes,
    Suspend,
    Resume,
    HandBack,
    Revoke,
    Explain,
    Freeze,
    Thaw,
    Adopt,
    Abandon,
    Command,
}

/// A handoff under way, as far as another task must know it to go back from it.
#[derive(Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) kind: u32,
    pub(crate) started_ns: u64,
    /// When the gates closed; 0 while they are open.
    pub(crate) closed_ns: u64,
    /// When an operation takes too long while the gates are closed.
    pub(crate) until_ns: u64,
    /// For how long they were closed.
    pub(crate) paused_ns: u64,
}

impl Progress {
    pub(crate) const NONE: Self =
        Self { kind: 0, started_ns: 0, closed_ns: 0, until_ns: u64::MAX, paused_ns: 0 };
}

/// The terms on which a payload soaks.
#[derive(Clone, Copy)]
pub(crate) struct Soak {
    /// To which one switch goes back.
    pub(crate) parked: u32,
    pub(crate) until_ns: u64,
    pub(crate) stall_ns: u64,
    /// The drain of the way back.
    pub(crate) back_policy: u32,
    pub(crate) back_deadline_ns: u64,
    /// Atom has tried to switch back, and tries again then.
    pub(crate) not_before_ns: u64,
}

/// All of it. Behind the lock `STATE`.
pub(crate) struct State {
    pub(crate) lifecycle: lifecycle::State,
    /// The generation that serves; requests carry it.
    pub(crate) epoch: u64,
    /// Identity of the live payload, 0 when none is.
    pub(crate) live: u32,
    /// Identity of the payload that is to take over, 0 when none is.
    pub(crate) candidate: u32,
    /// Who may hand over, command and go back.
    pub(crate) holder: Option<Holder>,
    /// How often somebody has had the turn.
    pub(crate) turns: u64,
    /// The operation that the holder is in, and whose.
    pub(crate) running: Option<(Operation, u32)>,
    pub(crate) progress: Progress,
    /// What is still to be undone.
    pub(crate) undo: &'static [Inverse],
    pub(crate) soak: Option<Soak>,
    pub(crate) settings: Settings,
    pub(crate) payloads: KVec<Registered>,
    pub(crate) devices: KVec<Device>,
    pub(crate) preserved: KVec<Preserved>,
    /// The state of nobody's payload.
    pub(crate) image: Option<Arc<StoredImage>>,
    /// The state of the live payload as it was once.
    pub(crate) checkpoints: Checkpoints,
    pub(crate) reports: Reports,
    /// When the gate closed, by the monotonic clock, while nobody is adopted.
    pub(crate) held_since_ns: u64,
    /// The hold policy has done what it says.
    pub(crate) hold_acted: bool,
    pub(crate) fallback_error: i32,
    /// A handoff is irrevocable and not at its end: somebody has to forget.
    pub(crate) finishing: bool,
    /// The payload that was live before, while it is being told to abandon; 0 for none.
    pub(crate) releasing: u32,
    /// The payload that was parked for a soak that a handoff has ended; 0 for none.
    pub(crate) parked_before: u32,
    /// The last epoch that was given to a payload, which may not have adopted.
    pub(crate) last_epoch: u64,
    /// Atom carries out by itself what its watch has decided.
    pub(crate) doing: bool,
    /// The number of the holder for whom somebody goes back.
    pub(crate) back_for: u64,
    /// 1 more than the stage of the drain under way, and what is outstanding in it.
    pub(crate) stage: (u32, u32),
    pub(crate) handoffs: u64,
    pub(crate) refused: Text,
    pub(crate) refusal: Refusal,
    last_id: u32,
}

impl State {
    /// As it is when Atom is loaded.
    pub(crate) const fn new() -> Self {
        Self {
            lifecycle: lifecycle::State::INITIAL,
            epoch: 0,
            live: 0,
            candidate: 0,
            holder: None,
            turns: 0,
            running: None,
            progress: Progress::NONE,
            undo: &[],
            soak: None,
            settings: Settings::DEFAULT,
            payloads: KVec::new(),
            devices: KVec::new(),
            preserved: KVec::new(),
            image: None,
            checkpoints: Checkpoints::NONE,
            reports: Reports::new(),
            held_since_ns: 0,
            hold_acted: false,
            fallback_error: 0,
            finishing: false,
            releasing: 0,
            parked_before: 0,
            last_epoch: 0,
            doing: false,
            back_for: 0,
            stage: (0, 0),
            handoffs: 0,
            refused: Text::EMPTY,
            refusal: Refusal::NONE,
            last_id: 0,
        }
    }

    /// An identity that no payload has had.
    pub(crate) fn next_payload_id(&mut self) -> u32 {
        self.last_id = self.last_id.saturating_add(1);
        self.last_id
    }

    /// The payload of an identity.
    pub(crate) fn payload(&self, id: u32) -> Option<&Registered> {
        self.payloads.iter().find(|entry| entry.id == id)
    }

    /// The same, to be changed.
    pub(crate) fn payload_mut(&mut self, id: u32) -> Option<&mut Registered> {
        self.payloads.iter_mut().find(|entry| entry.id == id)
    }

    /// Its version; empty for none.
    pub(crate) fn version(&self, id: u32) -> Text {
        self.payload(id).map_or(Text::EMPTY, |entry| entry.payload.version())
    }

    /// True for a payload of which nothing is called any more.
    pub(crate) fn is_dead(&self, id: u32) -> bool {
        self.payload(id).is_some_and(|entry| entry.dead)
    }

    /// Gives the reference on a payload's module back, unless the payload is dead or needed otherwise.
    pub(crate) fn unpin(&mut self, id: u32) {
        let parked = self.soak.map_or(0, |soak| soak.parked);
        if ![self.live, self.candidate, self.releasing, parked].contains(&id) {
            if let Some(entry) = self.payload_mut(id).filter(|entry| !entry.dead) {
                entry.pin = None;
            }
        }
    }

    /// True when the calling task is in that operation of a payload.
    pub(crate) fn is_within(&self, operation: Operation) -> bool {
        self.running.is_some_and(|(running, _)| running == operation)
            && self.holder.as_ref().is_some_and(Holder::is_current)
    }

    /// True while preserved objects pass from one payload to the next, for everybody but the task that sees to it. In a
    /// drain they are still those of the old one, which may need another connection to end what it owes.
    pub(crate) fn is_changing_hands(&self) -> bool {
        let ours = self.holder.as_ref().is_some_and(Holder::is_current);
        let drains = self.lifecycle.place == Place::Closed;
        !ours && !drains && !self.lifecycle.gate_open()
    }

    /// The device of an identity.
    pub(crate) fn device_mut(&mut self, id: u32) -> Option<&mut Device> {
        self.devices.iter_mut().find(|device| device.disk.id() == id)
    }

    /// The lowest device number that is free.
    pub(crate) fn free_device_id(&self) -> Option<u32> {
        (0..MAX_DEVICES).find(|id| self.devices.iter().all(|device| device.disk.id() != *id))
    }

    /// Where the object of a key and kind is in the list.
    pub(crate) fn find_preserved(&self, key: u64, kind: u32) -> Option<usize> {
        self.preserved.iter().position(|entry| (entry.key, entry.kind) == (key, kind))
    }

    /// Open handles on all devices together.
    pub(crate) fn opens(&self) -> u32 {
        self.devices
            .iter()
            .fold(0, |sum: u32, device| sum.saturating_add(device.disk.opens().count()))
    }

    /// True when the calling task is in an operation in which a payload may take over what Atom has of a kind:
    /// devices and page stores also ahead of the pause. Files and sockets still come and go then.
    pub(crate) fn is_taking_over(&self, kind: u32) -> bool {
        let ahead = kind == PAGES && self.is_within(Operation::AdoptAhead);
        ahead || self.is_within(Operation::Adopt)
    }

    /// Forgets what an adopting payload has bound, claimed and asked for.
    pub(crate) fn reset_bindings(&mut self) {
        self.devices.iter_mut().for_each(|device| (device.bound, device.wanted) = (None, None));
        self.preserved.iter_mut().for_each(|entry| entry.claimed = false);
    }

    /// The same for what it cannot have done ahead of the pause.
    pub(crate) fn reset_objects(&mut self) {
        let objects = self.preserved.iter_mut().filter(|entry| entry.kind != PAGES);
        objects.for_each(|entry| entry.claimed = false);
    }

    /// Keeps a report of what was begun, and gives it its number.
    pub(crate) fn keep(&mut self, report: &mut Report) {
        self.handoffs = self.handoffs.saturating_add(1);
        report.sequence = self.handoffs;
        report.epoch = self.epoch;
        self.reports.push(report);
    }

    /// What the control interface shows, but for what only others know.
    pub(crate) fn status(&self, now_ns: u64) -> Status {
        let since = |then: u64| if then == 0 { 0 } else { now_ns.saturating_sub(then) };
        let bytes = |image: &Option<Arc<StoredImage>>| {
            image.as_ref().map_or(0, |image| image.bytes().len() as u64)
        };
        Status {
            place: self.lifecycle.place.code(),
            epoch: self.epoch,
            live: self.live,
            payloads: self.payloads.len() as u32,
            devices: self.devices.len() as u32,
            opens: self.opens(),
            preserved: self.preserved.len() as u32,
            image_bytes: bytes(&self.image),
            handoffs: self.handoffs,
            held_ns: since(self.held_since_ns),
            refused: self.refused,
            refusal: self.refusal,
            soak_left_ns: self.soak.map_or(0, |soak| soak.until_ns.saturating_sub(now_ns).max(1)),
            parked: self.soak.map_or(0, |soak| soak.parked),
            stage: self.stage.0,
            outstanding: self.stage.1,
            fallback_error: self.fallback_error,
            checkpoint_bytes: self.checkpoints.bytes(),
            ..Status::EMPTY
        }
    }
}
