// SPDX-License-Identifier: GPL-2.0

//! The block layer's timeout work against completions and the closing of the gate.

use std::sync::Arc;

use loom::thread;

use super::machine::{explore, Cpus, Device, Payload};

struct World {
    cpus: Cpus,
    device: Device,
    payloads: [Payload; 2],
}

/// A request is owed. Its payload ends it, and is asked about it by `ask` on another processor, while the gate is
/// closed and the next payload takes over.
fn asking(ask: fn(&World) -> bool) {
    let payloads = [Payload::of_epoch(1), Payload::of_epoch(2)];
    let device = Device::of(&payloads[0]);
    device.request.claim(1);
    let world = Arc::new(World { cpus: Cpus::new(), device, payloads });
    let timeout = {
        let world = Arc::clone(&world);
        thread::spawn(move || ask(&world))
    };
    let end = {
        let world = Arc::clone(&world);
        thread::spawn(move || world.device.request.end(1).is_ok())
    };
    world.device.gate.close();
    world.cpus.grace_period();
    // The drain, and the part of *abandon* in which the payload waits for its own threads.
    let ended = end.join().unwrap();
    let next = &world.payloads[1];
    world.device.slot.fill(next.seat(), next.cookie());
    world.device.gate.open();
    world.payloads[0].abandon();
    world.payloads[0].unload();
    let by_timeout = timeout.join().unwrap();
    assert!(ended != by_timeout, "a request is ended once, by its own payload");
}

/// What the timeout work does: asks, and the payload that is asked ends the request, if it is its own.
fn end_when_asked(world: &World) -> bool {
    world.device.ask(&world.payloads).is_some_and(|payload| {
        let ended = world.device.request.end(payload.epoch).is_ok();
        payload.runs();
        ended
    })
}

#[test]
fn a_payload_is_not_asked_about_a_request_after_it_was_abandoned() {
    explore("timeout against switch", || {
        asking(|world| world.cpus.read_side(0, || end_when_asked(world)));
    });
}

#[test]
#[should_panic(expected = "payload")]
fn outside_of_the_read_side_it_is() {
    explore("timeout against switch, outside of the read side", || asking(end_when_asked));
}

#[test]
#[should_panic(expected = "payload")]
fn without_a_look_at_the_gate_it_is() {
    explore("timeout against switch, no look at the gate", || {
        asking(|world| {
            world.cpus.read_side(0, || {
                let seated = world.device.slot.timeout().expect("somebody is in the slot");
                let payload = &world.payloads[usize::from(seated.epoch == 2)];
                payload.enter(seated);
                world.device.request.end(payload.epoch).is_ok()
            })
        });
    });
}
