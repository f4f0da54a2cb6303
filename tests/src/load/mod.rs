// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Load on the devices that notices when anything is wrong with them.
//!
//! | load | what it does | what it notices |
//! | --- | --- | --- |
//! | [`fio`] | random writes on a raw device, read back and verified while they go on | errors, data that is not what was written |
//! | [`files`] | files on a file system, synced, dropped from the cache and read back | the same, through the page cache and the journal |
//! | [`probe`] | small reads, one after the other | how long nothing came back |

pub mod files;
pub mod fio;
pub mod probe;
