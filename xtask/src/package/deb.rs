// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Debian packages: the templates of `packaging/deb`, and `dpkg-deb` in the sysroot.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::content::{Content, Kind};
use super::{size, Made, Request};
use crate::places;
use crate::problem::failed;
use crate::progress::Step;
use crate::sysroot::Sysroot;

const ARCHITECTURE: &str = "amd64";
/// Where dpkg looks for what is not a file of the package.
const CONTROL: &str = "DEBIAN";

/// Makes the packages of `content`: of a payload two, its file and which version a node is to run.
pub fn make(sysroot: &Sysroot, content: &Content, request: &Request) -> Result<Vec<Made>> {
    let words = Words::of(sysroot, content, request);
    let mut made = Vec::new();
    match &content.kind {
        Kind::Atom { .. } => {
            made.push(pack(sysroot, "kmod-atom", "kmod-atom", &content.stage, &words, request)?);
        }
        Kind::Tools => {
            made.push(pack(sysroot, "atom-tools", "atom-tools", &content.stage, &words, request)?);
        }
        Kind::Payload { version, .. } => {
            let name = format!("kmod-atom-payload-{version}");
            let template = "kmod-atom-payload";
            made.push(pack(sysroot, template, &name, &content.stage, &words, request)?);
            let empty = places::target().join("package").join(format!("atom-payload-{version}"));
            std::fs::create_dir_all(&empty)
                .with_context(|| format!("cannot create {}", empty.display()))?;
            made.push(pack(sysroot, "atom-payload", "atom-payload", &empty, &words, request)?);
        }
    }
    Ok(made)
}

/// What is filled into the templates.
struct Words(Vec<(&'static str, String)>);

impl Words {
    fn of(sysroot: &Sysroot, content: &Content, request: &Request) -> Self {
        let mut words = vec![
            ("VERSION", content.full_version(request)),
            ("KERNEL", sysroot.kernel().release.clone()),
        ];
        if let Kind::Atom { abi } | Kind::Payload { abi, .. } = &content.kind {
            words.push(("ABI_MAJOR", abi.0.to_string()));
            words.push(("ABI_MINOR", abi.1.to_string()));
        }
        if let Kind::Payload { version, .. } = &content.kind {
            words.push(("PAYLOAD", version.clone()));
        }
        Self(words)
    }

    /// Fills in a template. What is not known stands there still, and is an error.
    fn fill(&self, template: &str) -> std::result::Result<String, String> {
        let mut text = template.to_owned();
        for (key, value) in &self.0 {
            text = text.replace(&format!("@{key}@"), value);
        }
        let capitals = |word: &&str| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        };
        match text.split('@').skip(1).step_by(2).find(capitals) {
            Some(unknown) => Err(format!("@{unknown}@ is not known")),
            None => Ok(text),
        }
    }
}

fn pack(
    sysroot: &Sysroot,
    template: &str,
    name: &str,
    stage: &Path,
    words: &Words,
    request: &Request,
) -> Result<Made> {
    let control = stage.join(CONTROL);
    fill_in(&places::repository().join("packaging/deb").join(template), &control, words)?;
    let read = std::fs::read_to_string(control.join("control"))
        .with_context(|| format!("cannot read the control file of {name}"))?;
    let version = field(&read, "Version").unwrap_or_default();
    let file_name = format!("{name}_{version}_{ARCHITECTURE}.deb");
    let step = Step::start(
        format!("pack {file_name}"),
        &places::target().join("logs").join(format!("package-{name}-{version}.log")),
    )?;
    let chroot = sysroot.chroot().bind(stage, "stage").bind(&request.out, "out");
    let out = format!("/mnt/out/{file_name}");
    step.run(&chroot.command("dpkg-deb").args([
        "--root-owner-group",
        "--build",
        "/mnt/stage",
        out.as_str(),
    ]))?;
    step.done();
    let file = request.out.join(&file_name);
    let asked = chroot.command("dpkg-deb").args(["--field", out.as_str()]).read()?;
    let mut provides = vec![format!("{name} (= {version})")];
    provides.extend(list(&asked, "Provides"));
    Ok(Made {
        name: name.to_owned(),
        version,
        bytes: size(&file)?,
        provides,
        requires: list(&asked, "Depends"),
        file,
    })
}

/// Fills the templates of a folder into the folder of control files.
fn fill_in(templates: &Path, control: &Path, words: &Words) -> Result<()> {
    std::fs::create_dir_all(control)
        .with_context(|| format!("cannot create {}", control.display()))?;
    let entries = std::fs::read_dir(templates)
        .with_context(|| format!("cannot list {}", templates.display()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let template = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let is_script = template.starts_with("#!");
        // dpkg knows no comments in the others.
        let plain: String = match is_script {
            true => template,
            false => template
                .lines()
                .filter(|line| !line.starts_with('#'))
                .map(|line| format!("{line}\n"))
                .collect(),
        };
        let text = words.fill(&plain).map_err(|why| {
            failed(format!("{} cannot be filled in", path.display()), why, "correct the template")
        })?;
        let to: PathBuf = control.join(path.file_name().unwrap_or_default());
        std::fs::write(&to, text).with_context(|| format!("cannot write {}", to.display()))?;
        let mode = if is_script { 0o755 } else { 0o644 };
        std::fs::set_permissions(&to, Permissions::from_mode(mode))
            .with_context(|| format!("cannot set the mode of {}", to.display()))?;
    }
    std::fs::set_permissions(control, Permissions::from_mode(0o755))
        .with_context(|| format!("cannot set the mode of {}", control.display()))
}

/// The value of a field of a control file, which goes on over the lines that begin with a space.
fn field(control: &str, name: &str) -> Option<String> {
    let mut lines = control.lines().skip_while(|line| {
        line.split_once(':').is_none_or(|(key, _)| !key.eq_ignore_ascii_case(name))
    });
    let mut value = lines.next()?.split_once(':')?.1.trim().to_owned();
    for line in lines.take_while(|line| line.starts_with(' ')) {
        value.push_str(line);
    }
    Some(value)
}

/// The entries of a field with commas.
fn list(control: &str, name: &str) -> Vec<String> {
    let value = field(control, name).unwrap_or_default();
    value.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_in_and_a_word_that_nobody_knows_is_an_error() {
        let words = Words(vec![("VERSION", "2.1.0-1".to_owned()), ("PAYLOAD", "2.1.0".to_owned())]);
        assert_eq!(words.fill("a-@PAYLOAD@ (>= @VERSION@)").unwrap(), "a-2.1.0 (>= 2.1.0-1)");
        assert_eq!(words.fill("<atom@invalid>, \"$@\"").unwrap(), "<atom@invalid>, \"$@\"");
        assert!(words.fill("x @KERNEL@").unwrap_err().contains("KERNEL"));
    }

    #[test]
    fn a_field_goes_on_over_lines_and_its_entries_are_split_at_commas() {
        let control = "Package: a\nDepends: kmod,\n b (>= 1), c | d\nDescription: x\n y\n";
        assert_eq!(list(control, "Depends"), ["kmod", "b (>= 1)", "c | d"]);
        assert_eq!(field(control, "package").as_deref(), Some("a"));
        assert!(list(control, "Provides").is_empty());
    }
}
