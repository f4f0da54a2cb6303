// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What the fuzz targets share.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`budget`] | how much memory the code under test may allocate |
//! | [`frame`] | a checksum that fits, so that what is behind it is reached |

#![deny(unsafe_code)]

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait")]
pub mod budget;
pub mod frame;
