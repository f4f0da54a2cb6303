// SPDX-License-Identifier: GPL-2.0

//! Volumes that end every request at once, to measure what everything around them costs.
//!
//! A read leaves the pages as they are, so what is read is undefined.

use crate::abi::request::{op, status};
use crate::pages::Io;

/// Carries out a request: nothing is done. Any context.
pub(crate) fn serve(io: &Io) -> u32 {
    match io.op {
        op::READ | op::WRITE | op::FLUSH | op::DISCARD | op::WRITE_ZEROES => status::OK,
        _ => status::NOT_SUPPORTED,
    }
}
