// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A module without failpoints: all of it is nothing.

use kernel::prelude::*;

/// A point that does nothing.
pub(crate) struct Failpoint;

impl Failpoint {
    /// Nothing happens.
    #[inline(always)]
    pub(crate) fn meet(&self) -> Result {
        Ok(())
    }

    /// Nothing happens to the data either.
    #[allow(dead_code, reason = "not every module has a point with data")]
    #[inline(always)]
    pub(crate) fn meet_with(&self, _data: &mut [u8]) -> Result {
        Ok(())
    }

    /// Nothing is slow.
    #[allow(dead_code, reason = "not every module has such a point")]
    #[inline(always)]
    pub(crate) fn slow_down(&self) {}
}

/// No file.
pub(crate) struct Shown;

impl Shown {
    #[inline(always)]
    pub(crate) fn begin(_points: &'static [&'static Failpoint]) -> Result<Self> {
        Ok(Self)
    }
}
