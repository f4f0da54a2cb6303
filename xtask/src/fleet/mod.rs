// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Many nodes, driven by Ansible with the collection of this clone, which has all that is known of rollouts.
//!
//! - [`wishes`] turns options into the variables of the playbooks;
//! - [`ansible`] finds Ansible, shows it the files that it needs, and runs it;
//! - [`report`] reads the document that a run leaves.

pub mod ansible;
pub mod report;
pub mod wishes;

use std::path::PathBuf;

use crate::places;

/// The folder of the collection's namespaces, in the clone.
pub fn collections() -> PathBuf {
    places::repository().join("packaging/ansible")
}
