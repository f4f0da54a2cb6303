// SPDX-License-Identifier: GPL-2.0

//! Atom: the stable half of a hot-upgradable block driver.
//!
//! Atom holds the block devices, every open handle and the requests in flight, and nothing else: no
//! algorithms, no networking, no idea of what a volume is. A *payload* module has those, and can be
//! replaced while Atom keeps the devices. The contract between the two is the [`abi`].
//!
//! | file | one reason to exist |
//! | --- | --- |
//! | `sys.rs` | all `unsafe`: the layer on the kernel, the calls into and from a payload |
//! | `state.rs` | what Atom knows: payloads, devices, page stores |
//! | `handoff.rs` | switch, abandon and adopt, driven by the lifecycle of the ABI |
//! | `barrier.rs` | gates and drain, over all devices together |
//! | `calls.rs` | what a payload may ask for |
//! | `control.rs` | the ioctls of `/dev/atom-control` |
//!
//! Lock order, outermost first:
//!
//! 1. `CONTROL`, held over a whole handoff or command, also while the payload runs;
//! 2. whatever the payload locks in its operations;
//! 3. `STATE`, held for table look-ups only: never while a payload runs, never while something waits.
//!
//! The I/O path (`queue_rq`, `atom_request_end`, open, release) takes neither.

#[path = "abi/abi.rs"]
mod abi;
mod barrier;
mod calls;
mod control;
mod handoff;
mod state;
mod sys;

use kernel::prelude::*;

module! {
    type: Atom,
    name: "atom",
    authors: ["The Atom authors"],
    description: "Holds block devices while the module that serves them is replaced",
    license: "GPL",
}

/// Version of Atom, shown in its status.
const VERSION: &str = "1.0.0";

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
    #[pin]
    control: sys::ControlDevice,
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
            control <- sys::ControlDevice::register(),
        })
    }
}

#[pinned_drop]
impl PinnedDrop for Atom {
    fn drop(self: Pin<&mut Self>) {
        // The kernel unloads Atom only when no payload is loaded, no device is open and nobody has
        // the control device open. What is held has no reader left.
        handoff::tear_down();
        sys::exit();
        pr_info!("unloaded\n");
    }
}
