// SPDX-License-Identifier: GPL-2.0

//! Test variants that change every device that they adopt. An error of the change fails *adopt*. The
//! shape of the volume follows, so that whoever adopts next serves the device as it is then.
//!
//! The longest read and write of a volume is in no image: `grow` halves it on the device only. It takes the
//! write cache away where there is one, and gives one where there is none.

use kernel::prelude::*;

use crate::abi::device::{feature, DeviceSpec};
use crate::abi::version::caps;
use crate::fault::Points;
use crate::shape::{Description, Shape, MAX_TRANSFER_SECTORS};
use crate::sys;

pub(crate) struct Changes;

impl Points for Changes {
    const REQUIRES: u64 = caps::CHANGES;
    const CHANGES: bool = true;

    fn shape(mut shape: Shape) -> Shape {
        if cfg!(payload_fault = "grow") {
            shape.capacity_sectors = shape.capacity_sectors.saturating_mul(2);
            shape.features ^= feature::WRITE_CACHE;
        }
        if cfg!(payload_fault = "shrink") {
            let block_sectors = u64::from(shape.block_bytes / 512).max(1);
            let blocks = shape.capacity_sectors / 2 / block_sectors;
            shape.capacity_sectors = blocks.max(1).saturating_mul(block_sectors);
        }
        if cfg!(payload_fault = "block") {
            shape.block_bytes = 4096;
        }
        if cfg!(payload_fault = "readonly") {
            shape.features |= feature::READ_ONLY;
        }
        shape
    }

    fn bound(volume: &Description) -> Result {
        // The queues stay as they are.
        let mut spec = DeviceSpec { hw_queues: 0, queue_depth: 0, ..volume.shape.spec() };
        if cfg!(payload_fault = "grow") {
            spec.max_sectors = MAX_TRANSFER_SECTORS / 2;
        }
        sys::change_device(volume.device, &spec)
    }
}
