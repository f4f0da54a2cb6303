// SPDX-License-Identifier: GPL-2.0

//! The one fault of a test variant, chosen by `payload_fault`. In a release every function here does
//! nothing and leaves no code behind.

use kernel::prelude::*;

use crate::abi::version::{Offer, SchemaRange};

#[cfg(any(payload_fault = "abi", payload_fault = "layout", payload_fault = "capability"))]
pub(crate) const fn offer(offer: Offer) -> Offer {
    let mut offer = offer;
    if cfg!(payload_fault = "abi") {
        offer.abi.major = 99;
    }
    if cfg!(payload_fault = "layout") {
        offer.layout_hash ^= 1;
    }
    if cfg!(payload_fault = "capability") {
        offer.requires |= (1 << 63) | crate::abi::version::caps::REISSUE;
    }
    offer
}

/// What the variant brings to the negotiation instead.
#[cfg(not(any(payload_fault = "abi", payload_fault = "layout", payload_fault = "capability")))]
pub(crate) const fn offer(offer: Offer) -> Offer {
    offer
}

#[cfg(payload_fault = "schema")]
pub(crate) const fn schema(_range: SchemaRange) -> SchemaRange {
    SchemaRange { read_min: 9, read_max: 9, write_min: 9, write_max: 9 }
}

/// The schemas that the variant reads and writes instead.
#[cfg(not(payload_fault = "schema"))]
pub(crate) const fn schema(range: SchemaRange) -> SchemaRange {
    range
}

/// Called at the end of *prepare*.
pub(crate) fn in_prepare() -> Result {
    if cfg!(payload_fault = "prepare") {
        return Err(ENOMEM);
    }
    Ok(())
}

/// Called at the start of *freeze*.
pub(crate) fn in_freeze() -> Result {
    if cfg!(payload_fault = "freeze") {
        return Err(EIO);
    }
    Ok(())
}

/// Called in *adopt* before a device is bound, with how many were bound and how many there are.
pub(crate) fn in_adopt(bound: usize, volumes: usize) -> Result {
    if cfg!(payload_fault = "adopt") && bound >= volumes / 2 {
        return Err(EIO);
    }
    Ok(())
}

/// True when *adopt* is to leave out the device that comes next.
pub(crate) fn forgets_to_bind(bound: usize, volumes: usize) -> bool {
    cfg!(payload_fault = "bind") && bound.saturating_add(1) == volumes
}
