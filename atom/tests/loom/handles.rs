// SPDX-License-Identifier: GPL-2.0

//! Opens and releases against the end of a device.

use std::sync::Arc;

use atom_core::handles::Handles;
use loom::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use loom::thread;

use super::machine::explore;

/// The handles of a device: Atom's own, or ones with a mistake.
trait Count: Send + Sync + 'static {
    fn none() -> Self;
    fn open(&self) -> bool;
    fn release(&self);
    fn refuse(&self) -> bool;
    fn count(&self) -> u32;
}

impl Count for Handles {
    fn none() -> Self {
        Self::none()
    }
    fn open(&self) -> bool {
        self.open()
    }
    fn release(&self) {
        self.release();
    }
    fn refuse(&self) -> bool {
        self.refuse()
    }
    fn count(&self) -> u32 {
        self.count()
    }
}

struct World<C> {
    handles: C,
    gone: AtomicBool,
}

/// Two open, use and release a device, while it is destroyed unless it is open.
fn destroying<C: Count>() {
    let world = Arc::new(World { handles: C::none(), gone: AtomicBool::new(false) });
    let users = [0, 1].map(|_| {
        let world = Arc::clone(&world);
        thread::spawn(move || {
            let opened = world.handles.open();
            if opened {
                assert!(!world.gone.load(Ordering::Relaxed), "a device is gone while it is open");
                world.handles.release();
            }
            opened
        })
    });
    let refused = world.handles.refuse();
    if refused {
        world.gone.store(true, Ordering::Relaxed);
    }
    let opened: Vec<bool> = users.into_iter().map(|user| user.join().unwrap()).collect();
    assert_eq!(world.handles.count(), 0, "a device that nobody has open counts a handle");
    assert!(refused || opened.contains(&true), "nothing but a handle keeps a device");
    assert_eq!(world.handles.open(), !refused, "a device is refused for good, or not at all");
}

#[test]
fn a_device_is_never_gone_while_it_is_open() {
    explore("opens against destroy", destroying::<Handles>);
}

/// Handles with a mistake: a look, and then a refusal.
struct LookedAt(AtomicI32);

impl Count for LookedAt {
    fn none() -> Self {
        Self(AtomicI32::new(0))
    }
    fn open(&self) -> bool {
        let more = |open: i32| (open >= 0).then(|| open + 1);
        self.0.fetch_update(Ordering::SeqCst, Ordering::Relaxed, more).is_ok()
    }
    fn release(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
    fn refuse(&self) -> bool {
        let none = self.0.load(Ordering::SeqCst) == 0;
        if none {
            self.0.store(i32::MIN, Ordering::SeqCst);
        }
        none
    }
    fn count(&self) -> u32 {
        u32::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

#[test]
#[should_panic(expected = "a device")]
fn with_a_look_before_the_refusal_it_is() {
    explore("opens against destroy, looked at before", destroying::<LookedAt>);
}
