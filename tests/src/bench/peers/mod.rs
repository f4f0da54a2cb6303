// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The peers: what else holds a block device, or changes the code or the table behind one.

mod brd;
mod mapped;
mod nbd;
mod netlink;
mod null_blk;
mod single;
mod ublk;

pub use brd::Brd;
pub use mapped::Mapped;
pub use nbd::Nbd;
pub use null_blk::NullBlk;
pub use single::Single;
pub use ublk::Ublk;
