// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Making a debug kernel: once for each configuration, source and recipe, and then kept in the cache.
//!
//! Its folder appears as `/mnt/kernel` in the sysroot of the stock kernel, which has its source and the compilers. KASAN
//! in Rust needs all of it to be compiled by clang, and so LLVM's linker and tools, which are in the folder, because
//! nobody needs them but who asks for such a kernel.

use std::path::Path;

use anyhow::{Context, Result};

use super::flavour::Flavour;
use super::Kernel;
use crate::fingerprint::Fingerprint;
use crate::problem::failed;
use crate::progress::Step;
use crate::sysroot::chroot::Chroot;
use crate::sysroot::stages::Stages;
use crate::sysroot::Sysroot;
use crate::{host, lock, places};

/// To be raised when the stages change in a way that the configuration does not show.
const VERSION: u32 = 1;

/// Space for the tools and the build, in GiB.
const SPACE: u64 = 5;

/// The stage whose stamp says that a kernel is complete.
const LAST_STAGE: &str = "complete";

/// What guests boot from, in the folder.
pub const IMAGE: &str = "image";

/// Where the folder is inside.
const HERE: &str = "/mnt/kernel";

/// LLVM's linker and tools, in the version of the sysroot's clang. They are unpacked and not installed.
const FETCH_TOOLS: &str = r#"
cd /mnt/kernel; rm -rf tools; mkdir -p tools/bin; cd tools
clang=$(readlink -f /usr/bin/clang); version=${clang#*/llvm-}; version=${version%%/*}
apt-get download "lld-$version" "llvm-$version"
for package in *.deb; do dpkg-deb -x "$package" .; done
rm *.deb
for tool in ld.lld llvm-ar llvm-nm llvm-objcopy llvm-ranlib llvm-readelf llvm-strip; do
  ln -s "../usr/lib/llvm-$version/bin/$tool" bin/
  "bin/$tool" --version
done
# LLVM's own is linked to libraries that nothing else here needs.
ln -s /usr/bin/objdump bin/llvm-objdump
for tool in clang clang++; do ln -s "/usr/lib/llvm-$version/bin/$tool" bin/; done
"#;

/// What describes x86-64 to rustc allows some sanitizers, and not the one that KCSAN is made of. This makes one that does; the
/// source itself stays as it is.
const ALLOW_SANITIZER: &str = r#"
theirs=$1/scripts/generate_rust_target.rs ours=/mnt/kernel/generate_rust_target.rs
sed 's/\["kcfi", "kernel-address"\]/["kcfi", "kernel-address", "thread"]/' "$theirs" > "$ours"
grep -q '"kernel-address", "thread"' "$ours"
"#;

/// What guests boot from, laid out as in the stock kernel's packages.
const INSTALL: &str = r#"
release=$1; cd /mnt/kernel; rm -rf image/*
mkdir -p image/usr/lib
ln -s usr/lib image/lib
make -s -C build KERNELRELEASE="$release" INSTALL_MOD_PATH=/mnt/kernel/image INSTALL_MOD_STRIP=1 modules_install
cp "$(make -s -C build KERNELRELEASE="$release" image_name | tail -n1 | sed 's,^,build/,')" image/vmlinuz
rm -f "image/usr/lib/modules/$release/build" "image/usr/lib/modules/$release/source"
"#;

/// The sysroot `stock` with the kernel of this flavour in the place of its own; it is built when it is not there.
pub fn open(stock: Sysroot, flavour: Flavour) -> Result<Sysroot> {
    let config = flavour.config();
    let mut key = Fingerprint::default();
    key.add(VERSION.to_le_bytes()).add(stock.name()).add(&config).add(FETCH_TOOLS);
    key.add(ALLOW_SANITIZER).add(INSTALL);
    let cache = places::cache()?;
    let dir = cache.join(format!("kernel-{}-{}", flavour.name(), key.name()));
    let release = release(stock.kernel(), flavour);
    let source = stock.kernel_source();
    let sysroot = stock.with_kernel(&dir, flavour, &release);
    let stages = Stages::of(&dir);
    if stages.is_done(LAST_STAGE) {
        return Ok(sysroot);
    }
    let _lock = lock::take(
        &cache.join(format!("kernel-{}.lock", flavour.name())),
        &format!("builds the {} kernel", flavour.name()),
    )?;
    host::require_space(&cache, SPACE, "a debug kernel is built from its source")?;
    let image = dir.join(IMAGE);
    std::fs::create_dir_all(&image)
        .with_context(|| format!("cannot create {}", image.display()))?;
    eprintln!("kernel: {release}, in {}", dir.display());
    let inside = sysroot.chroot();
    stages.run("tools", "fetch LLVM's linker and tools", |step| {
        step.run(&inside.shell(FETCH_TOOLS))
    })?;
    let inside = if flavour == Flavour::Kcsan {
        stages.run("target", "describe the processor to rustc", |step| {
            step.run(&inside.shell(ALLOW_SANITIZER).args(["target", &source]))
        })?;
        let described = "generate_rust_target.rs";
        inside.cover(&dir.join(described), &format!("{source}/scripts/{described}"))
    } else {
        inside
    };
    let make = |goals: &[&str]| {
        let jobs = std::thread::available_parallelism().map_or(1, |count| count.get());
        inside
            .command("nice")
            .args(["make", "-C", &source, &format!("O={HERE}/build"), &format!("-j{jobs}")])
            .arg(format!("KERNELRELEASE={release}"))
            .args(goals)
    };
    stages.run("configure", "configure it", |step| {
        places::write_whole(&dir.join("wanted.config"), config.as_bytes())?;
        std::fs::create_dir_all(dir.join("build"))?;
        let all = format!("KCONFIG_ALLCONFIG={HERE}/wanted.config");
        step.run(&make(&[&all, "allnoconfig"]))?;
        check(&config, &dir.join("build/.config"))
    })?;
    stages.run(
        "build",
        &format!("build {release}, which takes 20 minutes of 2 processors"),
        |step| step.run(&make(&["bzImage", "modules"])),
    )?;
    stages.run("install", "install it", |step| install(&inside, &release, step))?;
    places::write_whole(&dir.join("stamps").join(LAST_STAGE), b"")?;
    Ok(sysroot)
}

/// What `uname -r` says on it.
fn release(stock: &Kernel, flavour: Flavour) -> String {
    let numbers = stock.release.split(['+', '-']).next().unwrap_or_default();
    format!("{numbers}-atom-{}", flavour.name())
}

fn install(inside: &Chroot, release: &str, step: &Step) -> Result<()> {
    step.run(&inside.shell(INSTALL).args(["install", release]))
}

/// The options that a configuration wants: names and values; an option that is to be off has the value `n`.
pub fn wanted(config: &str) -> impl Iterator<Item = (&str, &str)> {
    config.lines().filter_map(|line| {
        if let Some(name) = line.strip_prefix("# ").and_then(|l| l.strip_suffix(" is not set")) {
            return Some((name, "n"));
        }
        line.split_once('=').filter(|(name, _)| name.starts_with("CONFIG_"))
    })
}

/// An option that the kernel's own rules have overruled would be missed only when a defect is not found.
fn check(config: &str, made: &Path) -> Result<()> {
    let text =
        std::fs::read_to_string(made).with_context(|| format!("cannot read {}", made.display()))?;
    let missing = missing(config, &text);
    if missing.is_empty() {
        return Ok(());
    }
    Err(failed(
        "the kernel cannot be configured as it is wanted",
        format!("its own rules do not allow {}", missing.join(", ")),
        "look for what these options depend on in the kernel's Kconfig files, and add it to xtask/src/kernel/config",
    ))
}

/// What is wanted and is not so in a complete configuration.
fn missing(config: &str, made: &str) -> Vec<String> {
    let made: std::collections::HashMap<&str, &str> = wanted(made).collect();
    wanted(config)
        .filter(|(name, value)| made.get(name).copied().unwrap_or("n") != *value)
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_and_not_so_is_named() {
        let config =
            "# A comment.\nCONFIG_A=y\nCONFIG_B=12\n# CONFIG_C is not set\n# CONFIG_D is not set\n";
        let made = "CONFIG_A=y\nCONFIG_B=13\nCONFIG_C=y\n";
        assert_eq!(missing(config, made), ["CONFIG_B=12", "CONFIG_C=n"]);
        assert!(missing(config, "CONFIG_A=y\nCONFIG_B=12\n").is_empty());
        assert_eq!(missing("CONFIG_E=y", ""), ["CONFIG_E=y"]);
    }

    #[test]
    fn its_release_has_the_numbers_of_the_stock_kernels() {
        let stock = Kernel {
            release: "7.2.12+deb13-cloud-amd64".to_owned(),
            version: "7.2.12-1".to_owned(),
            source: "linux-source-7.2".to_owned(),
        };
        assert_eq!(release(&stock, Flavour::Debug), "7.2.12-atom-debug");
    }
}
