// SPDX-License-Identifier: GPL-2.0

//! Dispatches that may sleep, against a switch from one payload to the next.

use std::sync::Arc;

use atom_core::slot::Seated;
use loom::thread;

use super::machine::{explore, Cpus, Device, Dispatched, Payload};

struct World {
    cpus: Cpus,
    /// The SRCU of the device's tag set.
    dispatches: Cpus,
    device: Device,
    payloads: [Payload; 2],
}

impl World {
    fn new() -> Arc<Self> {
        let payloads = [Payload::of_epoch(1), Payload::of_epoch(2)];
        let device = Device::of(&payloads[0]);
        Arc::new(Self { cpus: Cpus::new(), dispatches: Cpus::new(), device, payloads })
    }

    /// As the block layer and Atom dispatch: the slot is looked at on the read side of RCU, while the gate is open.
    fn dispatch(&self) -> Dispatched {
        self.let_through(|device| {
            self.cpus.read_side(0, || match device.gate.is_closed() {
                true => Err(Dispatched::Held),
                false => {
                    device.gate.pass();
                    device.claim().ok_or(Dispatched::Failed)
                }
            })
        })
    }

    /// The block layer's part of it.
    fn let_through(&self, claim: impl FnOnce(&Device) -> Result<Seated, Dispatched>) -> Dispatched {
        self.dispatches.read_side(0, || match self.device.gate.is_closed() {
            true => Dispatched::Held,
            false => match claim(&self.device) {
                Ok(seated) => self.device.hand_over(seated, &self.payloads),
                Err(dispatched) => dispatched,
            },
        })
    }

    fn fill(&self) {
        let next = &self.payloads[1];
        self.device.slot.fill(next.seat(), next.cookie());
    }

    /// Closes the gate, up to the grace period.
    fn close(&self) {
        self.device.gate.close();
        self.cpus.grace_period();
    }
}

/// A processor dispatches while `switch` changes the payload.
fn switching(dispatch: fn(&World) -> Dispatched, switch: fn(&World)) {
    let world = World::new();
    let dispatched = {
        let world = Arc::clone(&world);
        thread::spawn(move || dispatch(&world))
    };
    switch(&world);
    match dispatched.join().unwrap() {
        // What was held is dispatched when the gate opens.
        Dispatched::Held => assert_eq!(world.dispatch(), Dispatched::Served(2)),
        Dispatched::Served(epoch) => assert!(epoch == 1 || epoch == 2),
        Dispatched::Failed => panic!("somebody was in the slot all the time"),
    }
}

fn properly(world: &World) {
    world.close();
    world.dispatches.grace_period();
    world.fill();
    world.device.gate.open();
    world.payloads[0].abandon();
    world.payloads[0].unload();
}

/// A payload that is not asked, whose module stays, and which may be left with a dispatch that sleeps.
fn forsaking(world: &World) {
    world.close();
    world.fill();
    world.device.gate.open();
}

#[test]
fn no_dispatch_that_sleeps_is_in_the_old_payload_once_the_device_has_settled() {
    explore("sleeping dispatch against switch", || switching(World::dispatch, properly));
}

#[test]
#[should_panic(expected = "payload")]
fn after_the_grace_period_alone_one_is() {
    explore("sleeping dispatch against switch, not settled", || {
        switching(World::dispatch, |world| {
            world.close();
            world.fill();
            world.device.gate.open();
            world.payloads[0].abandon();
            world.payloads[0].unload();
        });
    });
}

#[test]
#[should_panic(expected = "payload")]
fn with_a_device_that_settles_before_its_gate_closes_one_is() {
    explore("sleeping dispatch against switch, settled too early", || {
        switching(World::dispatch, |world| {
            world.dispatches.grace_period();
            world.close();
            world.fill();
            world.device.gate.open();
            world.payloads[0].abandon();
            world.payloads[0].unload();
        });
    });
}

#[test]
fn a_dispatch_that_is_left_behind_has_seen_one_payload_and_no_mixture() {
    explore("sleeping dispatch against forsaking", || switching(World::dispatch, forsaking));
}

#[test]
#[should_panic(expected = "do not belong together")]
fn one_that_looked_at_the_slot_elsewhere_than_on_the_read_side_may_have() {
    explore("sleeping dispatch against forsaking, no read side", || {
        let dispatch = |world: &World| {
            world.let_through(|device| {
                device.gate.pass();
                device.claim().ok_or(Dispatched::Failed)
            })
        };
        switching(dispatch, forsaking);
    });
}

#[test]
#[should_panic(expected = "do not belong together")]
fn one_that_did_not_look_at_the_gate_again_may_have() {
    explore("sleeping dispatch against forsaking, gate seen before", || {
        let dispatch = |world: &World| {
            world.let_through(|device| {
                world.cpus.read_side(0, || {
                    device.gate.pass();
                    device.claim().ok_or(Dispatched::Failed)
                })
            })
        };
        switching(dispatch, forsaking);
    });
}
