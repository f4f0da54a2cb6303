// SPDX-License-Identifier: GPL-2.0

//! Dispatches against a switch from one payload to the next.

use std::sync::Arc;

use atom_core::slot::{Seat, Slot};
use loom::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use loom::thread;

use super::machine::{explore, Cpus, Device, Dispatched, Payload};

struct World {
    cpus: Cpus,
    /// Requests of a device are its own, so each dispatch has a device.
    devices: [Device; 2],
    payloads: [Payload; 2],
}

impl World {
    fn new() -> Arc<Self> {
        let payloads = [Payload::of_epoch(1), Payload::of_epoch(2)];
        let devices = [Device::of(&payloads[0]), Device::of(&payloads[0])];
        Arc::new(Self { cpus: Cpus::new(), devices, payloads })
    }

    fn fill(&self) {
        let next = &self.payloads[1];
        self.devices.iter().for_each(|device| device.slot.fill(next.seat(), next.cookie()));
    }
}

fn properly(world: &World) {
    world.devices.iter().for_each(|device| device.gate.close());
    world.cpus.grace_period();
    world.fill();
    world.devices.iter().for_each(|device| device.gate.open());
    world.payloads[0].abandon();
    world.payloads[0].unload();
}

/// Two processors dispatch to a device each, while `switch` changes the payload behind both.
fn switching(switch: fn(&World)) {
    let world = World::new();
    let dispatches = [0, 1].map(|cpu| {
        let world = Arc::clone(&world);
        thread::spawn(move || world.devices[cpu].dispatch(&world.cpus, cpu, &world.payloads))
    });
    switch(&world);
    for (cpu, dispatched) in dispatches.into_iter().enumerate() {
        match dispatched.join().unwrap() {
            // What was held is dispatched when the gate opens.
            Dispatched::Held => assert_eq!(
                world.devices[cpu].dispatch(&world.cpus, cpu, &world.payloads),
                Dispatched::Served(2)
            ),
            Dispatched::Served(epoch) => assert!(epoch == 1 || epoch == 2),
            Dispatched::Failed => panic!("somebody was in the slot all the time"),
        }
    }
}

#[test]
fn no_dispatch_reaches_the_old_payload_after_the_grace_period() {
    explore("dispatch against switch", || switching(properly));
}

#[test]
#[should_panic(expected = "payload")]
fn without_a_grace_period_one_does() {
    explore("dispatch against switch, no grace period", || {
        switching(|world| {
            world.devices.iter().for_each(|device| device.gate.close());
            world.fill();
            world.devices.iter().for_each(|device| device.gate.open());
            world.payloads[0].abandon();
            world.payloads[0].unload();
        });
    });
}

#[test]
#[should_panic(expected = "payload")]
fn with_a_gate_that_closes_after_the_shared_grace_period_one_does() {
    explore("dispatch against switch, a gate closed too late", || {
        switching(|world| {
            world.devices[0].gate.close();
            world.cpus.grace_period();
            world.devices[1].gate.close();
            world.fill();
            world.devices.iter().for_each(|device| device.gate.open());
            world.payloads[0].abandon();
            world.payloads[0].unload();
        });
    });
}

#[test]
#[should_panic(expected = "an abandoned payload is called")]
fn with_a_gate_that_opens_before_the_slots_are_filled_one_does() {
    explore("dispatch against switch, opened too early", || {
        switching(|world| {
            world.devices.iter().for_each(|device| device.gate.close());
            world.cpus.grace_period();
            world.devices.iter().for_each(|device| device.gate.open());
            world.fill();
            world.payloads[0].abandon();
        });
    });
}

#[test]
#[should_panic(expected = "payload")]
fn without_a_fence_behind_the_opened_gate_one_does() {
    explore("dispatch against switch, no fence", || {
        let world = World::new();
        let dispatched = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.cpus.read_side(0, || match world.devices[0].gate.is_closed() {
                    true => Dispatched::Held,
                    false => world.devices[0].serve(&world.payloads),
                })
            })
        };
        properly(&world);
        dispatched.join().unwrap();
    });
}

/// A slot that is filled while somebody looks: the first payload, on a device that is being added.
fn filling(fill: fn(&Slot, Seat, u64)) {
    let slot = Arc::new(Slot::empty());
    let payload = Payload::of_epoch(7);
    let (seat, cookie) = (payload.seat(), payload.cookie());
    let reader = {
        let slot = Arc::clone(&slot);
        thread::spawn(move || [slot.read(), slot.timeout()])
    };
    fill(&slot, seat, cookie);
    for seated in reader.join().unwrap().into_iter().flatten() {
        assert_eq!((seated.epoch, seated.cookie), (7, cookie), "the entry came before the rest");
    }
}

#[test]
fn whoever_sees_an_entry_sees_its_cookie_and_epoch() {
    explore("slot while it is filled", || filling(Slot::fill));
}

/// A slot with a mistake: its entry is stored first.
struct EntryFirst {
    entry: AtomicPtr<std::ffi::c_void>,
    epoch: AtomicU64,
}

#[test]
#[should_panic(expected = "the entry came before the rest")]
fn with_the_entry_stored_first_it_does_not() {
    explore("slot while it is filled, entry first", || {
        let slot = Arc::new(EntryFirst {
            entry: AtomicPtr::new(std::ptr::null_mut()),
            epoch: AtomicU64::new(0),
        });
        let reader = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                let entry = slot.entry.load(Ordering::Acquire);
                (!entry.is_null()).then(|| slot.epoch.load(Ordering::Relaxed))
            })
        };
        slot.entry.store(Payload::of_epoch(7).seat().entry, Ordering::Release);
        slot.epoch.store(7, Ordering::Release);
        if let Some(epoch) = reader.join().unwrap() {
            assert_eq!(epoch, 7, "the entry came before the rest");
        }
    });
}
