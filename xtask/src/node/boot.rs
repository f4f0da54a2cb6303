// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a node boots from: a small base, which the cache keeps, and on top of it what the host gives to the node: the
//! clone's agent, packages, and who may come in by ssh. [`atom_tests::guest::node`] unpacks it in the node.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use atom_tests::guest::node::{MODULES, PACKAGES};

use super::keys::Keys;
use crate::lock;
use crate::programs;
use crate::sysroot::Sysroot;
use crate::vm::initramfs::{archive, COPY};

/// What has to be there before the root file system is, and the network, in the order in which it is inserted.
const NEEDED: &[&str] = &["virtio_blk", "virtio_net"];

/// Makes the base in `/mnt/base`. The modules are not compressed: the node's first program inserts them by itself.
const MAKE_BASE: &str = r#"
release=$1 modules=$2; shift 2
cd /mnt/base
mkdir -p tree below; cd tree
mkdir -p usr/bin proc sys dev run root ".$modules"
ln -s usr/bin bin
cp /usr/bin/busybox usr/bin/
number=0
for module in "$@"; do
  modprobe -d /opt/kernel -S "$release" --show-depends "$module"
done | while read -r verb file rest; do
  [ "$verb" = insmod ] || continue
  name=$(basename "${file%%.ko*}")
  ls ".$modules" | grep -q -- "-$name\$" && continue
  number=$((number + 1))
  place=".$modules/$(printf '%02d' "$number")-$name"
  case $file in
  *.xz) xz -dc "$file" > "$place" ;;
  *.zst) zstd -dcq "$file" > "$place" ;;
  *) cp "$file" "$place" ;;
  esac
done
[ "$(ls ".$modules" | wc -l)" -ge "$#" ]
find . | pack > ../archive.cpio
"#;

/// Makes the archive of `/mnt/node/tree`.
const MAKE_OVERLAY: &str = r#"
cd /mnt/node/tree
find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc > ../overlay.part
mv ../overlay.part ../overlay.cpio
"#;

/// The archives, in the order in which the kernel unpacks them.
pub fn archives(sysroot: &Sysroot, keys: &Keys, packages: Option<&Path>) -> Result<[PathBuf; 2]> {
    let script = [COPY, MAKE_BASE].concat();
    let first = [sysroot.kernel().release.as_str(), MODULES];
    let base = archive(sysroot, "node-base", "make the nodes' base", &script, &first, NEEDED)?;
    Ok([base, overlay(sysroot, keys, packages)?])
}

fn overlay(sysroot: &Sysroot, keys: &Keys, packages: Option<&Path>) -> Result<PathBuf> {
    let dir = super::folder()?;
    let _turn = lock::take(&dir.join("overlay.lock"), "makes the nodes' overlay")?;
    let tree = dir.join("tree");
    if tree.exists() {
        std::fs::remove_dir_all(&tree)
            .with_context(|| format!("cannot empty {}", tree.display()))?;
    }
    std::fs::create_dir_all(&tree)?;
    let copy = |from: &Path, to: &Path| {
        std::fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))
    };
    copy(&programs::path("atom-guest"), &tree.join("init"))?;
    keys.write_for_nodes(&tree)?;
    if let Some(packages) = packages {
        let place = tree.join(PACKAGES.trim_start_matches('/'));
        std::fs::create_dir_all(&place)?;
        let entries = std::fs::read_dir(packages)
            .with_context(|| format!("cannot list {}", packages.display()))?;
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                copy(&entry.path(), &place.join(entry.file_name()))?;
            }
        }
    }
    let command = sysroot.chroot().bind(&dir, "node").shell(MAKE_OVERLAY);
    anyhow::ensure!(command.passes()?, "this command failed: {command}");
    Ok(dir.join("overlay.cpio"))
}
