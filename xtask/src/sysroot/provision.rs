// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Making a sysroot, stage by stage.

use std::path::Path;

use anyhow::{Context, Result};

use super::{archive, recipe, Sysroot, LAST_STAGE};
use crate::command_line::CommandLine;
use crate::host;
use crate::kernel::{offer, prepare, symbols};
use crate::places;
use crate::progress::Step;

/// Runs every stage that has not been done.
pub fn provision(sysroot: &Sysroot, mirror: &str) -> Result<()> {
    let stages = sysroot.stages();
    let release = &sysroot.kernel.release;
    stages.run("bootstrap", "install a minimal Debian", |step| bootstrap(sysroot, mirror, step))?;
    stages.run("packages", "install compiler, tools and QEMU", |step| {
        install(sysroot, recipe::packages().map(str::to_owned).collect(), step)
    })?;
    stages
        .run("kernel", &format!("fetch kernel {release}"), |step| kernel_packages(sysroot, step))?;
    prepare::check_config(sysroot)?;
    prepare::check_compiler(sysroot)?;
    stages.run("source", "unpack the kernel source", |step| prepare::unpack(sysroot, step))?;
    stages.run("prepare", "prepare the kernel for Rust modules", |step| {
        prepare::prepare(sysroot, step)
    })?;
    symbols::check(sysroot)?;
    places::write_whole(&sysroot.dir.join("stamps").join(LAST_STAGE), b"")
}

fn bootstrap(sysroot: &Sysroot, mirror: &str, step: &Step) -> Result<()> {
    let root = sysroot.root();
    if root.exists() {
        // An interrupted bootstrap leaves a tree that cannot be told from a good one.
        host::require_nothing_mounted(&root)?;
        std::fs::remove_dir_all(&root)
            .with_context(|| format!("cannot remove {}", root.display()))?;
    }
    step.run(
        &debian_tree()?
            .arg("--skip=cleanup/apt")
            .arg(sysroot.suite.sources[0])
            .arg(&root)
            .args(sysroot.suite.source_lines(mirror)),
    )?;
    write_inside(&root, "usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")?;
    step.run(&CommandLine::new("chmod").arg("755").arg(root.join("usr/sbin/policy-rc.d")))
}

/// What makes a Debian tree of a suite; the suite's name, the folder and the sources are to be added. It is in namespaces of
/// its own, and killed with us: its processes and what it mounts in the tree go away together, so that a run that was
/// interrupted leaves nothing but files.
pub fn debian_tree() -> Result<CommandLine> {
    let shared = archive::host_settings()?.into_iter().map(|line| format!("--aptopt={line}"));
    Ok(CommandLine::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "mmdebstrap"])
        .args(shared)
        .args(["--mode=root", "--variant=minbase", "--architectures=amd64"])
        .arg(format!("--keyring={}", offer::KEYRING))
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        .arg("--aptopt=Acquire::Languages \"none\"")
        .arg("--aptopt=APT::Sandbox::User \"root\"")
        .arg("--dpkgopt=force-unsafe-io"))
}

fn install(sysroot: &Sysroot, packages: Vec<String>, step: &Step) -> Result<()> {
    // The chroot resolves names and trusts certificates as the host does.
    for file in ["etc/resolv.conf", "etc/hosts"] {
        if let Ok(text) = std::fs::read_to_string(Path::new("/").join(file)) {
            write_inside(&sysroot.root(), file, &text)?;
        }
    }
    let chroot = sysroot.chroot();
    step.run(&chroot.command("dpkg").args(["--configure", "-a"]))?;
    step.run(
        &chroot
            .command("apt-get")
            .args(["install", "-y", "--no-install-recommends"])
            .args(packages),
    )?;
    step.run(&chroot.command("apt-get").arg("clean"))
}

fn kernel_packages(sysroot: &Sysroot, step: &Step) -> Result<()> {
    let kernel = &sysroot.kernel;
    let exact = |name: &str| format!("{name}={}", kernel.version);
    install(
        sysroot,
        vec![exact(&format!("linux-headers-{}", kernel.release)), exact(&kernel.source)],
        step,
    )?;
    // Older kernels have all in the image package; newer ones split it in three.
    let dir = sysroot.kernel_image_dir();
    let debs: Vec<String> = ["image", "binary", "modules"]
        .iter()
        .map(|kind| exact(&format!("linux-{kind}-{}", kernel.release)))
        .collect();
    step.run(
        &sysroot
            .chroot()
            .shell(
                r#"dir=$0; rm -rf "$dir"; mkdir -p "$dir"; cd "$dir"
for package in "$@"; do
  name=${package%%=*}
  if apt-cache show "$package" >/dev/null 2>&1; then
    apt-get download "$package"
    dpkg-deb -x "$name"_*.deb .
    rm "$name"_*.deb
  fi
done
# Where the files are depends on the kernel's age.
if [ -d lib/modules ]; then mkdir -p usr/lib; mv lib/modules usr/lib/; fi
for image in boot/vmlinuz-* usr/lib/modules/*/vmlinuz; do
  if [ -f "$image" ]; then cp "$image" vmlinuz; fi
done
test -f vmlinuz
# Whichever of the two folders this kmod was made for, it finds the modules.
ln -s usr/lib lib
depmod -b "$dir" "$(ls usr/lib/modules)""#,
            )
            .arg(dir)
            .args(debs),
    )
}

fn write_inside(root: &Path, file: &str, text: &str) -> Result<()> {
    let path = root.join(file);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
