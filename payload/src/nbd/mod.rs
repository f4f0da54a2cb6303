// SPDX-License-Identifier: GPL-2.0

//! Targets on servers that speak NBD.
//!
//! The protocol, the rules and the record are pure and tested on the host; the rest is here:
//!
//! | file | one reason to exist |
//! | --- | --- |
//! | `wire.rs`, `handshake.rs`, `reply.rs` | pure: the numbers of the protocol, its two phases |
//! | `rules.rs`, `scheduler.rs` | pure: when something is tried again or given up; which request goes next |
//! | `record.rs` | pure: what of a target goes into the image |
//! | `target.rs` | a target: its queue, its connections, what is known of the export |
//! | `connection.rs` | a connection: how it is made, ended and handed on |
//! | `sending.rs`, `receiving.rs` | its two sides |
//! | `slots.rs`, `ended.rs` | requests in flight; those that have ended and are finished later |
//! | `poller.rs` | the threads |
//! | `socket.rs`, `socket.h` | the layer on the network |
//!
//! `socket.rs` and `poller.rs` hold all `unsafe` code.
//!
//! Lock order, outermost first:
//!
//! 1. the pollers' list of targets;
//! 2. the receiving side of a connection;
//! 3. its sending side;
//! 4. the state of a target;
//! 5. the queue of a target, a spinlock;
//! 6. the slots of a connection, a spinlock.
//!
//! No spinlock is taken in an interrupt: what comes there goes on a stack without a lock. Requests are ended with
//! none of these held, because what goes on with them may submit the next part here.
//!
//! Who uses a socket. The sending side is used under its lock, by a task that submits or by the poller, and never
//! waits; the receiving side by the poller. Both have a reference on the [`socket::Socket`], so it is released when
//! both are out. To end a connection the poller takes the sending side's, and with it waits for a sender that is
//! inside. While the gates are closed no task submits, so that a poller that has parked leaves nobody behind.
//!
//! How it goes through an upgrade. *suspend*: handshakes are dropped, and no attempt is made but for requests that
//! wait; what is connected serves. An attempt that is still under way is forgotten by *abandon*. *hand_back*: what was
//! not begun to be sent, and what waits for a connection, goes back to Atom; a drain waits for the rest.
//! *freeze*: the pollers park, and no socket is listened to; the records are written. *thaw* undoes that. *adopt*:
//! sockets are claimed, and neither read nor written before the first request or *resume*, so that an adopt that is
//! undone has changed nothing in a stream. *abandon*: the threads end; sockets stay with Atom.

mod connection;
mod ended;
#[allow(dead_code, unreachable_pub)]
mod handshake;
mod poller;
mod receiving;
#[allow(dead_code, unreachable_pub)]
pub(crate) mod record;
#[allow(dead_code, unreachable_pub)]
mod reply;
#[allow(dead_code, unreachable_pub)]
mod rules;
#[allow(dead_code, unreachable_pub)]
mod scheduler;
mod sending;
mod slots;
mod socket;
mod target;
#[allow(dead_code, unreachable_pub)]
mod wire;

use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicBool, Ordering};

use kernel::bindings;
use kernel::prelude::*;

use crate::abi::image::{Writer, HEADER_BYTES, TRAILER_BYTES};
use crate::abi::text::{Text, TEXT_BYTES};
use crate::sys;

pub(crate) use target::Target;

/// Whether no attempt to connect is made.
static SUSPENDED: AtomicBool = AtomicBool::new(false);

/// Starts the threads, when they do not run. Under the lock of the table of volumes. Sleeps.
pub(crate) fn prepare() -> Result {
    poller::start()
}

/// Stops them. Every target is forgotten, and nothing of them runs when this returns; their sockets stay with Atom.
/// Under the lock of the table of volumes. Sleeps.
pub(crate) fn unprepare() {
    poller::stop();
    SUSPENDED.store(false, Ordering::SeqCst);
}

/// Makes no more attempts to connect, and drops those under way. I/O is served. Sleeps.
pub(crate) fn suspend() {
    SUSPENDED.store(true, Ordering::SeqCst);
    poller::each_target(Target::suspend);
}

/// Whether the threads have no connections. Only while no targets come.
pub(crate) fn is_quiet() -> bool {
    poller::are_idle()
}

/// Has the threads let go of every socket. The gates are closed. Sleeps. Errors: `ETIMEDOUT`, and they go on.
pub(crate) fn park() -> Result {
    poller::park()
}

/// Inverse of [`park`].
pub(crate) fn unpark() {
    poller::unpark();
}

/// Inverse of [`suspend`], also for what was adopted. I/O was held for so long, which counts for nothing. Sleeps.
pub(crate) fn resume(paused_ns: u64) {
    SUSPENDED.store(false, Ordering::SeqCst);
    poller::each_target(|target| target.resume(paused_ns));
}

fn suspended() -> bool {
    SUSPENDED.load(Ordering::SeqCst)
}

/// Whether another payload serves in the place of this one, which was forsaken and so not asked to stop. Its
/// requests may be those of the other by then, so that it is suspended for ever. Sleeps.
fn is_replaced() -> bool {
    let mut image = [0; HEADER_BYTES + TRAILER_BYTES];
    let written = Writer::new(&mut image, &Text::EMPTY, u32::MAX).and_then(Writer::finish);
    // No payload writes this schema, so nothing is kept. One that is not live is told so before that.
    let replaced = written.is_ok() && sys::checkpoint(&image).is_err_and(|error| error == EPERM);
    if replaced {
        SUSPENDED.store(true, Ordering::SeqCst);
    }
    replaced
}

/// The error for bytes that are no record.
fn protocol_errno() -> Error {
    sys::eproto()
}

/// `ENOTCONN`, which the kernel crate has no name for.
fn not_connected() -> Error {
    Error::from_errno(-(bindings::ENOTCONN as i32))
}

/// Tells everybody who listens, and the kernel log. Sleeps.
fn tell(text: &Text) {
    pr_info!("nbd {}\n", text.as_str());
    sys::event(None, text);
}

/// A line of text: as much as fits.
fn line(words: fmt::Arguments<'_>) -> Text {
    struct Cut {
        bytes: [u8; TEXT_BYTES],
        length: usize,
    }
    impl fmt::Write for Cut {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for letter in text.chars() {
                let mut bytes = [0; 4];
                let letter = letter.encode_utf8(&mut bytes).as_bytes();
                let end = self.length.saturating_add(letter.len());
                let room = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
                room.copy_from_slice(letter);
                self.length = end;
            }
            Ok(())
        }
    }
    let mut cut = Cut { bytes: [0; TEXT_BYTES], length: 0 };
    // What does not fit is left out.
    let _ = cut.write_fmt(words);
    Text::from_bytes(cut.bytes)
}
