// SPDX-License-Identifier: GPL-2.0

//! The points at which a test variant differs from a release, and which variant this build is, chosen
//! by `payload_fault`. A release has [`Points`] as they are: nothing is called and no code is left.

use kernel::prelude::*;

use crate::abi::control::Blocker;
use crate::abi::device::DeviceSpec;
use crate::abi::image::ImageError;
use crate::abi::layout;
use crate::abi::version::{SchemaRange, ABI_MAJOR};
use crate::pages::Io;
use crate::protocol::Command;
use crate::shape::{Description, Shape};
use crate::state::{Export, Import};

#[cfg(payload_fault = "broken")]
pub(crate) use crate::broken::Broken as Variant;
#[cfg(payload_fault = "change")]
pub(crate) use crate::change::Changes as Variant;
#[cfg(payload_fault = "extra")]
pub(crate) use crate::extra::Extra as Variant;
#[cfg(payload_fault = "fault")]
pub(crate) use crate::inject::Injected as Variant;
#[cfg(payload_fault = "keeper")]
pub(crate) use crate::keeper::Keeper as Variant;
#[cfg(payload_fault = "large")]
pub(crate) use crate::large::Large as Variant;
#[cfg(payload_fault = "stuck")]
pub(crate) use crate::stuck::Stuck as Variant;

/// No variant: a release.
#[cfg(payload_fault = "none")]
pub(crate) struct Variant;

#[cfg(payload_fault = "none")]
impl Points for Variant {}

/// The operations of the table, by the numbers that `inject.rs` takes.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(payload_abi = "0", allow(dead_code, reason = "1.0 has fewer operations"))]
pub(crate) enum Step {
    Prepare = 1,
    Unprepare = 2,
    ImageBytes = 3,
    Suspend = 4,
    Freeze = 5,
    Thaw = 6,
    Adopt = 7,
    Abandon = 8,
    Resume = 9,
    Revoke = 10,
    Command = 11,
    #[cfg(payload_client)]
    HandBack = 15,
    // 12 is *queue_rq*, see `inject.rs`.
    #[cfg(payload_ahead)]
    CopyAhead = 13,
    #[cfg(payload_ahead)]
    AdoptAhead = 14,
}

/// Tells the variant when it is dropped that Atom does not know the payload any more.
pub(crate) struct Exit;

impl Drop for Exit {
    fn drop(&mut self) {
        Variant::exit();
    }
}

/// What a release does at each point: nothing. A variant overrides what it needs.
#[cfg_attr(payload_abi = "0", allow(dead_code, reason = "1.0 has fewer operations"))]
pub(crate) trait Points {
    /// The major version of the interface that it claims.
    const ABI_MAJOR: u16 = ABI_MAJOR;
    /// The layout of the interface that it claims.
    const LAYOUT: u64 = layout::HASH;
    /// Capabilities that it requires beside those of a release.
    const REQUIRES: u64 = 0;
    /// Capabilities of a release that it does not offer.
    const WITHHOLDS: u64 = 0;
    /// The schemas that it claims to read and write.
    const SCHEMA: Option<SchemaRange> = None;
    /// Keys of the records that it has beside those of the volumes.
    const KEYS: &'static [u32] = &[];
    /// Whether its volumes are others after *adopt* than those of the image.
    const CHANGES: bool = false;

    /// Before Atom knows the payload.
    fn init() {}

    /// When Atom does not know it any more.
    fn exit() {}

    /// At the start of an operation. An error is what the operation returns; an inverse does its work all the
    /// same. May sleep.
    fn before(_step: Step) -> Result {
        Ok(())
    }

    /// In an operation, with the table of volumes locked.
    fn holding(_step: Step) {}

    /// What is left of background work.
    fn background() -> i32 {
        0
    }

    /// The status with which *queue_rq* does not take a request. Must not sleep.
    fn refuses() -> Option<u32> {
        None
    }

    /// Gives a request of a volume back to be served, or keeps it. Must not sleep.
    fn take(_slot: usize, io: Io) -> Option<Io> {
        Some(io)
    }

    /// At the end of *prepare*.
    fn prepared() -> Result {
        Ok(())
    }

    /// At the start of *freeze*.
    fn freezing() -> Result {
        Ok(())
    }

    /// In *adopt* before each device is bound and after the last one, with how many were bound and how many there are.
    fn adopting(_bound: usize, _volumes: usize) -> Result {
        Ok(())
    }

    /// Whether *adopt* binds the device that comes next.
    fn binds(_bound: usize, _volumes: usize) -> bool {
        true
    }

    /// The shape of a volume that is adopted.
    fn shape(shape: Shape) -> Shape {
        shape
    }

    /// In *adopt*, when the device of a volume was bound. The description has the shape from above.
    fn bound(_volume: &Description) -> Result {
        Ok(())
    }

    /// At the end of *adopt*.
    fn adopted(_image: Option<&Import<'_>>) -> Result {
        Ok(())
    }

    /// At the end of *abandon*.
    fn abandoned() {}

    /// The device that a new volume asks for.
    fn spec(spec: DeviceSpec) -> DeviceSpec {
        spec
    }

    /// Bytes of its own records in an image.
    fn image_bytes() -> usize {
        0
    }

    /// Adds its own records to an image.
    fn export(_image: &mut Export<'_>) -> Result<(), ImageError> {
        Ok(())
    }

    /// As [`Points::image_bytes`] for what differs from a copy.
    #[cfg(payload_ahead)]
    fn difference_bytes() -> usize {
        Self::image_bytes()
    }

    /// As [`Points::export`] for what differs from a copy.
    #[cfg(payload_ahead)]
    fn export_difference(image: &mut Export<'_>) -> Result<(), ImageError> {
        Self::export(image)
    }

    /// In *adopt_ahead*, when the volumes were read.
    #[cfg(payload_ahead)]
    fn adopted_ahead(_image: &Import<'_>, _difference: bool) -> Result {
        Ok(())
    }

    /// In *unprepare*.
    #[cfg(payload_ahead)]
    fn unprepared() {}

    /// In *resume*, with the length of the pause.
    fn resumed(_paused_ns: u64) {}

    /// In *revoke*.
    fn revoke() {}

    /// Why a request has not ended yet.
    fn reason(_slot: usize, _blocker: &Blocker) -> Option<&'static str> {
        None
    }

    /// In *timeout*. Must not sleep.
    fn timed_out() {}

    /// Carries out a command of its own.
    fn command(_command: &Command<'_>, _output: &mut [u8]) -> Result<usize> {
        Err(EINVAL)
    }
}
