// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The root file system of nodes: a real Debian with systemd, as people have it, and nothing of Atom.
//!
//! It is made once, by mmdebstrap from the sysroot's suite and archive, and lies in the cache as a file with an ext4, named
//! by what goes into it. No machine writes to it: each has an overlay or a copy of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{base, HERE};
use crate::fingerprint::Fingerprint;
use crate::progress::Step;
use crate::sysroot::{archive, provision, Sysroot};
use crate::vm::initramfs::COPY;
use crate::{host, lock, places};

/// Packages besides the essential ones; what these recommend is left out.
const PACKAGES: &[&str] = &[
    "systemd-sysv",
    "udev",
    "kmod",
    "openssh-server",
    // Ansible's modules are written in it.
    "python3",
    "rpm",
    "iproute2",
    "procps",
    "fio",
    "e2fsprogs",
    "xfsprogs",
    // Who makes an initramfs of a node's own. Debian has dracut without its scripts as a package beside the other.
    "initramfs-tools",
    "dracut-core",
];

/// Files of packages that no program reads.
const LEFT_OUT: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
];

/// Modules of the kernel, with all that they need. With all of the thousands, `depmod`, which every package of a module
/// calls, would take an emulated processor a minute.
const MODULES: &[&str] = &[
    "virtio_blk",
    "virtio_net",
    "virtio_scsi",
    "overlay",
    "loop",
    "xfs",
    "dm_mod",
    "nbd",
    "brd",
    "null_blk",
    "autofs4",
    "configfs",
];

/// Units that a node does without. An emulated processor starts few programs each second.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-tmpfiles-clean.timer",
    "xfs_scrub_all.timer",
    "getty.target",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-ask-password-wall.path",
    "systemd-ask-password-console.path",
    "modprobe@configfs.service",
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "modprobe@loop.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "sys-fs-fuse-connections.mount",
    "proc-sys-fs-binfmt_misc.automount",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-machine-id-commit.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-sysusers.service",
    "systemd-update-done.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-logind.service",
    "systemd-user-sessions.service",
    "ldconfig.service",
    "ssh.socket",
    "sshd-keygen.service",
];

/// Programs that make units at boot, for what a node does not have.
const NO_GENERATORS: &[&str] = &[
    "systemd-debug-generator",
    "systemd-getty-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-rc-local-generator",
    "systemd-run-generator",
    "systemd-ssh-generator",
    "systemd-system-update-generator",
    "systemd-sysv-generator",
    "systemd-tpm2-generator",
];

/// MiB of the file system. The file is sparse.
const MIB: u32 = 3072;

/// Makes `/mnt/node/image` of the tree in `/mnt/node/root`, which is Debian's. What a machine is told by the host is in the
/// folder `here`, which its initramfs fills.
const FINISH: &str = r#"
release=$1 here=$2; shift 2
cd /mnt/node/root
mkdir -p "usr/lib/modules/$release" packages
while [ "$1" != -- ]; do add_modules "$1"; shift; done; shift
for list in modules.builtin modules.order modules.builtin.modinfo; do
  cp "/opt/kernel/usr/lib/modules/$release/$list" "usr/lib/modules/$release/" || touch "usr/lib/modules/$release/$list"
done
depmod -b /mnt/node/root "$release"
cp /opt/kernel/vmlinuz "boot/vmlinuz-$release"
while [ "$1" != -- ]; do ln -sf /dev/null "etc/systemd/system/$1"; shift; done; shift
mkdir -p etc/systemd/system-generators
for generator in "$@"; do ln -s /dev/null "etc/systemd/system-generators/$generator"; done
cat > etc/systemd/system/atom-agent.service <<EOF
[Unit]
Description=The host's hand in this node
DefaultDependencies=no
IgnoreOnIsolate=yes
[Service]
Environment=PATH=/usr/sbin:/usr/bin HOME=/root
ExecStart=$here/atom-guest agent
OOMScoreAdjust=-900
[Install]
WantedBy=sysinit.target
EOF
mkdir -p etc/systemd/system/sysinit.target.wants etc/systemd/system/multi-user.target.wants
ln -sf ../atom-agent.service etc/systemd/system/sysinit.target.wants/
ln -sf /usr/lib/systemd/system/multi-user.target etc/systemd/system/default.target
ln -sf /usr/lib/systemd/system/ssh.service etc/systemd/system/multi-user.target.wants/
ln -sf "$here/atom-guest" init
mkdir -p etc/systemd/journald.conf.d etc/ssh/sshd_config.d etc/systemd/system.conf.d
printf '[Journal]\nStorage=volatile\nForwardToSyslog=no\n' > etc/systemd/journald.conf.d/node.conf
rm -f etc/ssh/ssh_host_*
cat > etc/ssh/sshd_config.d/node.conf <<EOF
HostKey $here/host_key
AuthorizedKeysFile $here/authorized_keys
UsePAM no
UseDNS no
EOF
printf '127.0.0.1 localhost\n' > etc/hosts
printf 'node\n' > etc/hostname
# Each machine has another one by its kernel command line.
printf '%032d\n' 1 > etc/machine-id
: > etc/fstab
ln -sf /proc/mounts etc/mtab
# How the tree was made is no setting of the node: its packages are whole, and dpkg flushes what it writes.
rm -f etc/dpkg/dpkg.cfg.d/99mmdebstrap etc/apt/apt.conf.d/99mmdebstrap
rm -rf var/cache/apt/* var/lib/apt/lists/* var/cache/debconf/*-old usr/lib/udev/hwdb.d usr/lib/udev/hwdb.bin
"#;

/// After that, when everything is in the tree.
const MAKE: &str = r#"
cd /mnt/node
rm -f image
mke2fs -q -t ext4 -L node -d root -E lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0 image "$1M"
"#;

/// The image for nodes with the sysroot's kernel; it is made when the cache has none.
pub fn get(sysroot: &Sysroot) -> Result<PathBuf> {
    let release = &sysroot.kernel().release;
    let stand_ins = [base::spec(release), base::control(release)];
    let mut key = Fingerprint::default();
    key.add(sysroot.name()).add(COPY).add(FINISH).add(MAKE).add(MIB.to_le_bytes()).add(HERE);
    key.add(base::INSTALL).add(stand_ins.concat());
    for list in [PACKAGES, LEFT_OUT, MODULES, MASKED, NO_GENERATORS] {
        key.add(list.join(" "));
    }
    let cache = places::cache()?;
    let name = format!("node-{}", key.name());
    let image = cache.join(format!("{name}.img"));
    if image.exists() {
        return Ok(image);
    }
    let _lock =
        lock::take(&cache.join(format!("{name}.lock")), "makes the nodes' root file system")?;
    if image.exists() {
        return Ok(image);
    }
    let dir = cache.join(format!("{name}.part"));
    if dir.exists() {
        // Whoever made it was interrupted.
        host::require_nothing_mounted(&dir)?;
        std::fs::remove_dir_all(&dir)
            .with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    std::fs::create_dir_all(&dir)?;
    let step = Step::start("make the nodes' root file system", &cache.join(format!("{name}.log")))?;
    make(sysroot, &dir, &stand_ins, &step)?;
    std::fs::rename(dir.join("image"), &image)
        .with_context(|| format!("cannot create {}", image.display()))?;
    std::fs::remove_dir_all(&dir)?;
    step.done();
    Ok(image)
}

fn make(sysroot: &Sysroot, dir: &Path, [spec, control]: &[String; 2], step: &Step) -> Result<()> {
    let suite = sysroot.suite();
    let left_out = LEFT_OUT.iter().map(|path| format!("--dpkgopt=path-exclude={path}"));
    step.run(
        &provision::debian_tree()?
            .args(left_out)
            .arg(format!("--include={}", PACKAGES.join(",")))
            .arg(suite.sources[0])
            .arg(dir.join("root"))
            .args(suite.source_lines(&archive::find()?)),
    )?;
    let inside = sysroot.chroot().bind(dir, "node");
    let release = &sysroot.kernel().release;
    step.run(
        &inside
            .shell(&[COPY, FINISH].concat())
            .args(["finish-node", release, HERE])
            .args(MODULES)
            .arg("--")
            .args(MASKED)
            .arg("--")
            .args(NO_GENERATORS),
    )?;
    std::fs::write(dir.join("base.spec"), spec)?;
    std::fs::write(dir.join("control"), control)?;
    step.run(&inside.shell(base::INSTALL))?;
    step.run(&inside.shell(MAKE).args(["make-image", &MIB.to_string()]))
}
