// SPDX-License-Identifier: GPL-2.0

//! Atom's slot, handles, drain flag and request ownership, in every order in which processors can meet.
//!
//! The code under test is the module's own; what the kernel does around it is modelled in [`machine`]. Each model has
//! variants with one mistake in them, which must be found: a model that cannot fail proves nothing.
//!
//! Run by the gate `model check` of `cargo xtask test`, with `--cfg loom`. Each model says how many executions it
//! has explored.

#![cfg(loom)]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a model fails")]

mod abort;
mod dispatch;
mod drain;
mod handles;
mod machine;
mod order;
mod replay;
mod sleeping;
mod timeout;
mod unload;
