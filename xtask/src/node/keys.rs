// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Who may come in by ssh, and whom one meets there. The keys are of this clone and for its nodes alone, which all have the
//! same one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use atom_tests::guest::node::{AUTHORIZED_KEYS, HOST_KEY};

use crate::lock;
use crate::sysroot::Sysroot;

/// Makes the key pairs that are missing in `/mnt/node`.
const MAKE: &str = r#"
cd /mnt/node
for name in client host; do
  [ -f "$name.pub" ] || { rm -f "$name"; ssh-keygen -q -t ed25519 -N '' -C "$name of Atom's nodes" -f "$name"; }
done
"#;

/// The keys of this clone's nodes.
#[derive(Clone, Debug)]
pub struct Keys {
    dir: PathBuf,
}

impl Keys {
    /// Finds them, or makes them.
    pub fn get(sysroot: &Sysroot) -> Result<Self> {
        let dir = super::folder()?;
        let _turn = lock::take(&dir.join("keys.lock"), "makes the nodes' keys")?;
        if !["client.pub", "host.pub"].iter().all(|name| dir.join(name).exists()) {
            let command = sysroot.chroot().bind(&dir, "node").shell(MAKE);
            anyhow::ensure!(command.passes()?, "this command failed: {command}");
        }
        Ok(Self { dir })
    }

    /// The private key that every node lets in as root.
    pub fn client(&self) -> PathBuf {
        self.dir.join("client")
    }

    /// The public key of every node, as a line of a file of known hosts says it after the host's name.
    pub fn host_line(&self) -> Result<String> {
        self.read("host.pub").map(|line| line.trim().to_owned())
    }

    /// Puts what a node needs into the tree that it boots from.
    pub fn write_for_nodes(&self, tree: &Path) -> Result<()> {
        for (name, to) in [("host", HOST_KEY), ("client.pub", AUTHORIZED_KEYS)] {
            let to = tree.join(to);
            std::fs::copy(self.dir.join(name), &to)
                .with_context(|| format!("cannot create {}", to.display()))?;
        }
        Ok(())
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.dir.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}
