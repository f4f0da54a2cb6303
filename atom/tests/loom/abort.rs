// SPDX-License-Identifier: GPL-2.0

//! Dispatches against a handoff that is given up: what was held goes to the payload that was live before.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::Mutex;
use loom::thread;

use super::machine::{explore, explore_up_to, Cpus, Device, Dispatched, Payload};

/// A device with the block layer's list of what waits for dispatch.
struct World {
    cpus: Cpus,
    device: Device,
    payloads: [Payload; 2],
    /// The hardware queue's list, a number of requests.
    waiting: Mutex<u32>,
    /// Whether something is in the list, for a look without its lock.
    pending: AtomicBool,
    /// The queue's lock, under which the gate changes.
    queue_lock: Mutex<()>,
    served: Mutex<u32>,
}

impl World {
    fn new() -> Arc<Self> {
        let payloads = [Payload::of_epoch(1), Payload::of_epoch(2)];
        Arc::new(Self {
            cpus: Cpus::new(),
            device: Device::of(&payloads[0]),
            payloads,
            waiting: Mutex::new(0),
            pending: AtomicBool::new(false),
            queue_lock: Mutex::new(()),
            served: Mutex::new(0),
        })
    }

    /// As `blk_mq_insert_request`.
    fn insert(&self) {
        let mut waiting = self.waiting.lock().unwrap();
        *waiting += 1;
        self.pending.store(true, Ordering::Relaxed);
    }

    /// As `blk_mq_run_hw_queue`: a look without a lock, and when that finds nothing to do, one with it.
    fn run(&self, cpu: usize, looks_again: bool) {
        let must_run = || {
            self.cpus.read_side(cpu, || {
                !self.device.gate.is_closed() && self.pending.load(Ordering::Relaxed)
            })
        };
        let locked = || {
            let _locked = self.queue_lock.lock().unwrap();
            must_run()
        };
        if must_run() || (looks_again && locked()) {
            self.cpus.read_side(cpu, || self.dispatch());
        }
    }

    /// As `blk_mq_sched_dispatch_requests`: takes what waits, as long as the gate is open.
    fn dispatch(&self) {
        if self.device.gate.is_closed() {
            return;
        }
        let taken = {
            let mut waiting = self.waiting.lock().unwrap();
            self.pending.store(false, Ordering::Relaxed);
            std::mem::take(&mut *waiting)
        };
        for _ in 0..taken {
            assert_eq!(self.device.queue_rq(&self.payloads), Dispatched::Served(1));
        }
        *self.served.lock().unwrap() += taken;
    }

    fn close(&self) {
        {
            let _locked = self.queue_lock.lock().unwrap();
            self.device.gate.close();
        }
        self.cpus.grace_period();
    }

    /// As `blk_mq_unquiesce_queue`.
    fn open(&self, cpu: usize, looks_again: bool) {
        {
            let _locked = self.queue_lock.lock().unwrap();
            self.device.gate.open();
        }
        self.run(cpu, looks_again);
    }
}

/// One processor submits a request, another one closes the gate, gives the handoff up with `give_up`, and reopens.
fn giving_up(looks_again: bool, give_up: fn(&World)) {
    let world = World::new();
    let submit = {
        let world = Arc::clone(&world);
        thread::spawn(move || {
            world.insert();
            world.run(0, looks_again);
        })
    };
    world.close();
    give_up(&world);
    world.open(1, looks_again);
    submit.join().unwrap();
    assert_eq!(*world.served.lock().unwrap(), 1, "a request is left behind the opened gate");
}

#[test]
fn what_was_held_is_served_once_by_the_payload_that_was_live_before() {
    explore("dispatch against abort", || giving_up(true, |_| {}));
}

#[test]
fn a_retry_at_once_loses_nothing_either() {
    explore_up_to(Some(4), "dispatch against abort and retry, 4 preemptions", || {
        giving_up(true, |world| {
            world.open(1, true);
            world.close();
        });
    });
}

#[test]
#[should_panic(expected = "a request is left behind the opened gate")]
fn without_a_second_look_under_the_lock_a_request_is_left_behind() {
    explore("dispatch against abort, no second look", || giving_up(false, |_| {}));
}

#[test]
#[should_panic(expected = "Served(2)")]
fn with_a_slot_that_is_filled_before_the_adoption_is_sure_the_wrong_payload_serves() {
    explore("dispatch against abort, slot filled too early", || {
        giving_up(true, |world| {
            let next = &world.payloads[1];
            world.device.slot.fill(next.seat(), next.cookie());
        });
    });
}
