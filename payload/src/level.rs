// SPDX-License-Identifier: GPL-2.0

//! The minor versions of the interface that a build works with, chosen by `payload_abi`. A release has
//! "1"; the other levels are for the tests of Atom with older and newer payloads.
//!
//! | level | minor versions | table | uses |
//! | --- | --- | --- | --- |
//! | 0 | 0 | that of 1.0 | only what 1.0 has, and so links with an Atom of 1.0 |
//! | 1 | 1 | that of 1.1 | all of it |
//! | 2 | 1 to 2 | one operation longer | as 1 |
//! | 3 | 2 | one operation longer | as 1; an Atom of 1.1 refuses it |

use core::mem::size_of;

use crate::abi::device::DeviceSpec;
use crate::abi::table::PayloadTable;
use crate::abi::version::{caps, AbiRange};

#[cfg(not(any(payload_abi = "0", payload_abi = "1", payload_abi = "2", payload_abi = "3")))]
compile_error!("payload_abi must be \"0\", \"1\", \"2\" or \"3\"");

const fn minors(minor_min: u16, minor_max: u16) -> AbiRange {
    AbiRange { minor_min, minor_max, ..AbiRange::CURRENT }
}

/// The minor versions that this build works with.
pub(crate) const MINORS: AbiRange = match () {
    () if cfg!(payload_abi = "0") => minors(0, 0),
    () if cfg!(payload_abi = "1") => minors(1, 1),
    () if cfg!(payload_abi = "2") => minors(1, 2),
    () => minors(2, 2),
};

/// The capabilities that this build offers.
pub(crate) const PROVIDES: u64 = match MINORS.minor_max {
    0 => 0,
    _ => caps::REISSUE | caps::CHECKPOINTS | caps::TIMEOUTS,
};

/// Bytes of a spec that this build knows.
pub(crate) const SPEC_BYTES: u32 = match MINORS.minor_max {
    0 => DeviceSpec::BYTES_1_0 as u32,
    _ => size_of::<DeviceSpec>() as u32,
};

/// The operations table of this build, which only Atom reads.
#[repr(C)]
pub(crate) struct Table {
    /// What the tree's own version of the interface has.
    table: PayloadTable,
    /// An operation that only a later version has: no Atom of this tree may call it.
    #[cfg(any(payload_abi = "2", payload_abi = "3"))]
    later: Option<extern "C" fn() -> i32>,
}

impl Table {
    /// Bytes of it that this build knows.
    pub(crate) const BYTES: u32 = match MINORS.minor_max {
        0 => PayloadTable::BYTES_1_0 as u32,
        _ => size_of::<Self>() as u32,
    };

    /// The table with what this build has behind it.
    pub(crate) const fn new(table: PayloadTable) -> Self {
        Self {
            table,
            #[cfg(any(payload_abi = "2", payload_abi = "3"))]
            later: Some(later),
        }
    }
}

#[cfg(any(payload_abi = "2", payload_abi = "3"))]
extern "C" fn later() -> i32 {
    kernel::pr_err!("Atom called an operation of a later version of the interface\n");
    kernel::error::code::EINVAL.to_errno()
}
