// SPDX-License-Identifier: GPL-2.0

//! The kernel around Atom's pure parts: processors, gates, completions, and payloads whose code can be unloaded.

use std::ffi::c_void;
use std::ptr::without_provenance_mut;
use std::sync::atomic::{AtomicU64 as Count, Ordering as CountOrdering};
use std::sync::Arc;

use atom_abi::request::Ownership;
use atom_core::slot::{Seat, Seated, Slot};
use loom::sync::atomic::{fence, AtomicBool, Ordering};
use loom::sync::{Condvar, Mutex};

/// Explores every execution of a model, and says how many there were.
pub fn explore(name: &str, model: impl Fn() + Send + Sync + 'static) {
    explore_up_to(None, name, model);
}

/// Explores every execution in which threads are interrupted at most so many times, when not all can be.
pub fn explore_up_to(
    preemptions: Option<usize>,
    name: &str,
    model: impl Fn() + Send + Sync + 'static,
) {
    /// Says it also when the model has failed.
    struct Explored(String, Arc<Count>);
    impl Drop for Explored {
        fn drop(&mut self) {
            let executions = self.1.load(CountOrdering::Relaxed);
            let end = if std::thread::panicking() { "failed in the last of" } else { "held in" };
            println!("{}: {end} {executions} executions", self.0);
        }
    }

    let executions = Arc::new(Count::new(0));
    let explored = Explored(name.to_owned(), Arc::clone(&executions));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        executions.fetch_add(1, CountOrdering::Relaxed);
        model();
    });
    assert!(explored.1.load(CountOrdering::Relaxed) > 1, "a model with one order is none");
}

/// Processors of the machine.
pub const CPUS: usize = 2;

/// The read sides of the processors, of RCU or of an SRCU. They order nothing among each other.
pub struct Cpus([Mutex<()>; CPUS]);

impl Cpus {
    pub fn new() -> Self {
        Self([Mutex::new(()), Mutex::new(())])
    }

    /// Runs `section` on the read side of a processor.
    pub fn read_side<T>(&self, cpu: usize, section: impl FnOnce() -> T) -> T {
        let _held = self.0[cpu].lock().unwrap();
        section()
    }

    /// Waits until every section that had begun has ended (`synchronize_rcu_expedited`).
    pub fn grace_period(&self) {
        self.0.iter().for_each(|side| drop(side.lock().unwrap()));
    }
}

/// The gate of a device: blk-mq's quiesce.
pub struct Gate(AtomicBool);

impl Gate {
    pub fn opened() -> Self {
        Self(AtomicBool::new(false))
    }

    /// As `blk_mq_quiesce_queue_nowait`: complete after a grace period.
    pub fn close(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// As `blk_mq_unquiesce_queue`.
    pub fn open(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// As `blk_queue_quiesced`, on the read side.
    pub fn is_closed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// What Atom's `queue_rq` begins with: it sees what was done before the gate was opened.
    pub fn pass(&self) {
        fence(Ordering::Acquire);
    }
}

/// The kernel's counted completion.
pub struct Completion {
    done: Mutex<u32>,
    changed: Condvar,
}

impl Completion {
    pub fn new() -> Self {
        Self { done: Mutex::new(0), changed: Condvar::new() }
    }

    pub fn complete(&self) {
        *self.done.lock().unwrap() += 1;
        self.changed.notify_one();
    }

    pub fn wait(&self) {
        let mut done = self.done.lock().unwrap();
        while *done == 0 {
            done = self.changed.wait(done).unwrap();
        }
        *done -= 1;
    }

    /// Forgets what nobody has waited for.
    pub fn reset(&self) {
        *self.done.lock().unwrap() = 0;
    }
}

/// A payload: its code must not be entered once it is abandoned, nor run once it is unloaded.
pub struct Payload {
    pub epoch: u64,
    abandoned: AtomicBool,
    unloaded: AtomicBool,
}

impl Payload {
    pub fn of_epoch(epoch: u64) -> Self {
        Self { epoch, abandoned: AtomicBool::new(false), unloaded: AtomicBool::new(false) }
    }

    /// Its entry points: numbers from which [`Payload::of_entry`] finds it again.
    pub fn seat(&self) -> Seat {
        let entry = |kind: usize| without_provenance_mut(self.epoch as usize * 16 + kind);
        Seat { entry: entry(1), timeout: entry(2), commit: entry(3), epoch: self.epoch }
    }

    /// What it knows its device by.
    pub fn cookie(&self) -> u64 {
        self.epoch * 100
    }

    fn of_entry(payloads: &[Self], entry: *mut c_void) -> &Self {
        let epoch = (entry.addr() / 16) as u64;
        payloads.iter().find(|payload| payload.epoch == epoch).expect("an entry of a payload")
    }

    /// Some of its code runs.
    pub fn runs(&self) {
        assert!(!self.unloaded.load(Ordering::Relaxed), "code of an unloaded payload runs");
    }

    /// Atom calls it.
    pub fn enter(&self, seated: Seated) {
        self.runs();
        assert!(!self.abandoned.load(Ordering::Relaxed), "an abandoned payload is called");
        assert_eq!(seated.epoch, self.epoch, "entry and epoch do not belong together");
        assert_eq!(seated.cookie, self.cookie(), "entry and cookie do not belong together");
    }

    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    pub fn unload(&self) {
        self.unloaded.store(true, Ordering::Relaxed);
    }
}

/// A device with one request at a time, and the payloads that there are.
pub struct Device {
    pub gate: Gate,
    pub slot: Slot,
    pub request: Ownership,
}

/// What became of a dispatch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dispatched {
    /// The gate is closed: the block layer keeps the request.
    Held,
    /// Nobody is in the slot.
    Failed,
    /// The payload of this epoch has served it.
    Served(u64),
}

impl Device {
    /// Served by `payload`, with the gate open.
    pub fn of(payload: &Payload) -> Self {
        let slot = Slot::empty();
        slot.fill(payload.seat(), payload.cookie());
        Self { gate: Gate::opened(), slot, request: Ownership::new() }
    }

    /// What Atom's `queue_rq` does, once the block layer has let a request through.
    pub fn queue_rq(&self, payloads: &[Payload]) -> Dispatched {
        self.gate.pass();
        self.serve(payloads)
    }

    /// Hands the request to whoever is in the slot, who ends it at once.
    pub fn serve(&self, payloads: &[Payload]) -> Dispatched {
        match self.claim() {
            Some(seated) => self.hand_over(seated, payloads),
            None => Dispatched::Failed,
        }
    }

    /// Makes the request that of whoever is in the slot.
    pub fn claim(&self) -> Option<Seated> {
        let seated = self.slot.read()?;
        self.request.claim(seated.epoch);
        Some(seated)
    }

    /// Hands it to that payload, which ends it at once.
    pub fn hand_over(&self, seated: Seated, payloads: &[Payload]) -> Dispatched {
        let payload = Payload::of_entry(payloads, seated.entry);
        payload.enter(seated);
        assert_eq!(self.request.end(payload.epoch), Ok(()), "nobody else owns the request");
        payload.runs();
        Dispatched::Served(payload.epoch)
    }

    /// As the block layer dispatches: on the read side, while the gate is open.
    pub fn dispatch(&self, cpus: &Cpus, cpu: usize, payloads: &[Payload]) -> Dispatched {
        cpus.read_side(cpu, || match self.gate.is_closed() {
            true => Dispatched::Held,
            false => self.queue_rq(payloads),
        })
    }

    /// What Atom does for a request that takes too long, on the read side: asks whoever is in the slot, if the gate
    /// is open. The payload that was asked.
    pub fn ask<'a>(&self, payloads: &'a [Payload]) -> Option<&'a Payload> {
        if self.gate.is_closed() {
            return None;
        }
        self.gate.pass();
        let seated = self.slot.timeout()?;
        let payload = Payload::of_entry(payloads, seated.entry);
        payload.enter(seated);
        Some(payload)
    }
}
