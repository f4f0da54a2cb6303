// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The sysroot: a Debian tree with a stock kernel, its headers and source, its compiler, and QEMU.
//!
//! Everything that builds or runs kernel code comes from it, so that it is the same on every host. Sysroots live in
//! the cache, are named by what goes into them and never change once complete, so all clones share them without a
//! lock; only their making is locked.

pub mod archive;
pub mod chroot;
pub mod provision;
pub mod recipe;
pub mod stages;
pub mod suite;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;
use crate::kernel::choose::{self, Choice};
use crate::kernel::flavour::Flavour;
use crate::kernel::{checked, offer, Kernel};
use crate::problem::refused;
use crate::{host, lock, places};
use chroot::Chroot;
use stages::Stages;
use suite::Suite;

/// The stage whose stamp says that a sysroot is complete.
const LAST_STAGE: &str = "complete";

/// Space for a first sysroot, in GiB.
const SPACE: u64 = 6;

/// A complete sysroot.
#[derive(Clone, Debug)]
pub struct Sysroot {
    dir: PathBuf,
    suite: &'static Suite,
    kernel: Kernel,
    checked: Option<Checked>,
}

/// A debug kernel in the place of the stock one.
#[derive(Clone, Debug)]
struct Checked {
    dir: PathBuf,
    flavour: Flavour,
}

/// What a sysroot is wanted for.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Target {
    /// The Debian suite whose kernel and compiler are used.
    #[arg(long, default_value = suite::SUITES[0].name, global = true)]
    pub suite: String,
    /// The kernel to build for, instead of the newest of a tested series: a release of the archive's, or `debug` or `kcsan`
    /// for one of the same source that looks for defects, which takes 20 minutes to build once.
    #[arg(long, value_name = "RELEASE", global = true)]
    pub kernel: Option<String>,
}

impl Target {
    /// The debug kernel that is asked for.
    pub fn flavour(&self) -> Option<Flavour> {
        self.kernel.as_deref().and_then(Flavour::named)
    }

    /// The release of the archive's that is asked for.
    fn release(&self) -> Option<&str> {
        self.kernel.as_deref().filter(|word| Flavour::named(word).is_none())
    }
}

/// The remembered answer of the archive.
#[derive(Serialize, Deserialize)]
struct Remembered {
    kernel: Kernel,
}

impl Sysroot {
    /// Finds the sysroot for `target`, and makes it when it is not there.
    pub fn open(target: &Target) -> Result<Self> {
        Self::open_or_refresh(target, false)
    }

    /// As [`Sysroot::open`]; with `refresh` the archive is asked again for a newer kernel.
    pub fn open_or_refresh(target: &Target, refresh: bool) -> Result<Self> {
        let stock = Self::of_stock_kernel(target, refresh)?;
        match target.flavour() {
            None => Ok(stock),
            Some(flavour) => checked::open(stock, flavour),
        }
    }

    fn of_stock_kernel(target: &Target, refresh: bool) -> Result<Self> {
        let suite = Suite::named(&target.suite)?;
        host::check()?;
        let cache = places::cache()?;
        let memory = cache.join(format!(
            "choice-{}-{}.json",
            suite.name,
            target.release().unwrap_or("newest-tested")
        ));
        if !refresh {
            if let Some(kernel) = recall(&memory) {
                let sysroot = Self::at(&cache, suite, kernel);
                if sysroot.is_complete() {
                    chroot::write_script(&sysroot.root())?;
                    return Ok(sysroot);
                }
            }
        }
        let _lock = lock::take(
            &cache.join("provision.lock"),
            &format!("makes the {} sysroot", suite.name),
        )?;
        host::require_space(
            &cache,
            SPACE,
            "a sysroot holds a Debian tree, a compiler and an unpacked kernel source",
        )?;
        host::install_missing(&[
            ("mmdebstrap", Path::new("/usr/bin/mmdebstrap")),
            ("debian-archive-keyring", Path::new(offer::KEYRING)),
        ])?;
        let mirror = archive::find()?;
        let kernel = match recall(&memory).filter(|_| !refresh) {
            Some(kernel) => kernel,
            None => {
                let choice = ask_the_archive(suite, &mirror, target, &cache)?;
                say(&choice);
                let remembered = Remembered { kernel: choice.kernel };
                places::write_whole(&memory, &serde_json::to_vec_pretty(&remembered)?)?;
                remembered.kernel
            }
        };
        let sysroot = Self::at(&cache, suite, kernel);
        chroot::write_script(&sysroot.root())?;
        if !sysroot.is_complete() {
            eprintln!("sysroot: {}", sysroot.dir.display());
            provision::provision(&sysroot, &mirror)?;
        }
        Ok(sysroot)
    }

    fn at(cache: &Path, suite: &'static Suite, kernel: Kernel) -> Self {
        let mut key = Fingerprint::default();
        key.add(recipe::VERSION.to_le_bytes());
        recipe::packages().chain(suite.sources.iter().copied()).for_each(|part| {
            key.add(part);
        });
        key.add(&kernel.release).add(&kernel.version);
        let name = format!("sysroot-{}-{}-{}", suite.name, kernel.release, key.name());
        Self { dir: cache.join(name), suite, kernel, checked: None }
    }

    /// The same with the debug kernel in the folder `dir`, which says that it is `release`.
    pub fn with_kernel(self, dir: &Path, flavour: Flavour, release: &str) -> Self {
        let kernel = Kernel { release: release.to_owned(), ..self.kernel };
        Self { kernel, checked: Some(Checked { dir: dir.to_owned(), flavour }), ..self }
    }

    /// The flavour of its kernel, if that is a debug kernel.
    pub fn flavour(&self) -> Option<Flavour> {
        self.checked.as_ref().map(|checked| checked.flavour)
    }

    fn is_complete(&self) -> bool {
        self.stages().is_done(LAST_STAGE)
    }

    fn stages(&self) -> Stages {
        Stages::of(&self.dir)
    }

    /// The Debian suite that it was made from.
    pub fn suite(&self) -> &'static Suite {
        self.suite
    }

    /// The kernel that it is for.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Its name, which changes with everything that goes into it.
    pub fn name(&self) -> String {
        let dirs = [Some(&self.dir), self.checked.as_ref().map(|checked| &checked.dir)];
        let names = dirs.into_iter().flatten().filter_map(|dir| dir.file_name());
        names.map(|name| name.to_string_lossy()).collect::<Vec<_>>().join("+")
    }

    /// How many times as long as on the stock kernel something may take.
    pub fn patience(&self) -> u32 {
        self.flavour().map_or(1, Flavour::patience)
    }

    /// Where the clone keeps what it has built for this kernel.
    pub fn products(&self) -> PathBuf {
        match &self.checked {
            None => places::target(),
            Some(checked) => places::target().join(format!("kernel-{}", checked.flavour.name())),
        }
    }

    /// The folder that becomes `/` for its programs.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// A place to run its programs in.
    pub fn chroot(&self) -> Chroot {
        let chroot = Chroot::new(&self.root());
        match &self.checked {
            None => chroot,
            // The kernel's build system takes LLVM's tools for everything, by their plain names.
            Some(checked) => chroot
                .bind(&checked.dir, "kernel")
                .cover(&checked.dir.join(checked::IMAGE), self.kernel_image_dir())
                .env("PATH", format!("/mnt/kernel/tools/bin:{}", chroot::PATH))
                .env("LLVM", "1"),
        }
    }

    /// The unpacked kernel source, as seen inside.
    pub fn kernel_source(&self) -> String {
        format!("/usr/src/{}", self.kernel.source)
    }

    /// The folder that modules are built against, as seen inside.
    pub fn kernel_build(&self) -> &'static str {
        match self.checked {
            None => "/usr/src/build",
            Some(_) => "/mnt/kernel/build",
        }
    }

    /// The kernel's headers package, as seen inside.
    pub fn kernel_headers(&self) -> String {
        format!("/usr/src/linux-headers-{}", self.kernel.release)
    }

    /// The unpacked image and modules packages, as seen inside; a debug kernel's take their place. They are not installed:
    /// their scripts would make an initramfs that nobody uses.
    pub fn kernel_image_dir(&self) -> &'static str {
        "/opt/kernel"
    }

    /// The kernel image, as seen inside.
    pub fn vmlinuz(&self) -> String {
        format!("{}/vmlinuz", self.kernel_image_dir())
    }

    /// The host's path of something inside.
    pub fn outside(&self, inside: &str) -> PathBuf {
        self.root().join(inside.trim_start_matches('/'))
    }
}

fn recall(memory: &Path) -> Option<Kernel> {
    let text = std::fs::read(memory).ok()?;
    let remembered: Remembered = serde_json::from_slice(&text).ok()?;
    Some(remembered.kernel)
}

fn ask_the_archive(suite: &Suite, mirror: &str, target: &Target, cache: &Path) -> Result<Choice> {
    let dir = cache.join(format!("apt-{}", suite.name));
    let packages = offer::packages(suite, mirror, &dir, &dir.join("update.log"))
        .with_context(|| format!("cannot choose a kernel of {}", suite.name))?;
    choose::choose(&packages, target.release()).map_err(|why| {
        refused(
            format!("there is no kernel to build for in {}", suite.name),
            why,
            "name another with --kernel or --suite",
        )
    })
}

fn say(choice: &Choice) {
    eprintln!("kernel: {} ({})", choice.kernel.release, choice.why);
    for note in &choice.notes {
        eprintln!("  note: {note}");
    }
}
