// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The peers: what else holds a block device, or changes the code or the table behind one.

mod brd;
mod mapped;
mod null_blk;
mod ublk;

pub use brd::Brd;
pub use mapped::Mapped;
pub use null_blk::NullBlk;
pub use ublk::Ublk;
