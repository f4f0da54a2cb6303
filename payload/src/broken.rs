// SPDX-License-Identifier: GPL-2.0

//! Test variants with one fixed fault: a false claim, an operation that fails, a device that is
//! forgotten.

use kernel::prelude::*;

use crate::abi::layout;
use crate::abi::version::{SchemaRange, ABI_MAJOR};
use crate::fault::Points;

pub(crate) struct Broken;

impl Points for Broken {
    const ABI_MAJOR: u16 = if cfg!(payload_fault = "abi") { 99 } else { ABI_MAJOR };

    const LAYOUT: u64 =
        if cfg!(payload_fault = "layout") { layout::HASH ^ 1 } else { layout::HASH };

    /// A bit that no version has.
    const REQUIRES: u64 = if cfg!(payload_fault = "capability") { 1 << 63 } else { 0 };

    const SCHEMA: Option<SchemaRange> = if cfg!(payload_fault = "schema") {
        Some(SchemaRange { read_min: 9, read_max: 9, write_min: 9, write_max: 9 })
    } else {
        None
    };

    fn prepared() -> Result {
        if cfg!(payload_fault = "prepare") {
            return Err(ENOMEM);
        }
        Ok(())
    }

    fn freezing() -> Result {
        if cfg!(payload_fault = "freeze") {
            return Err(EIO);
        }
        Ok(())
    }

    fn adopting(bound: usize, volumes: usize) -> Result {
        if cfg!(payload_fault = "adopt") && bound >= volumes / 2 {
            return Err(EIO);
        }
        Ok(())
    }

    fn binds(bound: usize, volumes: usize) -> bool {
        !cfg!(payload_fault = "bind") || bound.saturating_add(1) != volumes
    }
}
