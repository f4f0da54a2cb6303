// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! A firewall that drops what goes to or comes from a port: nobody gets an answer, and nobody an error.

use std::process::Command;

use anyhow::{ensure, Context as _, Result};

const TABLE: &str = "atom_test";

/// The firewall. Dropping it lets everything pass again.
pub struct Firewall(());

impl Firewall {
    /// Drops everything of this TCP port.
    pub fn drop_port(port: u16) -> Result<Self> {
        nft(&format!(
            "table inet {TABLE} {{ chain drops {{ type filter hook input priority 0; tcp dport {port} drop; \
             tcp sport {port} drop; }}; }}"
        ))?;
        Ok(Self(()))
    }

    /// Lets everything pass again.
    pub fn open(self) -> Result<()> {
        std::mem::forget(self);
        nft(&format!("delete table inet {TABLE}"))
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        // A scenario that fails comes here; the guest is turned off after it.
        let _ = nft(&format!("delete table inet {TABLE}"));
    }
}

fn nft(rules: &str) -> Result<()> {
    let output = Command::new("nft").arg(rules).output().context("no nft")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft {rules}: {said}");
    Ok(())
}
