// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A failpoint: how it is armed, met and counted. Pure.
//!
//! A point that is not armed costs one relaxed load. One that is counts its passes, and the number of a pass alone says
//! whether it strikes there, so that whoever meets it decides nothing together with others but that number.
//!
//! Each arming has a generation of its own, which is in both words that a pass looks at: a pass that began before is
//! not counted for the arming after it.

use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::fault::{Fault, Kind, Kinds};
use super::trigger::Trigger;

const KIND_SHIFT: u32 = 32;
const TRIGGER_SHIFT: u32 = 36;
const NIBBLE: u64 = 0xf;
/// Of both words.
const GENERATION_SHIFT: u32 = 48;
const PASSES: u64 = (1 << GENERATION_SHIFT) - 1;

/// A place in the code at which a fault can be injected.
pub struct Failpoint {
    name: &'static str,
    kinds: Kinds,
    /// From the top: generation (16 bits), 8 bits of nothing, trigger (4), kind (4), argument (32). 0: not armed.
    armed: AtomicU64,
    /// What the trigger counts with.
    value: AtomicU64,
    /// From the top: generation (16 bits), passes since it was armed (48).
    passed: AtomicU64,
    /// How often it struck since it was armed.
    hit: AtomicU64,
    /// Who hangs in it now.
    waiting: AtomicU32,
}

/// A pass at which a point strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hit {
    /// What is to be done.
    pub fault: Fault,
    armed: u64,
}

impl Failpoint {
    /// A point that is not armed.
    pub const fn new(name: &'static str, kinds: Kinds) -> Self {
        Self {
            name,
            kinds,
            armed: AtomicU64::new(0),
            value: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            hit: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
        }
    }

    /// Its name: module, step, operation.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it can do.
    pub fn kinds(&self) -> Kinds {
        self.kinds
    }

    /// Passes it. Any context; does not wait.
    #[inline]
    pub fn pass(&self) -> Option<Hit> {
        match self.armed.load(Ordering::Relaxed) {
            0 => None,
            _ => self.pass_armed(),
        }
    }

    #[cold]
    fn pass_armed(&self) -> Option<Hit> {
        let armed = self.armed.load(Ordering::Acquire);
        let generation = armed >> GENERATION_SHIFT;
        let trigger =
            Trigger::unpack(armed >> TRIGGER_SHIFT & NIBBLE, self.value.load(Ordering::Acquire));
        let counted = |passed: u64| {
            let same = passed >> GENERATION_SHIFT == generation && passed & PASSES != PASSES;
            same.then(|| passed.wrapping_add(1))
        };
        // The value belongs to this arming if the count still does: it is written after the count begins anew.
        let passed = self.passed.fetch_update(Ordering::AcqRel, Ordering::Acquire, counted).ok()?;
        let kind = Kind::of(armed >> KIND_SHIFT & NIBBLE)?;
        if !trigger.strikes(passed & PASSES) {
            return None;
        }
        self.hit.fetch_add(1, Ordering::Relaxed);
        // The lower half is the argument.
        Some(Hit { fault: Fault { kind, argument: armed as u32 }, armed })
    }

    /// Arms it; whoever hangs in it goes on. One caller at a time.
    pub fn arm(&self, fault: Fault, trigger: Trigger) {
        let before = self.passed.load(Ordering::Relaxed) >> GENERATION_SHIFT;
        let generation = before.wrapping_add(1) & 0xffff;
        let (tag, value) = trigger.pack();
        self.armed.store(0, Ordering::SeqCst);
        self.passed.store(generation << GENERATION_SHIFT, Ordering::SeqCst);
        self.hit.store(0, Ordering::SeqCst);
        self.value.store(value, Ordering::SeqCst);
        let armed = generation << GENERATION_SHIFT
            | tag << TRIGGER_SHIFT
            | (fault.kind as u64) << KIND_SHIFT
            | u64::from(fault.argument);
        self.armed.store(armed, Ordering::SeqCst);
    }

    /// Disarms it; whoever hangs in it goes on. What was counted stays.
    pub fn disarm(&self) {
        self.armed.store(0, Ordering::SeqCst);
    }

    /// Lets whoever hangs in it go on, and has nobody hang in it any more. Armed with another kind it stays so.
    pub fn release(&self) {
        if self.state().is_some_and(|(fault, _)| fault.kind == Kind::Hang) {
            self.disarm();
        }
    }

    /// What it is armed with.
    pub fn state(&self) -> Option<(Fault, Trigger)> {
        let armed = self.armed.load(Ordering::Acquire);
        let kind = Kind::of(armed >> KIND_SHIFT & NIBBLE)?;
        let tag = armed >> TRIGGER_SHIFT & NIBBLE;
        let trigger = Trigger::unpack(tag, self.value.load(Ordering::Acquire));
        Some((Fault { kind, argument: armed as u32 }, trigger))
    }

    /// Passes since it was armed last.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed) & PASSES
    }

    /// How often it struck since then.
    pub fn hit(&self) -> u64 {
        self.hit.load(Ordering::Relaxed)
    }

    /// Who hangs in it now.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Hangs until it is released, disarmed or armed anew; `moment` lets some time pass.
    pub fn hang(&self, hit: &Hit, mut moment: impl FnMut()) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while self.armed.load(Ordering::SeqCst) == hit.armed {
            moment();
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A line about it, as it is read.
impl fmt::Display for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kinds={} armed=", self.name, self.kinds)?;
        match self.state() {
            None => f.write_str("no")?,
            Some((fault, trigger)) => write!(f, "{fault}{trigger}")?,
        }
        let (passed, hit, waiting) = (self.passed(), self.hit(), self.waiting());
        write!(f, " passed={passed} hit={hit} waiting={waiting}")
    }
}
