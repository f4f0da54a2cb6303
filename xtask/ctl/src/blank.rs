// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The structures of the control device before Atom has filled them in.

use atom_abi::control::{DeviceInfo, PayloadInfo};
use atom_abi::text::Text;
use atom_abi::version::{AbiRange, SchemaRange};

const NO_ABI: AbiRange = AbiRange { major: 0, minor_min: 0, minor_max: 0, reserved: 0 };
const NO_SCHEMA: SchemaRange = SchemaRange { read_min: 0, read_max: 0, write_min: 0, write_max: 0 };

/// Asks for the first payload.
pub(crate) const PAYLOAD: PayloadInfo = PayloadInfo {
    size: 0,
    index: 0,
    id: 0,
    state: 0,
    abi: NO_ABI,
    schema: NO_SCHEMA,
    version: Text::EMPTY,
    module: Text::EMPTY,
};

/// Asks for the first device.
pub(crate) const DEVICE: DeviceInfo = DeviceInfo {
    size: 0,
    index: 0,
    id: 0,
    opens: 0,
    capacity_sectors: 0,
    features: 0,
    hw_queues: 0,
    queue_depth: 0,
    owed: 0,
    reserved: 0,
    errors: 0,
    oldest_ns: 0,
};
