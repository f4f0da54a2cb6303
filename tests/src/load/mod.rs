// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Load on the devices that notices when anything is wrong with them.
//!
//! | load | what it does | what it notices |
//! | --- | --- | --- |
//! | [`fio`] | random writes on a raw device, read back and verified while they go on | errors, data that is not what was written |
//! | [`files`] | files on a file system, synced, dropped from the cache and read back | the same, through the page cache and the journal |
//! | [`crowd`] | many writers with one request each, read back; held, they take every tag | errors, data that is not what was written |
//! | [`flushes`] | small writes, each flushed and read back | errors, flushes that hang, data that is not what was written |
//! | [`synced`] | files and logs that are synced | after a power cut: what was synced and is not there |
//! | [`node`] | a raw device and a file system of a node, until somebody wants it to stop | what [`fio`] and [`files`] notice |
//! | [`probe`] | small reads, one after the other | how long nothing came back |
//! | [`flood`] | many small requests in flight from one thread | the same, and errors |
//!
//! [`gaps`] is what both of them notice it with.

pub mod crowd;
pub mod files;
pub mod fio;
pub mod flood;
pub mod flushes;
pub mod gaps;
pub mod node;
pub mod probe;
pub mod rounds;
pub mod synced;
