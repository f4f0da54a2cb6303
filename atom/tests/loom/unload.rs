// SPDX-License-Identifier: GPL-2.0

//! Everything that can lead into a payload's code, against Atom taking the devices and the module being unloaded.

use std::sync::Arc;

use atom_abi::request::Owner;
use atom_core::awaited::Awaited;
use loom::thread;

use super::machine::{explore, Completion, Cpus, Device, Dispatched, Payload};

struct World {
    cpus: Cpus,
    /// The first owes a request, to the second one is dispatched meanwhile.
    devices: [Device; 2],
    payloads: [Payload; 1],
    awaited: Awaited,
    ended: Completion,
}

impl World {
    fn close(&self) {
        self.devices.iter().for_each(|device| device.gate.close());
    }

    fn drain(&self) {
        self.awaited.begin();
        while self.devices.iter().any(|device| device.request.read().1 == Owner::Payload) {
            self.ended.wait();
        }
        self.awaited.end();
    }

    fn clear(&self) {
        self.devices.iter().for_each(|device| device.slot.clear());
    }

    /// What happens to an Atom that goes: nobody is in the slots, and what is let through fails.
    fn open(&self) {
        self.devices.iter().for_each(|device| device.gate.open());
    }
}

/// What may go wrong on the way from *close* to the unloading of the module.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// No grace period.
    NoGracePeriod,
    /// The payload's *abandon* does not wait for its own threads.
    NoWait,
    /// The gate opens with the payload still in the slots.
    NotCleared,
}

/// What leads into the payload's code meanwhile, besides a thread of its own that ends a request.
type Path = fn(&World) -> bool;

/// The block layer dispatches to the second device.
fn dispatch(world: &World) -> bool {
    let dispatched = world.devices[1].dispatch(&world.cpus, 0, &world.payloads);
    dispatched == Dispatched::Served(1)
}

/// The payload is asked about the request that it owes.
fn timeout(world: &World) -> bool {
    world.cpus.read_side(1, || world.devices[0].ask(&world.payloads).is_some())
}

fn unloading(mistake: Mistake, path: Path) {
    let payloads = [Payload::of_epoch(1)];
    let devices = [Device::of(&payloads[0]), Device::of(&payloads[0])];
    devices[0].request.claim(1);
    let (awaited, ended) = (Awaited::no(), Completion::new());
    let world = Arc::new(World { cpus: Cpus::new(), devices, payloads, awaited, ended });

    let worker = {
        let world = Arc::clone(&world);
        thread::spawn(move || {
            let payload = &world.payloads[0];
            payload.runs();
            assert_eq!(world.devices[0].request.end(1), Ok(()), "nobody else owns the request");
            if world.awaited.is_awaited() {
                world.ended.complete();
            }
            payload.runs();
        })
    };
    let path = {
        let world = Arc::clone(&world);
        thread::spawn(move || path(&world))
    };

    world.close();
    if mistake != Mistake::NoGracePeriod {
        world.cpus.grace_period();
    }
    world.drain();
    if mistake != Mistake::NotCleared {
        world.clear();
    }
    // The payload's *abandon* waits for its own threads, as it must, or not.
    let unawaited = if mistake == Mistake::NoWait {
        Some(worker)
    } else {
        worker.join().unwrap();
        None
    };
    world.payloads[0].abandon();
    world.payloads[0].unload();
    world.open();
    if let Some(worker) = unawaited {
        worker.join().unwrap();
    }
    path.join().unwrap();
}

#[test]
fn no_code_of_an_unloaded_payload_runs_by_a_dispatch_or_its_own_thread() {
    explore("dispatch and completion against unload", || unloading(Mistake::None, dispatch));
}

#[test]
fn no_code_of_an_unloaded_payload_runs_by_a_timeout_or_its_own_thread() {
    explore("timeout and completion against unload", || unloading(Mistake::None, timeout));
}

#[test]
#[should_panic(expected = "payload")]
fn without_a_grace_period_it_runs_by_a_dispatch() {
    explore("unload, no grace period", || unloading(Mistake::NoGracePeriod, dispatch));
}

#[test]
#[should_panic(expected = "payload")]
fn without_a_grace_period_it_runs_by_a_timeout() {
    explore("unload, no grace period", || unloading(Mistake::NoGracePeriod, timeout));
}

#[test]
#[should_panic(expected = "code of an unloaded payload runs")]
fn with_a_payload_that_does_not_wait_for_its_own_threads_it_runs() {
    explore("unload, threads not waited for", || unloading(Mistake::NoWait, dispatch));
}

#[test]
#[should_panic(expected = "payload")]
fn with_slots_that_still_hold_it_when_the_gate_opens_it_runs() {
    explore("unload, slots not cleared", || unloading(Mistake::NotCleared, dispatch));
}
