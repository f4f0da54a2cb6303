// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Both ends of a virtual machine test.
//!
//! The host boots a guest whose first process is `atom-guest`, talks to its agent over a virtio port in the protocol of
//! [`link`], has it run one of the [`scenarios`], and judges the kernel's log with [`kernel_log`]. The [`guest`] module
//! is what runs inside.

pub mod bench;
pub mod composed;
pub mod console;
pub mod demo;
pub mod echo;
pub mod failpoint;
pub mod firewall;
pub mod greedy;
pub mod guest;
pub mod hang;
pub mod hostile;
pub mod injection;
pub mod ioctls;
pub mod kept;
pub mod kernel_log;
pub mod kernel_modules;
pub mod leaks;
pub mod link;
pub mod load;
pub mod mapper;
pub mod marked;
pub mod matrix;
pub mod memory;
pub mod nbd_client;
pub mod new_root;
pub mod oracle;
pub mod outside;
pub mod packaged;
pub mod patience;
pub mod power;
pub mod pressure;
pub mod ptraced;
pub mod queue;
pub mod random;
pub mod relay;
pub mod scenarios;
pub mod server;
pub mod site;
pub mod slab;
pub mod soak;
pub mod spare;
pub mod trace;
pub mod udev;
pub mod variant;
pub mod wait;
