// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a guest boots from: a base with Debian's programs and the kernel's modules, which the cache keeps, and on top
//! of it the clone's own programs and modules.
//!
//! The archives are not compressed: an emulated processor takes longer to unpack them than QEMU takes to hand them over.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::fingerprint::Fingerprint;
use crate::progress::Step;
use crate::sysroot::Sysroot;
use crate::{kbuild, lock, modules, places, programs};

/// The variable with the seed of what scenarios leave to chance.
const SEED: &str = "ATOM_SEED";

/// Programs of the base, besides busybox's, which step in for all that are not here.
const PROGRAMS: &[&str] = &[
    "fio",
    "mkfs.ext4",
    "resize2fs",
    "e2fsck",
    "fsck.ext4",
    "tune2fs",
    "mkfs.xfs",
    "xfs_repair",
    "sfdisk",
    "blkdiscard",
    "blkid",
    "lsblk",
    "blockdev",
    "dd",
    "findmnt",
    "mount",
    "umount",
    "losetup",
    "kmod",
    "modprobe",
    "insmod",
    "rmmod",
    "lsmod",
    "stat",
    "sync",
    "fsfreeze",
    "flock",
    "dmesg",
    "timeout",
];

/// Modules of the stock kernel, with all that they need.
const MODULES: &[&str] = &[
    "virtio_blk",
    "virtio_net",
    "virtio_scsi",
    "null_blk",
    "loop",
    "xfs",
    "dm_mod",
    "dm_snapshot",
    "nbd",
    "configfs",
    "brd",
    "vsock",
];

/// Makes the base in `/mnt/base`, which is empty, and the archive of it.
const MAKE_BASE: &str = r#"
release=$1; shift
cd /mnt/base
mkdir -p tree; cd tree
mkdir -p usr/bin usr/sbin usr/lib usr/lib64 etc proc sys dev run tmp root mnt var
for name in bin sbin lib lib64; do ln -s usr/$name $name; done
mkdir -p lib/atom/test
add() { # a file with the libraries that it is linked to
  [ -e "./$1" ] && return 0
  mkdir -p ".$(dirname "$1")"
  cp -L "$1" ".$1"
  { ldd "$1" 2>/dev/null || true; } | grep -o '/[^ ]*' | while read -r library; do
    [ -e ".$library" ] || { mkdir -p ".$(dirname "$library")"; cp -L "$library" ".$library"; }
  done
}
while [ "$1" != -- ]; do
  program=$(command -v "$1") || { echo "no program $1" >&2; exit 1; }
  real=$(readlink -f "$program")
  add "$real"
  [ "$program" = "$real" ] || ln -sf "$real" ".$program"
  shift
done
shift
add /usr/bin/busybox
busybox --list-full | while read -r applet; do
  name=$(basename "$applet")
  [ -e "usr/bin/$name" ] || [ -e "usr/sbin/$name" ] || [ -L "usr/sbin/$name" ] || ln -s /usr/bin/busybox "usr/bin/$name"
done
for module in "$@"; do
  modprobe -d /opt/kernel -S "$release" --show-depends "$module" || echo "no module $module" >&2
done | while read -r verb file rest; do
  [ "$verb" = insmod ] || continue
  name=usr/lib/${file#*/lib/}
  mkdir -p "$(dirname "$name")"; cp -n "$file" "$name" || true
done
for list in modules.builtin modules.order modules.builtin.modinfo; do
  cp "/opt/kernel/usr/lib/modules/$release/$list" "usr/lib/modules/$release/" 2>/dev/null || true
done
depmod -b . "$release"
ldconfig -r . 2>/dev/null || true
cp /etc/mke2fs.conf etc/
printf 'root:x:0:0:root:/root:/bin/sh\n' > etc/passwd
printf 'root:x:0:\ndisk:x:6:\n' > etc/group
printf '127.0.0.1 localhost atom\n' > etc/hosts
printf 'PS1="atom# "\n' > etc/profile
ln -sf /proc/mounts etc/mtab
find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc > ../base.cpio
"#;

/// Makes the archive of `/mnt/overlay/tree`. The modules in it are also put where `modprobe` finds them, with an index
/// of them and of the base's together: the kernel itself asks for modules by name.
const MAKE_OVERLAY: &str = r#"
release=$1 base=$2
cd /mnt/overlay
rm -rf index; mkdir -p index/usr/lib; ln -s usr/lib index/lib
(cd index; cpio --quiet -id 'usr/lib/modules/*') < "/mnt/cache/$base"
modules=usr/lib/modules/$release
mkdir -p "index/$modules/extra/atom-guest" "tree/$modules"
if [ -d tree/usr/lib/atom ]; then
  cp -a tree/usr/lib/atom index/usr/lib/
  for file in $(cd tree/usr/lib/atom; find . -name '*.ko'); do
    ln -s "../../../../atom/$file" "index/$modules/extra/atom-guest/"
  done
fi
# Debian's packages leave these lists out, and depmod complains without them.
(cd "index/$modules"; touch modules.order modules.builtin modules.builtin.modinfo)
depmod -b index "$release"
cp -a "index/$modules/extra" index/$modules/modules.* "tree/$modules/"
rm -rf index
cd tree
find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc > ../overlay.part
mv ../overlay.part ../overlay.cpio
"#;

/// The archives of an initramfs, in the order in which the kernel unpacks them.
#[derive(Clone, Debug)]
pub struct Initramfs {
    archives: Vec<PathBuf>,
}

impl Initramfs {
    /// The initramfs with what was built last.
    pub fn assemble(sysroot: &Sysroot) -> Result<Self> {
        let base = base(sysroot)?;
        let overlay = overlay(sysroot, &base)?;
        Ok(Self { archives: vec![base, overlay] })
    }

    /// Writes it as one file.
    pub fn write(&self, to: &Path) -> Result<()> {
        let mut file = std::fs::File::create(to)?;
        for archive in &self.archives {
            let mut from = std::fs::File::open(archive)
                .with_context(|| format!("cannot open {}", archive.display()))?;
            std::io::copy(&mut from, &mut file)?;
        }
        file.flush()?;
        Ok(())
    }
}

fn base(sysroot: &Sysroot) -> Result<PathBuf> {
    let mut key = Fingerprint::default();
    key.add(sysroot.name()).add(MAKE_BASE);
    for part in PROGRAMS.iter().chain(MODULES) {
        key.add(part);
    }
    let cache = places::cache()?;
    let name = format!("base-{}", key.name());
    let archive = cache.join(format!("{name}.cpio"));
    if archive.exists() {
        return Ok(archive);
    }
    let _lock = lock::take(&cache.join("base.lock"), "makes the guests' base")?;
    let dir = cache.join(format!("{name}.part"));
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    let step = Step::start("make the guests' base", &cache.join(format!("{name}.log")))?;
    step.run(
        &sysroot
            .chroot()
            .bind(&dir, "base")
            .shell(MAKE_BASE)
            .arg("make-base")
            .arg(&sysroot.kernel().release)
            .args(PROGRAMS)
            .arg("--")
            .args(MODULES),
    )?;
    std::fs::rename(dir.join("base.cpio"), &archive)
        .with_context(|| format!("cannot create {}", archive.display()))?;
    std::fs::remove_dir_all(&dir)?;
    step.done();
    Ok(archive)
}

/// The clone's own files: `atom-guest` is the first process, `atomctl` is in the search path, modules are in
/// `/lib/atom`, and the payload versions that exist for tests alone are in `/lib/atom/test`. The seed of what scenarios
/// leave to chance is in `/etc/atom/seed`, if there is one in the variable [`SEED`].
fn overlay(sysroot: &Sysroot, base: &Path) -> Result<PathBuf> {
    let dir = places::target().join("overlay");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let _turn = lock::take(&dir.join("lock"), "makes the guests' overlay")?;
    let tree = dir.join("tree");
    if tree.exists() {
        std::fs::remove_dir_all(&tree)
            .with_context(|| format!("cannot empty {}", tree.display()))?;
    }
    let put = |from: &Path, to: &str| -> Result<()> {
        let to = tree.join(to);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(())
    };
    let guest = programs::path("atom-guest");
    put(&guest, "init")?;
    put(&guest, "usr/bin/atom-guest")?;
    let atomctl = programs::path("atomctl");
    if atomctl.exists() {
        put(&atomctl, "usr/bin/atomctl")?;
    }
    let atom = kbuild::loadable(modules::ATOM);
    if atom.exists() {
        put(&atom, "usr/lib/atom/atom.ko")?;
    }
    for version in modules::payload_versions()? {
        let file = kbuild::loadable(&version.object);
        if file.exists() {
            let folder = if version.test { "atom/test" } else { "atom" };
            put(&file, &format!("usr/lib/{folder}/{}.ko", version.object))?;
        }
    }
    if let Ok(seed) = std::env::var(SEED) {
        let file = tree.join("etc/atom/seed");
        std::fs::create_dir_all(tree.join("etc/atom"))?;
        std::fs::write(&file, seed).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let base = base.file_name().context("the base has no name")?;
    let command = sysroot
        .chroot()
        .bind(&dir, "overlay")
        .bind(&places::cache()?, "cache")
        .shell(MAKE_OVERLAY)
        .arg("make-overlay")
        .arg(&sysroot.kernel().release)
        .arg(base);
    anyhow::ensure!(command.passes()?, "this command failed: {command}");
    Ok(dir.join("overlay.cpio"))
}
