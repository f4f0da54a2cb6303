// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Kernel modules, compiled by the kernel's own build system inside the sysroot.
//!
//! The sources of a module are staged into a folder of their own, because Kbuild writes beside them, and because a
//! module is put together from several folders of the clone. Modules that did not change are not touched.

mod kbuild_file;
mod staging;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::fingerprint::Fingerprint;
use crate::kernel::flavour::Flavour;
use crate::lock::{self, Lock};
use crate::places;
use crate::problem::failed;
use crate::progress::Step;
use crate::sysroot::Sysroot;

/// A folder of the clone and where its files go in the staging folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceDir {
    /// The folder on the host.
    pub from: PathBuf,
    /// The folder below the staging folder; empty for the staging folder itself.
    pub to: String,
}

/// A C header of a module's own from which bindgen makes Rust: its constants whose names begin with `ATOM_`, and
/// functions of the kernel. Types come from the `kernel` crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bindings {
    /// The header in the staging folder, as in `nbd/socket.h`. The Rust is put beside it, as `nbd/socket_bindings.rs`,
    /// for the source to include.
    pub header: String,
    /// The functions, which the header only has to make known.
    pub functions: Vec<String>,
}

impl Bindings {
    /// The file that bindgen makes.
    fn made(&self) -> String {
        let stem = self.header.strip_suffix(".h").unwrap_or(&self.header);
        format!("{stem}_bindings.rs")
    }
}

/// What a module is made of.
#[derive(Clone, Debug, Default)]
pub struct ModuleSpec {
    /// The Kbuild object; the loaded module has this name.
    pub object: String,
    /// The Rust file with the crate's root, as in `atom_main.rs`; or a C file where there is no Rust.
    pub root: String,
    /// C files to link in, as in `atom_exports.c`.
    pub c_files: Vec<String>,
    /// Where the files come from.
    pub sources: Vec<SourceDir>,
    /// Conditions for `#[cfg(...)]`, as in `payload_schema="1"`.
    pub cfgs: Vec<String>,
    /// Headers that bindgen turns into Rust first.
    pub bindings: Vec<Bindings>,
    /// A build beside the ordinary one, by the name of its folder; empty: the ordinary one.
    pub flavour: String,
    /// Variables that the source reads with `env!`.
    pub env: Vec<(String, String)>,
    /// Objects of the same build whose exported symbols it uses.
    pub needs: Vec<String>,
}

impl ModuleSpec {
    fn is_rust(&self) -> bool {
        self.root.ends_with(".rs")
    }

    /// What Kbuild makes of the crate, as in `atom_main.o`.
    fn crate_file(&self, extension: &str) -> String {
        Path::new(&self.root).with_extension(extension).display().to_string()
    }
}

/// What to do with the modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Compile them.
    Build,
    /// Have clippy look at them; a warning is an error.
    Clippy,
}

impl Mode {
    fn staging(self, sysroot: &Sysroot, flavour: &str, object: &str) -> PathBuf {
        let dir = match self {
            Mode::Build => "kbuild",
            Mode::Clippy => "kbuild-clippy",
        };
        sysroot.products().join(dir).join(flavour).join(object)
    }

    /// What Kbuild is asked for.
    fn goal(self, spec: &ModuleSpec) -> String {
        match self {
            Mode::Build => "modules".to_owned(),
            // One step of the crate's way to an object, with the lints and, by its flags, without code.
            Mode::Clippy => spec.crate_file("ll"),
        }
    }

    /// The modules that the result is linked against.
    fn links(self, spec: &ModuleSpec) -> &[String] {
        match self {
            Mode::Build => &spec.needs,
            Mode::Clippy => &[],
        }
    }
}

/// Builds the modules and returns the files to load, in the order of the specs. A module that needs others is built
/// after them; the others are built side by side.
pub fn build(specs: &[ModuleSpec], sysroot: &Sysroot, mode: Mode) -> Result<Vec<PathBuf>> {
    let _turn = turn(sysroot, mode)?;
    // There are no lints for C.
    let wanted = specs.iter().filter(|spec| mode == Mode::Build || spec.is_rust());
    let (first, then): (Vec<_>, Vec<_>) = wanted.partition(|spec| spec.needs.is_empty());
    for wave in [first, then] {
        build_side_by_side(wave, sysroot, mode)?;
    }
    Ok(specs.iter().map(|spec| loadable_of(sysroot, &spec.flavour, &spec.object)).collect())
}

/// Keeps two builds of one clone apart: Kbuild does not survive another one in its folder.
fn turn(sysroot: &Sysroot, mode: Mode) -> Result<Lock> {
    let staging = mode.staging(sysroot, "", "");
    std::fs::create_dir_all(&staging)
        .with_context(|| format!("cannot create {}", staging.display()))?;
    lock::take(&staging.join("lock"), "builds kernel modules")
}

/// The file to load for an object that was built for the kernel of this sysroot.
pub fn loadable(sysroot: &Sysroot, object: &str) -> PathBuf {
    loadable_of(sysroot, "", object)
}

/// The same of a flavour.
pub fn loadable_of(sysroot: &Sysroot, flavour: &str, object: &str) -> PathBuf {
    sysroot.products().join("modules").join(flavour).join(format!("{object}.ko"))
}

fn build_side_by_side(specs: Vec<&ModuleSpec>, sysroot: &Sysroot, mode: Mode) -> Result<()> {
    let workers = std::thread::available_parallelism()?.get().min(specs.len());
    let queue = Mutex::new(VecDeque::from(specs));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    while let Some(spec) = next() {
                        build_one(spec, sysroot, mode)?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a build thread panicked")))
            })
            .collect()
    });
    results.into_iter().collect()
}

fn build_one(spec: &ModuleSpec, sysroot: &Sysroot, mode: Mode) -> Result<()> {
    let dir = mode.staging(sysroot, &spec.flavour, &spec.object);
    let rust_flags = sysroot.flavour().map_or(&[][..], Flavour::rust_flags);
    let staged = staging::stage(spec, &dir, &kbuild_file::text(spec, mode, rust_flags))
        .with_context(|| format!("cannot stage the sources of {}", spec.object))?;
    let mut state = Fingerprint::default();
    state.add(sysroot.name()).add(staged.name());
    for object in mode.links(spec) {
        let symbols = mode.staging(sysroot, &spec.flavour, object).join("Module.symvers");
        state.add(
            std::fs::read(&symbols)
                .with_context(|| format!("cannot read {}", symbols.display()))?,
        );
    }
    let stamp = dir.join(".built");
    let product = loadable_of(sysroot, &spec.flavour, &spec.object);
    let built = std::fs::read_to_string(&stamp).is_ok_and(|text| text == state.name());
    if built && (mode == Mode::Clippy || product.exists()) {
        return Ok(());
    }
    make(spec, sysroot, mode, &dir)?;
    if mode == Mode::Build {
        let made = dir.join(format!("{}.ko", spec.object));
        let stripped = dir.join(format!("{}.stripped", spec.object));
        let bytes = std::fs::read(&stripped)
            .with_context(|| format!("Kbuild did not make {}", made.display()))?;
        places::write_whole(&product, &bytes)?;
    }
    places::write_whole(&stamp, state.name().as_bytes())
}

fn make(spec: &ModuleSpec, sysroot: &Sysroot, mode: Mode, dir: &Path) -> Result<()> {
    let object = &spec.object;
    let verb = match mode {
        Mode::Build => "build",
        Mode::Clippy => "check",
    };
    let shown = Path::new(&spec.flavour).join(object).display().to_string();
    let log =
        sysroot.products().join("logs").join(format!("{verb}-{}.log", shown.replace('/', "-")));
    let step = Step::start(format!("{verb} {shown}.ko"), &log)?;
    let mut chroot = sysroot.chroot().bind(dir, object);
    let mut symbols = Vec::new();
    for need in mode.links(spec) {
        chroot = chroot.bind(&mode.staging(sysroot, &spec.flavour, need), need);
        symbols.push(format!("/mnt/{need}/Module.symvers"));
    }
    let mut command = chroot
        .command("make")
        .args(["-C", sysroot.kernel_build()])
        .arg(format!("M=/mnt/{object}"))
        .arg(format!("KERNELRELEASE={}", sysroot.kernel().release))
        .arg(format!("KBUILD_EXTRA_SYMBOLS={}", symbols.join(" ")));
    if mode == Mode::Clippy {
        command = command.arg("CLIPPY=1");
    }
    step.run(&command.arg(mode.goal(spec)))?;
    if mode == Mode::Build {
        step.run(&chroot.command("strip").args([
            "--strip-debug",
            "-o",
            &format!("/mnt/{object}/{object}.stripped"),
            &format!("/mnt/{object}/{object}.ko"),
        ]))?;
    }
    step.done();
    let output =
        std::fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let warnings = warnings(&output);
    if warnings.is_empty() {
        return Ok(());
    }
    if mode == Mode::Clippy {
        return Err(failed(
            format!("{shown} has warnings"),
            warnings,
            "fix them; the kernel side is kept free of warnings",
        ));
    }
    eprintln!("{warnings}");
    Ok(())
}

/// What the compiler says because it makes no code, and how many such warnings there were.
const OF_NO_CODE: [&str; 2] = ["warning: ignoring emit path", "warning: 1 warning emitted"];

/// The compiler's warnings in a build's output: each begins with `warning` and ends with an empty line.
fn warnings(output: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for line in output.lines().filter(|line| !OF_NO_CODE.iter().any(|of| line.starts_with(of))) {
        inside = (inside || line.starts_with("warning")) && !line.trim().is_empty();
        if inside {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_cut_out_of_the_output_as_a_whole() {
        let output = "  RUSTC\nwarning: unused\n --> a.rs:1\n  |\n\n  LD\n";
        assert_eq!(warnings(output), "warning: unused\n --> a.rs:1\n  |\n");
        assert_eq!(warnings("  RUSTC\n"), "");
        let without_code =
            "warning: ignoring emit path because of x\n\nwarning: 1 warning emitted\n\n";
        assert_eq!(warnings(without_code), "");
    }
}
