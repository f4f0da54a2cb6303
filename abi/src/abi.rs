// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What crosses the boundary between Atom and a payload, and between Atom and the tools.
//!
//! **This interface is a contract.** `ABI.md` states it in prose; `layout/` holds the blessed
//! layouts. Only `repr(C)` data, `extern "C"` functions, fixed-width integers and the kernel's own C
//! types cross. Tables begin with their size and grow only at the end.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`version`] | versions, capabilities, and [`negotiate`](version::negotiate), a pure function |
//! | [`table`] | the operations table that a payload registers, and its arguments |
//! | [`calls`] | the functions of Atom that a payload may call |
//! | [`request`] | the per-request record and the ownership protocol of a request |
//! | [`device`] | what a payload asks for when it creates a device |
//! | [`bio`] | how a payload learns of the end of I/O that it has asked another device for |
//! | [`image`] | the state of a payload, by value: writer and hostile-input reader |
//! | [`lifecycle`] | the handoff as a pure state machine |
//! | [`control`] | the ioctls of `/dev/atom-control` |
//! | [`layout`] | the layout hash |
//! | [`stamp`] | what a payload's file says about itself |
//! | [`sync`] | the atomics, also for the model checker |
//! | [`text`] | fixed-size strings that cross the boundary |

// Each side uses its own part of the contract, and in a module the contract is no library.
#![allow(dead_code, unreachable_pub, unused_imports)]

pub mod bio;
pub mod calls;
pub mod control;
pub mod crc32c;
pub mod device;
pub mod image;
pub mod layout;
pub mod lifecycle;
pub mod request;
pub mod stamp;
pub mod sync;
pub mod table;
pub mod text;
pub mod version;
