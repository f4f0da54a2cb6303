// SPDX-License-Identifier: GPL-2.0

//! The minor versions of the interface that a build works with, chosen by `payload_abi`. A release
//! has "1", or "5" if it is a client; the other levels are for the tests of Atom with older and newer payloads.
//!
//! | level | minor versions | table | uses |
//! | --- | --- | --- | --- |
//! | 0 | 0 | that of 1.0 | only what 1.0 has, and so links with an Atom of 1.0 |
//! | 1 | 1 | that of 1.1 | all that 1.1 has, and so links with an Atom of 1.1 |
//! | 2 | 2 | that of 1.2 | all that 1.2 has |
//! | 3 | 2 to 3 | that of 1.3 | all that 1.3 has |
//! | 4 | 2 to 4 | that of 1.4, which is that of 1.3 | all that 1.4 has |
//! | 5 | 2 to 5 | that of 1.5 | all of it |
//! | 6 | 5 to 6 | one operation longer, and so is its spec | as 5 |
//! | 7 | 6 | one operation longer, and so is its spec | as 5; an Atom of 1.5 refuses it |

use core::mem::size_of;

use crate::abi::device::DeviceSpec;
use crate::abi::table::PayloadTable;
use crate::abi::version::{caps, AbiRange};

#[cfg(not(any(
    payload_abi = "0",
    payload_abi = "1",
    payload_abi = "2",
    payload_abi = "3",
    payload_abi = "4",
    payload_abi = "5",
    payload_abi = "6",
    payload_abi = "7"
)))]
compile_error!("payload_abi must be \"0\" to \"7\"");
#[cfg(all(payload_client, not(payload_abi = "5")))]
compile_error!("a client hands requests back, which 1.5 has");
#[cfg(all(payload_ahead, any(payload_abi = "0", payload_abi = "1", payload_abi = "2")))]
compile_error!("only from 1.3 on something is copied ahead");

const fn minors(minor_min: u16, minor_max: u16) -> AbiRange {
    AbiRange { minor_min, minor_max, ..AbiRange::CURRENT }
}

/// The minor versions that this build works with.
pub(crate) const MINORS: AbiRange = match () {
    () if cfg!(payload_abi = "0") => minors(0, 0),
    () if cfg!(payload_abi = "1") => minors(1, 1),
    () if cfg!(payload_abi = "2") => minors(2, 2),
    () if cfg!(payload_abi = "3") => minors(2, 3),
    () if cfg!(payload_abi = "4") => minors(2, 4),
    () if cfg!(payload_abi = "5") => minors(2, 5),
    () if cfg!(payload_abi = "6") => minors(5, 6),
    () => minors(6, 6),
};

/// The capabilities that this build offers.
pub(crate) const PROVIDES: u64 = match MINORS.minor_max {
    0 => 0,
    _ => caps::REISSUE | caps::CHECKPOINTS | caps::TIMEOUTS,
};

/// The spec of this build, which only Atom reads.
#[repr(C)]
pub(crate) struct Spec {
    /// What the tree's own version of the interface has.
    spec: DeviceSpec,
    /// A field that only a later version has: no Atom of this tree may look at it.
    #[cfg(any(payload_abi = "6", payload_abi = "7"))]
    later: u64,
}

impl Spec {
    /// Bytes of it that this build knows.
    const BYTES: u32 = match MINORS.minor_max {
        0 => DeviceSpec::BYTES_1_0 as u32,
        1 => DeviceSpec::BYTES_1_1 as u32,
        _ => size_of::<Self>() as u32,
    };

    /// As much of `spec` as this build knows, and what it has behind it.
    pub(crate) const fn new(spec: &DeviceSpec) -> Self {
        Self {
            spec: DeviceSpec { size: Self::BYTES, ..*spec },
            #[cfg(any(payload_abi = "6", payload_abi = "7"))]
            later: u64::MAX,
        }
    }

    /// As Atom takes it: as many bytes as it says.
    pub(crate) const fn as_ptr(&self) -> *const DeviceSpec {
        core::ptr::from_ref(self).cast()
    }
}

/// The operations table of this build, which only Atom reads.
#[repr(C)]
pub(crate) struct Table {
    /// What the tree's own version of the interface has.
    table: PayloadTable,
    /// An operation that only a later version has: no Atom of this tree may call it.
    #[cfg(any(payload_abi = "6", payload_abi = "7"))]
    later: Option<extern "C" fn() -> i32>,
}

impl Table {
    /// Bytes of it that this build knows.
    pub(crate) const BYTES: u32 = match MINORS.minor_max {
        0 => PayloadTable::BYTES_1_0 as u32,
        1 => PayloadTable::BYTES_1_1 as u32,
        2 => PayloadTable::BYTES_1_2 as u32,
        3 | 4 => PayloadTable::BYTES_1_3 as u32,
        _ => size_of::<Self>() as u32,
    };

    /// The table with what this build has behind it.
    pub(crate) const fn new(table: PayloadTable) -> Self {
        Self {
            table,
            #[cfg(any(payload_abi = "6", payload_abi = "7"))]
            later: Some(later),
        }
    }
}

#[cfg(any(payload_abi = "6", payload_abi = "7"))]
extern "C" fn later() -> i32 {
    kernel::pr_err!("Atom called an operation of a later version of the interface\n");
    kernel::error::code::EINVAL.to_errno()
}
