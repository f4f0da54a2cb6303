// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! How a payload learns of the end of I/O that it has asked another device for. Since 1.2.
//!
//! The kernel calls the end of a bio in any context, and with nothing held that *abandon* could wait for.
//! So a bio never leads into a payload directly: its `bi_end_io` is
//! [`atom_bio_end`](super::calls::atom_bio_end), and its `bi_private` points to a [`BioEnd`].

use core::ffi::c_void;

/// Whom Atom calls at the end of a bio.
///
/// It lies where the payload likes, also behind every bio, and must not change or go before the end of the
/// last bio that points to it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BioEnd {
    /// Called once with the `struct bio *`, which is the payload's again. RCU read side, any context, also an
    /// interrupt: must not sleep. A grace period after the last request has ended nobody is in it any more.
    pub end: unsafe extern "C" fn(bio: *mut c_void),
}
