// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! RPM packages: `rpmbuild` in the sysroot, with the specs of `packaging/rpm`.

use anyhow::{Context, Result};

use super::content::{Content, Kind};
use super::{size, Made, Request};
use crate::places;
use crate::problem::failed;
use crate::progress::Step;
use crate::sysroot::Sysroot;

/// What the sysroot's `rpmbuild` calls the processor.
const ARCHITECTURE: &str = "x86_64";

/// Makes the package of `content`.
pub fn make(sysroot: &Sysroot, content: &Content, request: &Request) -> Result<Vec<Made>> {
    let (name, macros) = described(sysroot, content);
    let full = content.full_version(request);
    let work = places::target().join("package/rpmbuild");
    std::fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let chroot = sysroot
        .chroot()
        .bind(&places::repository().join("packaging/rpm"), "specs")
        .bind(&content.stage, "stage")
        .bind(&work, "work")
        .bind(&request.out, "out");
    let mut command = chroot.command("rpmbuild").args(["-bb", "--target", ARCHITECTURE]);
    let fixed = [
        ("_topdir", "/mnt/work".to_owned()),
        ("_rpmdir", "/mnt/out".to_owned()),
        // The sysroot stays as it is: clones share it.
        ("_tmppath", "/mnt/work/tmp".to_owned()),
        ("_dbpath", "/mnt/work/db".to_owned()),
        ("_rpmfilename", "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm".to_owned()),
        ("stage", "/mnt/stage".to_owned()),
        ("package_release", request.release.clone()),
    ];
    for (key, value) in fixed.into_iter().chain(macros) {
        command = command.arg("--define").arg(format!("{key} {value}"));
    }
    command = command.arg(format!("/mnt/specs/{name}.spec"));
    let file_name = format!("{name}-{full}.{ARCHITECTURE}.rpm");
    let step = Step::start(
        format!("pack {file_name}"),
        &places::target().join("logs").join(format!("package-{name}-{full}.log")),
    )?;
    step.run(&command)?;
    step.done();
    let file = request.out.join(&file_name);
    let ask = |what: &str| -> Result<Vec<String>> {
        let text = chroot
            .command("rpm")
            .args(["--dbpath", "/mnt/work/db", "-qp", "--nosignature", what])
            .arg(format!("/mnt/out/{file_name}"))
            .read()?;
        Ok(relations(&text))
    };
    let made = Made {
        name: name.to_owned(),
        version: full,
        bytes: size(&file)?,
        provides: ask("--provides")?,
        requires: ask("--requires")?,
        file,
    };
    // What rpmbuild does not know it leaves as it is.
    if let Some(odd) = made.provides.iter().chain(&made.requires).find(|one| one.contains("%{")) {
        return Err(failed(
            format!("{file_name} is not as it must be"),
            format!("it says {odd}: the spec uses a macro that is not defined"),
            "define it in xtask/src/package/rpm.rs",
        ));
    }
    Ok(vec![made])
}

/// The name of the spec, and its own macros.
fn described(sysroot: &Sysroot, content: &Content) -> (&'static str, Vec<(&'static str, String)>) {
    let release = &sysroot.kernel().release;
    let kernel = || [("kernel", release.clone()), ("kernel_version", as_version(release))];
    let interface =
        |abi: (u16, u16)| [("abi_major", abi.0.to_string()), ("abi_minor", abi.1.to_string())];
    match &content.kind {
        Kind::Atom { abi } => {
            let mut macros = vec![("atom_version", content.version.clone())];
            macros.extend(kernel());
            macros.extend(interface(*abi));
            ("kmod-atom", macros)
        }
        Kind::Payload { version, object, abi } => {
            let mut macros = vec![
                ("payload", version.clone()),
                ("payload_version", content.version.clone()),
                ("object", object.clone()),
            ];
            macros.extend(kernel());
            macros.extend(interface(*abi));
            ("kmod-atom-payload", macros)
        }
        Kind::Tools => ("atom-tools", vec![("tools_version", content.version.clone())]),
    }
}

/// A kernel's release as rpm takes it for a version. It has one dash there, and kernels that come as rpm packages have no more;
/// what provides another one writes it in the same way.
fn as_version(release: &str) -> String {
    match release.split_once('-') {
        Some((version, rest)) => format!("{version}-{}", rest.replace('-', "_")),
        None => release.to_owned(),
    }
}

/// What a package asks for or offers, without what rpm asks for on its own behalf.
fn relations(text: &str) -> Vec<String> {
    let mut all: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("rpmlib("))
        .map(str::to_owned)
        .collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_of_a_kernel_becomes_a_version_with_one_dash() {
        for (release, version) in [
            ("7.2.12", "7.2.12"),
            ("5.14.0-427.el9.x86_64", "5.14.0-427.el9.x86_64"),
            ("7.2.12+deb13-cloud-amd64", "7.2.12+deb13-cloud_amd64"),
        ] {
            assert_eq!(as_version(release), version);
        }
    }

    #[test]
    fn what_rpm_asks_for_itself_is_not_shown() {
        let text = "b = 1\nrpmlib(PayloadIsZstd) <= 5.4.18-1\na\na\n\n";
        assert_eq!(relations(text), ["a", "b = 1"]);
    }
}
