// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What goes into each package: the files, laid out below a folder as they are to lie on a node, and what the package says of
//! itself. The numbers of the interface come from `abi` and from the modules that were built, never from a list.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use atom_abi::version::AbiRange;
use atomctl::module_file::ModuleFile;

use super::signing::Signing;
use super::{packaged, Format};
use crate::command_line::CommandLine;
use crate::modules::{self, Version};
use crate::problem::failed;
use crate::sysroot::Sysroot;
use crate::{kbuild, places, programs};

/// What a package is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Atom, with the interface that it offers.
    Atom {
        /// Major and minor version of the interface.
        abi: (u16, u16),
    },
    /// A payload, with the interface that it needs at least.
    Payload {
        /// Its version, as the module has it.
        version: String,
        /// The name of the module.
        object: String,
        /// Major and minor version of the interface.
        abi: (u16, u16),
    },
    /// The tool and the units.
    Tools,
}

/// A package without a format.
#[derive(Clone, Debug)]
pub struct Content {
    /// What it is for.
    pub kind: Kind,
    /// Its version, as package managers write it.
    pub version: String,
    /// The folder with its files.
    pub stage: PathBuf,
}

/// A file of the clone: where it is below `packaging/`, where it goes on a node, and its mode.
type Plain = (&'static str, &'static str, u32);

const ATOM: &[Plain] = &[("modules-load/atom.conf", "usr/lib/modules-load.d/atom.conf", 0o644)];

const TOOLS: &[Plain] = &[
    ("systemd/atom.service", "usr/lib/systemd/system/atom.service", 0o644),
    ("systemd/atom-recover.service", "usr/lib/systemd/system/atom-recover.service", 0o644),
    ("systemd/atom-volumes.service", "usr/lib/systemd/system/atom-volumes.service", 0o644),
    (
        "systemd/atom-volumes-network.service",
        "usr/lib/systemd/system/atom-volumes-network.service",
        0o644,
    ),
    ("systemd/atom-metrics.service", "usr/lib/systemd/system/atom-metrics.service", 0o644),
    ("systemd/atom-metrics.timer", "usr/lib/systemd/system/atom-metrics.timer", 0o644),
    ("systemd/atom.generator", "usr/lib/systemd/system-generators/atom", 0o755),
    ("systemd/atom.shutdown", "usr/lib/systemd/system-shutdown/atom", 0o755),
    ("preset/90-atom.preset", "usr/lib/systemd/system-preset/90-atom.preset", 0o644),
    ("udev/60-atom.rules", "usr/lib/udev/rules.d/60-atom.rules", 0o644),
    ("dracut/90atom/module-setup.sh", "usr/lib/dracut/modules.d/90atom/module-setup.sh", 0o755),
    ("dracut/90atom/atom-start.sh", "usr/lib/dracut/modules.d/90atom/atom-start.sh", 0o755),
    ("etc/atom.toml", "etc/atom/atom.toml", 0o644),
];

/// Only where Debian's initramfs is.
const TOOLS_OF_DEBIAN: &[Plain] = &[
    ("initramfs-tools/hooks/atom", "usr/share/initramfs-tools/hooks/atom", 0o755),
    (
        "initramfs-tools/scripts/local-top/atom",
        "usr/share/initramfs-tools/scripts/local-top/atom",
        0o755,
    ),
    (
        "initramfs-tools/scripts/local-block/atom",
        "usr/share/initramfs-tools/scripts/local-block/atom",
        0o755,
    ),
];

/// The manual pages, and the completions of each shell in each format: what the program writes itself.
const PAGES: &str = "usr/share/man/man1";
const COMPLETIONS: &[(Format, &str, &str)] = &[
    (Format::Rpm, "bash", "usr/share/bash-completion/completions/atomctl"),
    (Format::Rpm, "zsh", "usr/share/zsh/site-functions/_atomctl"),
    (Format::Rpm, "fish", "usr/share/fish/vendor_completions.d/atomctl.fish"),
    (Format::Deb, "bash", "usr/share/bash-completion/completions/atomctl"),
    (Format::Deb, "zsh", "usr/share/zsh/vendor-completions/_atomctl"),
    (Format::Deb, "fish", "usr/share/fish/vendor_completions.d/atomctl.fish"),
];

/// Folders that packages own.
const TOOLS_FOLDERS: &[&str] = &["etc/atom", "var/lib/atom"];

/// Lays out the files of all packages: of Atom, of these payloads, and of the tools.
pub fn gather(
    sysroot: &Sysroot,
    versions: &[Version],
    signing: Option<&Signing>,
    format: Format,
) -> Result<Vec<Content>> {
    let root = places::target().join("package");
    if root.exists() {
        std::fs::remove_dir_all(&root)
            .with_context(|| format!("cannot empty {}", root.display()))?;
    }
    let mut contents = vec![atom(sysroot, &root, signing)?];
    for version in versions {
        contents.push(payload(sysroot, &root, version, signing)?);
    }
    contents.push(tools(&root, format)?);
    Ok(contents)
}

fn atom(sysroot: &Sysroot, root: &Path, signing: Option<&Signing>) -> Result<Content> {
    let stage = root.join("kmod-atom");
    module(sysroot, &stage, modules::ATOM, signing)?;
    place_all(&stage, ATOM)?;
    let abi = AbiRange::CURRENT;
    Ok(Content {
        kind: Kind::Atom { abi: (abi.major, abi.minor_max) },
        version: version_of_atom()?,
        stage,
    })
}

fn payload(
    sysroot: &Sysroot,
    root: &Path,
    version: &Version,
    signing: Option<&Signing>,
) -> Result<Content> {
    let stage = root.join(format!("kmod-atom-payload-{}", version.name));
    let file = module(sysroot, &stage, &version.object, signing)?;
    let stamp =
        file.stamp.filter(|stamp| stamp.version.as_str() == version.name).ok_or_else(|| {
            failed(
                format!("payload {} cannot be packed", version.name),
                format!("the stamp of {}.ko does not say that it is this version", version.object),
                "build it anew: cargo xtask build",
            )
        })?;
    let abi = stamp.offer.abi;
    Ok(Content {
        kind: Kind::Payload {
            version: version.name.clone(),
            object: version.object.clone(),
            abi: (abi.major, abi.minor_min),
        },
        version: packaged(&version.name),
        stage,
    })
}

fn tools(root: &Path, format: Format) -> Result<Content> {
    let stage = root.join("atom-tools");
    place(&programs::path("atomctl"), &stage.join("usr/bin/atomctl"), 0o755)?;
    place_all(&stage, TOOLS)?;
    if format == Format::Deb {
        place_all(&stage, TOOLS_OF_DEBIAN)?;
    }
    generate(&stage, format)?;
    for folder in TOOLS_FOLDERS {
        create_dir(&stage.join(folder))?;
    }
    Ok(Content { kind: Kind::Tools, version: env!("CARGO_PKG_VERSION").to_owned(), stage })
}

/// Puts a module, which was stripped when it was built, where it goes, and signs it there.
fn module(
    sysroot: &Sysroot,
    stage: &Path,
    object: &str,
    signing: Option<&Signing>,
) -> Result<ModuleFile> {
    let folder = stage.join("usr/lib/modules").join(&sysroot.kernel().release).join("extra/atom");
    let file = folder.join(format!("{object}.ko"));
    place(&kbuild::loadable(sysroot, object), &file, 0o644)?;
    if let Some(signing) = signing {
        signing.sign(sysroot, &file)?;
    }
    ModuleFile::read(&file).map_err(|why| {
        failed(
            format!("{object}.ko cannot be packed"),
            why.to_string(),
            "build it anew: cargo xtask build",
        )
    })
}

/// Has the program write its manual pages and completions.
fn generate(stage: &Path, format: Format) -> Result<()> {
    let atomctl = || CommandLine::new(programs::path("atomctl"));
    let pages = stage.join(PAGES);
    create_dir(&pages)?;
    atomctl().arg("man").arg(&pages).read()?;
    let written =
        std::fs::read_dir(&pages).with_context(|| format!("cannot list {}", pages.display()))?;
    for page in written.flatten() {
        set_mode(&page.path(), 0o644)?;
    }
    for (_, shell, to) in COMPLETIONS.iter().filter(|(of, _, _)| *of == format) {
        let to = stage.join(to);
        if let Some(folder) = to.parent() {
            create_dir(folder)?;
        }
        let script = atomctl().args(["completions", shell]).read()?;
        std::fs::write(&to, script + "\n")
            .with_context(|| format!("cannot write {}", to.display()))?;
        set_mode(&to, 0o644)?;
    }
    Ok(())
}

fn place_all(stage: &Path, files: &[Plain]) -> Result<()> {
    let packaging = places::repository().join("packaging");
    files
        .iter()
        .try_for_each(|(from, to, mode)| place(&packaging.join(from), &stage.join(to), *mode))
}

fn place(from: &Path, to: &Path, mode: u32) -> Result<()> {
    if let Some(folder) = to.parent() {
        create_dir(folder)?;
    }
    std::fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    set_mode(to, mode)
}

fn set_mode(file: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(file, Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", file.display()))
}

/// Makes a folder as packages have it, whatever the umask is.
fn create_dir(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_dir(parent)?;
    }
    std::fs::create_dir(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    set_mode(folder, 0o755)
}

/// Atom's version, as its source says it.
fn version_of_atom() -> Result<String> {
    let path = places::repository().join("atom/atom_main.rs");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    version_in(&text)
        .map(str::to_owned)
        .with_context(|| format!("{} has no line with `const VERSION: &str`", path.display()))
}

fn version_in(source: &str) -> Option<&str> {
    source
        .lines()
        .find_map(|line| line.strip_prefix("const VERSION: &str = \"")?.strip_suffix("\";"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_atom_is_that_of_its_source() {
        assert_eq!(version_in("x\nconst VERSION: &str = \"1.2.0\";\n"), Some("1.2.0"));
        assert_eq!(version_in("const OTHER: &str = \"1\";"), None);
        assert!(version_of_atom().unwrap().starts_with(|first: char| first.is_ascii_digit()));
    }

    #[test]
    fn every_file_that_packages_bring_is_in_the_clone_and_described() {
        let packaging = places::repository().join("packaging");
        for (from, to, mode) in ATOM.iter().chain(TOOLS).chain(TOOLS_OF_DEBIAN) {
            let text = std::fs::read_to_string(packaging.join(from)).unwrap();
            assert!(text.contains("SPDX-License-Identifier"), "{from}");
            assert_eq!(text.starts_with("#!"), *mode == 0o755, "{from}");
            assert!(!to.starts_with('/'), "{to}");
        }
    }
}
