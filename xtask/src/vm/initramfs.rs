// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What a guest boots from: a base with Debian's programs and the kernel's modules, which the cache keeps, and on top
//! of it the clone's own programs and modules. A guest that asks for it gets more programs and modules between the two:
//! servers of the NBD protocol, LVM, dm-crypt, udev and systemd. Those that do not ask boot as fast as without.
//!
//! The archives are not compressed: an emulated processor takes longer to unpack them than QEMU takes to hand them over.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use atom_tests::scenarios::Tools;

use crate::fingerprint::Fingerprint;
use crate::node::Parts;
use crate::progress::Step;
use crate::sysroot::Sysroot;
use crate::{kbuild, lock, modules, places, programs};

/// The variable with the seed of what scenarios leave to chance.
pub const SEED: &str = "ATOM_SEED";

/// The rule that names volumes, in the clone.
const UDEV_RULE: &str = "packaging/udev/60-atom.rules";

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
    "mq-deadline",
    "kyber-iosched",
];

/// Programs of the large guest, besides those of the base.
const MORE_PROGRAMS: &[&str] = &[
    "nbdkit",
    "nbd-server",
    "nbd-client",
    "qemu-nbd",
    "lvm",
    "pvcreate",
    "vgcreate",
    "vgchange",
    "vgextend",
    "vgremove",
    "lvcreate",
    "lvextend",
    "lvs",
    "dmsetup",
    "cryptsetup",
    "xfs_growfs",
    "xfs_io",
    "mkswap",
    "swapon",
    "swapoff",
    "partx",
    "udevadm",
    "systemctl",
    "journalctl",
    "ip",
    "nft",
];

/// Modules of the large guest. `crypto-*` are names that the kernel's own crypto layer asks for.
const MORE_MODULES: &[&str] = &[
    "ublk_drv",
    "dm_crypt",
    "xts",
    "crypto-aes",
    "crypto-sha256",
    "dm_flakey",
    "nf_tables",
    "autofs4",
];

/// Folders of the large guest, with all that the programs and libraries in them are linked to.
const FOLDERS: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/nbdkit/filters",
    "/usr/lib/udev",
    "/usr/lib/systemd",
    "/usr/lib/tmpfiles.d",
    "/etc/lvm",
    "/etc/systemd",
    "/etc/udev",
];

/// Files of the large guest. Only some of nbdkit's plugins: others bring clients of half the internet.
const FILES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-data-plugin.so",
    "/usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-eval-plugin.so",
    "/usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-file-plugin.so",
    "/usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-memory-plugin.so",
    "/usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-null-plugin.so",
    "/usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-pattern-plugin.so",
    "/usr/lib/x86_64-linux-gnu/nbdkit/plugins/nbdkit-sh-plugin.so",
    "/etc/passwd",
    "/etc/group",
    "/etc/os-release",
    "/etc/nsswitch.conf",
];

/// What the scripts below have in common. They work in the folder `tree`; what is in the folder `below` of an archive that
/// is unpacked before is left out.
pub const COPY: &str = r#"
there() { [ -e "./$1" ] || [ -e "../below/$1" ]; }
place() { # a file, as it is
  there "$1" || { mkdir -p ".$(dirname "$1")"; cp -L "$1" ".$1"; }
}
libraries() { # those that a file is linked to
  { ldd "$1" 2>/dev/null || true; } | { grep -o '/[^ ]*' || true; } | while read -r library; do
    place "$library"
  done
}
add() { # a file with the libraries that it is linked to
  there "$1" && return 0
  place "$1"
  libraries "$1"
}
add_program() {
  program=$(command -v "$1") || { echo "no program $1" >&2; exit 1; }
  real=$(readlink -f "$program")
  add "$real"
  [ "$program" = "$real" ] || { mkdir -p ".$(dirname "$program")"; ln -sf "$real" ".$program"; }
}
add_modules() { # by their names, with all that they need
  for module in "$@"; do
    modprobe -d /opt/kernel -S "$release" --show-depends "$module" || echo "no module $module" >&2
  done | while read -r verb file rest; do
    [ "$verb" = insmod ] || continue
    name=usr/lib/${file#*/lib/}
    there "$name" || { mkdir -p "$(dirname "$name")"; cp "$file" "$name"; }
  done
}
pack() { LC_ALL=C sort | cpio --quiet --reproducible -o -H newc; }
"#;

/// Makes the base in `/mnt/base`, which is empty, and the archive of it.
const MAKE_BASE: &str = r#"
release=$1; shift
cd /mnt/base
mkdir -p tree below; cd tree
mkdir -p usr/bin usr/sbin usr/lib usr/lib64 etc proc sys dev run tmp root mnt var
for name in bin sbin lib lib64; do ln -s usr/$name $name; done
mkdir -p lib/atom/test
while [ "$1" != -- ]; do
  add_program "$1"
  shift
done
shift
add /usr/bin/busybox
busybox --list-full | while read -r applet; do
  name=$(basename "$applet")
  [ -e "usr/bin/$name" ] || [ -e "usr/sbin/$name" ] || [ -L "usr/sbin/$name" ] || ln -s /usr/bin/busybox "usr/bin/$name"
done
add_modules "$@"
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
find . | pack > ../archive.cpio
"#;

/// Makes what the large guest has on top of the base, whose archive is in `/mnt/cache`. Of udev, the database of hardware
/// is left out, which is larger than everything else.
const MAKE_MORE: &str = r#"
release=$1 base=$2; shift 2
cd /mnt/base
mkdir -p tree below
(cd below; cpio --quiet -id --no-preserve-owner < "/mnt/cache/$base")
cd tree
mkdir -p usr/bin usr/sbin usr/lib usr/lib64 etc
for name in bin sbin lib lib64; do ln -s usr/$name $name; done
while [ "$1" != -- ]; do add_program "$1"; shift; done; shift
while [ "$1" != -- ]; do
  mkdir -p ".$1"
  cp -a "$1/." ".$1/"
  find "$1" -type f | while read -r file; do libraries "$file"; done
  shift
done; shift
# What the base has of these is too little.
while [ "$1" != -- ]; do mkdir -p ".$(dirname "$1")"; cp -L "$1" ".$1"; libraries "$1"; shift; done; shift
rm -rf usr/lib/udev/hwdb.bin usr/lib/udev/hwdb.d
add_modules "$@"
rm bin sbin lib lib64
find usr etc | pack > ../archive.cpio
"#;

/// Makes the archive of `/mnt/overlay/tree`. The modules in it are also put where `modprobe` finds them, with an index
/// of them and of all archives' together: the kernel itself asks for modules by name.
const MAKE_OVERLAY: &str = r#"
release=$1; shift
cd /mnt/overlay
rm -rf index; mkdir -p index/usr/lib; ln -s usr/lib index/lib
for base in "$@"; do (cd index; cpio --quiet -id './usr/lib/modules/*' 'usr/lib/modules/*') < "/mnt/cache/$base"; done
modules=usr/lib/modules/$release
mkdir -p "index/$modules/extra/atom-guest" "tree/$modules"
if [ -d tree/usr/lib/atom ]; then
  cp -a tree/usr/lib/atom index/usr/lib/
  for file in $(cd tree/usr/lib/atom; find . -name '*.ko' ! -path './failpoints/*'); do
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

/// What guests boot from.
#[derive(Clone, Debug)]
pub struct Initramfs {
    guest: Option<Archives>,
    node: Option<Parts>,
}

/// The archives of the guests that live in their initramfs.
#[derive(Clone, Debug)]
struct Archives {
    base: PathBuf,
    more: PathBuf,
    overlay: PathBuf,
}

impl Initramfs {
    /// The initramfs with what was built last.
    pub fn assemble(sysroot: &Sysroot) -> Result<Self> {
        let base = base(sysroot)?;
        let more = more(sysroot, &base)?;
        let overlay = overlay(sysroot, &[&base, &more])?;
        Ok(Self { guest: Some(Archives { base, more, overlay }), node: None })
    }

    /// That of nodes alone.
    pub fn of_nodes(parts: Parts) -> Self {
        Self { guest: None, node: Some(parts) }
    }

    /// The same, for nodes as well.
    pub fn and_nodes(self, parts: Parts) -> Self {
        Self { node: Some(parts), ..self }
    }

    /// What nodes boot from besides.
    pub fn node(&self) -> Result<&Parts> {
        self.node.as_ref().context("nothing was made for nodes")
    }

    /// Writes it as one file, in the order in which the kernel unpacks it.
    pub fn write(&self, tools: Tools, to: &Path) -> Result<()> {
        let mut file = std::fs::File::create(to)?;
        for archive in self.archives(tools)? {
            let mut from = std::fs::File::open(archive)
                .with_context(|| format!("cannot open {}", archive.display()))?;
            std::io::copy(&mut from, &mut file)?;
        }
        file.flush()?;
        Ok(())
    }

    fn archives(&self, tools: Tools) -> Result<Vec<&PathBuf>> {
        if tools == Tools::Node {
            return Ok(self.node()?.archives.iter().collect());
        }
        let Archives { base, more, overlay } =
            self.guest.as_ref().context("nothing was made for guests without a disk")?;
        Ok(match tools {
            Tools::Large => vec![base, more, overlay],
            Tools::Small | Tools::Node => vec![base, overlay],
        })
    }
}

fn base(sysroot: &Sysroot) -> Result<PathBuf> {
    let script = [COPY, MAKE_BASE].concat();
    let args: Vec<&str> = PROGRAMS.iter().chain(&["--"]).chain(MODULES).copied().collect();
    archive(sysroot, "base", "make the guests' base", &script, &[&sysroot.kernel().release], &args)
}

fn more(sysroot: &Sysroot, base: &Path) -> Result<PathBuf> {
    let script = [COPY, MAKE_MORE].concat();
    let lists = [MORE_PROGRAMS, FOLDERS, FILES, MORE_MODULES];
    let args: Vec<&str> = lists.join(&"--");
    let first = [sysroot.kernel().release.as_str(), file_name(base)?];
    archive(sysroot, "more", "make the large guests' tools", &script, &first, &args)
}

/// An archive of the cache, named by what it is made from: the sysroot, the script and its arguments.
pub fn archive(
    sysroot: &Sysroot,
    what: &str,
    title: &str,
    script: &str,
    first: &[&str],
    args: &[&str],
) -> Result<PathBuf> {
    let mut key = Fingerprint::default();
    key.add(sysroot.name()).add(script);
    for part in first.iter().chain(args) {
        key.add(part);
    }
    let cache = places::cache()?;
    let name = format!("{what}-{}", key.name());
    let archive = cache.join(format!("{name}.cpio"));
    if archive.exists() {
        return Ok(archive);
    }
    let _lock = lock::take(&cache.join("base.lock"), "makes the guests' base")?;
    if archive.exists() {
        return Ok(archive);
    }
    let dir = cache.join(format!("{name}.part"));
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    let step = Step::start(title, &cache.join(format!("{name}.log")))?;
    step.run(
        &sysroot
            .chroot()
            .bind(&dir, "base")
            .bind(&cache, "cache")
            .shell(script)
            .arg("make-base")
            .args(first)
            .args(args),
    )?;
    std::fs::rename(dir.join("archive.cpio"), &archive)
        .with_context(|| format!("cannot create {}", archive.display()))?;
    std::fs::remove_dir_all(&dir)?;
    step.done();
    Ok(archive)
}

fn file_name(archive: &Path) -> Result<&str> {
    archive.file_name().and_then(|name| name.to_str()).context("an archive without a name")
}

/// The clone's own files: `atom-guest` is the first process, `atomctl` is in the search path, modules are in
/// `/lib/atom`, the payload versions that exist for tests alone are in `/lib/atom/test`, and modules with failpoints, which
/// `modprobe` does not know, in `/lib/atom/failpoints`. The seed of what scenarios
/// leave to chance is in `/etc/atom/seed`, if there is one in the variable [`SEED`].
fn overlay(sysroot: &Sysroot, below: &[&Path]) -> Result<PathBuf> {
    let dir = sysroot.products().join("overlay");
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
    let with_failpoints = programs::path(programs::TOOL_WITH_FAILPOINTS);
    if with_failpoints.exists() {
        put(&with_failpoints, "usr/bin/atomctl-failpoints")?;
    }
    let atom = kbuild::loadable(sysroot, modules::ATOM);
    if atom.exists() {
        put(&atom, "usr/lib/atom/atom.ko")?;
    }
    for module in modules::failpoint_files(sysroot)? {
        put(&module, &format!("usr/lib/atom/failpoints/{}", file_name(&module)?))?;
    }
    for version in modules::payload_versions()? {
        let file = kbuild::loadable(sysroot, &version.object);
        if file.exists() {
            let folder = if version.test { "atom/test" } else { "atom" };
            put(&file, &format!("usr/lib/{folder}/{}.ko", version.object))?;
        }
    }
    for object in [modules::BROKEN, modules::SINGLE, modules::PATCH] {
        let file = kbuild::loadable(sysroot, object);
        if file.exists() {
            put(&file, &format!("usr/lib/atom/test/{object}.ko"))?;
        }
    }
    let rule = places::repository().join(UDEV_RULE);
    if rule.exists() {
        put(&rule, "usr/lib/udev/rules.d/60-atom.rules")?;
    }
    if let Ok(seed) = std::env::var(SEED) {
        let file = tree.join("etc/atom/seed");
        std::fs::create_dir_all(tree.join("etc/atom"))?;
        std::fs::write(&file, seed).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let below = below.iter().map(|archive| file_name(archive)).collect::<Result<Vec<_>>>()?;
    let command = sysroot
        .chroot()
        .bind(&dir, "overlay")
        .bind(&places::cache()?, "cache")
        .shell(MAKE_OVERLAY)
        .arg("make-overlay")
        .arg(&sysroot.kernel().release)
        .args(below);
    anyhow::ensure!(command.passes()?, "this command failed: {command}");
    Ok(dir.join("overlay.cpio"))
}
