// SPDX-License-Identifier: GPL-2.0

//! What Atom knows: the registered payloads, the devices and the page stores.

use kernel::prelude::*;
use kernel::sync::Arc;

use crate::abi::device::DeviceSpec;
use crate::abi::lifecycle;
use crate::abi::text::Text;
use crate::abi::version::Refusal;
use crate::sys::{Disk, PageStore, Payload};

/// Highest number of devices; N of `/dev/atomN` stays below it.
pub(crate) const MAX_DEVICES: u32 = 4096;

/// A payload that has registered itself.
pub(crate) struct Registered {
    pub(crate) id: u32,
    pub(crate) payload: Payload,
    pub(crate) was_live: bool,
}

/// A device and what is to become of it in a handoff.
pub(crate) struct Device {
    pub(crate) disk: Arc<Disk>,
    pub(crate) spec: DeviceSpec,
    /// The cookie that the adopting payload has bound it with.
    pub(crate) bound: Option<u64>,
}

/// Pages that outlive a payload.
pub(crate) struct Store {
    pub(crate) key: u64,
    pub(crate) pages: Pin<KBox<PageStore>>,
    /// The adopting payload has claimed it.
    pub(crate) claimed: bool,
}

/// In which of its operations a payload is, which decides what it may ask for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Running {
    Nothing,
    Command,
    Adopt,
}

/// All of it. Behind the lock `STATE`.
pub(crate) struct State {
    pub(crate) lifecycle: lifecycle::State,
    /// The generation that serves; requests carry it.
    pub(crate) epoch: u64,
    /// Identity of the live payload.
    pub(crate) live: Option<u32>,
    pub(crate) running: Running,
    pub(crate) payloads: KVec<Registered>,
    pub(crate) devices: KVec<Device>,
    pub(crate) stores: KVec<Store>,
    /// When the gate closed, by the monotonic clock, while nobody is adopted.
    pub(crate) held_since_ns: u64,
    pub(crate) handoffs: u64,
    pub(crate) image_bytes: u64,
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
            live: None,
            running: Running::Nothing,
            payloads: KVec::new(),
            devices: KVec::new(),
            stores: KVec::new(),
            held_since_ns: 0,
            handoffs: 0,
            image_bytes: 0,
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

    /// The device of an identity.
    pub(crate) fn device_mut(&mut self, id: u32) -> Option<&mut Device> {
        self.devices.iter_mut().find(|device| device.disk.id() == id)
    }

    /// The lowest device number that is free.
    pub(crate) fn free_device_id(&self) -> Option<u32> {
        (0..MAX_DEVICES).find(|id| self.devices.iter().all(|device| device.disk.id() != *id))
    }

    /// The store of a key.
    pub(crate) fn store_mut(&mut self, key: u64) -> Option<&mut Store> {
        self.stores.iter_mut().find(|store| store.key == key)
    }

    /// Open handles on all devices together.
    pub(crate) fn opens(&self) -> u32 {
        self.devices.iter().fold(0, |sum: u32, device| sum.saturating_add(device.disk.opens()))
    }

    /// Forgets what an adopting payload has bound and claimed.
    pub(crate) fn reset_bindings(&mut self) {
        self.devices.iter_mut().for_each(|device| device.bound = None);
        self.stores.iter_mut().for_each(|store| store.claimed = false);
    }
}
