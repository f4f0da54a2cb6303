// SPDX-License-Identifier: GPL-2.0

//! Atom: the stable half of a hot-upgradable block driver.
//!
//! Atom holds the block devices, every open handle and the requests in flight, and nothing else: no
//! algorithms, no networking, no idea of what a volume is. A *payload* module has those, and can be
//! replaced while Atom keeps the devices. The contract between the two is the [`abi`].
//!
//! | file | one reason to exist |
//! | --- | --- |
//! | `sys/` | all `unsafe`: the layer on the kernel, the calls into and from a payload |
//! | `state.rs` | what Atom knows: payloads, devices, preserved objects, the handoff under way |
//! | `turn.rs` | one task at a time hands over; a lock that survives its owner |
//! | `operation.rs` | calling an operation of a payload in a way that survives its never returning |
//! | `handoff.rs`, `handoff/` | switch, abandon and adopt, driven by the lifecycle of the ABI |
//! | `ahead.rs` | copying the state of the live payload while it serves |
//! | `back.rs` | the way back from each of them |
//! | `barrier.rs` | gates and drain, over all devices together |
//! | `watch.rs` | what must work even when the tool has died |
//! | `calls.rs` | what a payload may ask for |
//! | `checkpoints.rs` | what stands in for a payload that cannot be asked any more |
//! | `control.rs` | the ioctls of `/dev/atom-control` |
//! | `reports.rs` | the last reports |
//! | `points.rs` | the failpoints; in no release |
//! | `slot.rs`, `handles.rs`, `awaited.rs`, `watch_rules.rs` | pure: also a library that the host tests and explores |
//!
//! Lock order, outermost first:
//!
//! 1. the turn, held over a whole handoff or command, also while the payload runs;
//! 2. whatever the payload locks in its operations;
//! 3. the block layer's `limits_lock` of one queue, while a device is changed;
//! 4. `STATE`, held for table look-ups only: never while a payload runs, never while something waits.
//!
//! The I/O path (`queue_rq`, `timeout`, `atom_request_end`, open, release) takes none of them.

#[path = "abi/abi.rs"]
mod abi;
mod ahead;
mod asked;
mod awaited;
mod back;
mod barrier;
mod calls;
mod checkpoints;
mod control;
#[path = "failpoint/failpoint.rs"]
mod failpoint;
mod handles;
mod handoff;
mod operation;
mod points;
mod reports;
mod slot;
mod state;
mod sys;
mod turn;
mod watch;
mod watch_rules;

use kernel::prelude::*;

module! {
    type: Atom,
    name: "atom",
    authors: ["The Atom authors"],
    description: "Holds block devices while the module that serves them is replaced",
    license: "GPL",
}

/// Version of Atom, shown in its status.
const VERSION: &str = "1.5.0";

/// The kernel's log formats with its own trait.
macro_rules! log_as_displayed {
    ($($name:ty),+) => {$(
        impl kernel::fmt::Display for $name {
            fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
                core::fmt::Display::fmt(self, f)
            }
        }
    )+};
}
log_as_displayed!(abi::text::Text, abi::version::Refusal);

#[pin_data(PinnedDrop)]
struct Atom {
    /// Before everything that may hang in one of them.
    failpoints: failpoint::Shown,
    /// Before the control device, because it can fail, and nobody may have opened that one then.
    watch: Watching,
    #[pin]
    control: sys::ControlDevice,
}

/// Atom's watch runs while this exists.
struct Watching;

impl Watching {
    fn begin() -> Result<Self> {
        sys::WATCH.start()?;
        Ok(Self)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        sys::WATCH.stop();
    }
}

impl kernel::InPlaceModule for Atom {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        sys::init();
        pr_info!(
            "{} loaded, ABI {}.{}, layout {:#018x}\n",
            VERSION,
            abi::version::ABI_MAJOR,
            abi::version::ABI_MINOR,
            abi::layout::HASH
        );
        try_pin_init!(Self {
            failpoints: failpoint::Shown::begin(points::ALL)?,
            watch: Watching::begin()?,
            control <- sys::ControlDevice::register(),
        })
    }
}

#[pinned_drop]
impl PinnedDrop for Atom {
    fn drop(self: Pin<&mut Self>) {
        // Without force the kernel unloads Atom only when no device is open and nobody has the control device open,
        // and by force only when no payload is loaded. What is held has no reader left then.
        let atom = sys::Leaving::atom();
        if atom.is_needed() {
            pr_warn!("it is removed by force and is in use: it goes when everything is closed\n");
            atom.wait();
        }
        sys::WATCH.stop();
        handoff::tear_down();
        sys::exit();
        pr_info!("unloaded\n");
    }
}
