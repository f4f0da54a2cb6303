// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What runs inside a guest: its first process, the agent that obeys the host, and the reader of the kernel's log.

pub mod agent;
pub mod command_line;
pub mod init;
pub mod kmsg;
pub mod moving;
pub mod node;
pub mod systemd;
