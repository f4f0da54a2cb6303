// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Packages of both formats: what they say of themselves, and what is there when they are installed where nothing runs. What
//! they do on a machine that runs is for scenarios.

use std::path::Path;

use anyhow::{ensure, Context, Result};

use crate::package::{self, signing, Format, Made, Request};
use crate::places;
use crate::progress::Step;
use crate::sysroot::Sysroot;

/// The script that installs them. It begins with what it does.
const INSTALL: &str = include_str!("install_packages.sh");
/// The payloads to pack.
const PAYLOADS: &[&str] = &["2.0.0", "2.1.0"];
/// Words of commands that load or unload something, or stop a service. No script of a package has one.
const FORBIDDEN: &[&str] =
    &["modprobe", "insmod", "rmmod", "restart", " start ", " stop ", "--now"];
/// The scripts of an RPM package, by rpm's name, but for the one that may upgrade.
const SCRIPTS: &[&str] = &["PREIN", "POSTIN", "PREUN", "POSTUN", "PRETRANS"];

/// Makes packages and looks at them.
pub fn check(sysroot: &Sysroot) -> Result<()> {
    let folder = places::target().join("package-test");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let (rpm, deb) = (folder.join("rpm"), folder.join("deb"));
    let key = folder.join("key");
    std::fs::create_dir_all(&key).with_context(|| format!("cannot create {}", key.display()))?;
    let signing = signing::make_key(sysroot, &key)?;
    let request = |format, out: &Path| Request {
        format,
        payloads: PAYLOADS.iter().map(|version| (*version).to_owned()).collect(),
        out: out.to_owned(),
        signing: Some(signing.clone()),
        release: "1".to_owned(),
    };
    let rpms = package::make(sysroot, &request(Format::Rpm, &rpm))?;
    let debs = package::make(sysroot, &request(Format::Deb, &deb))?;
    check_relations(&rpms, "atom-abi(v1) = ", "atom-abi(v1) >= ")?;
    check_relations(&debs, "atom-abi-v1 (= ", "atom-abi-v1 (>= ")?;
    check_scripts(sysroot, &rpm, &rpms)?;
    let step = Step::start(
        "install the packages into a copy of the sysroot",
        &places::target().join("logs/install-packages.log"),
    )?;
    step.run(
        &sysroot
            .chroot()
            .bind(&rpm, "rpm")
            .bind(&deb, "deb")
            .command("sh")
            .args(["-c", INSTALL, "install"])
            .arg(&sysroot.kernel().release),
    )?;
    step.done();
    Ok(())
}

/// A payload asks for an interface that the package of Atom offers.
fn check_relations(made: &[Made], offers: &str, asks: &str) -> Result<()> {
    let number = |text: &str| text.trim_end_matches(')').to_owned();
    let offered = made
        .iter()
        .flat_map(|one| &one.provides)
        .find_map(|entry| entry.strip_prefix(offers).map(number))
        .with_context(|| format!("no package offers {offers}"))?;
    let asked: Vec<String> = made
        .iter()
        .flat_map(|one| &one.requires)
        .filter_map(|entry| entry.strip_prefix(asks).map(number))
        .collect();
    ensure!(asked.len() == PAYLOADS.len(), "of {} payloads {asked:?} ask for it", PAYLOADS.len());
    for one in asked {
        ensure!(
            atomctl::release::compare(&one, &offered).is_le(),
            "a payload asks for {one}, Atom offers {offered}"
        );
    }
    Ok(())
}

/// Only the last script of a transaction upgrades, and none loads or unloads anything itself.
fn check_scripts(sysroot: &Sysroot, folder: &Path, made: &[Made]) -> Result<()> {
    for one in made {
        let file = one.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ask = |what: &str| {
            sysroot
                .chroot()
                .bind(folder, "rpm")
                .command("rpm")
                .args(["--dbpath", "/mnt/db", "-qp", "--nosignature", "--queryformat"])
                .arg(what)
                .arg(format!("/mnt/rpm/{file}"))
                .read()
        };
        let scripts =
            ask(&SCRIPTS.iter().map(|name| format!("%{{{name}}}\n")).collect::<String>())?;
        let last = ask("%{POSTTRANS}")?;
        for word in FORBIDDEN {
            ensure!(
                !scripts.contains(word) && !last.contains(word),
                "a script of {file} has {word}"
            );
        }
        ensure!(
            !scripts.contains("package installed"),
            "{file} upgrades before the transaction's end"
        );
        let is_payload = one.name == "kmod-atom-payload";
        ensure!(
            last.contains("package installed") == is_payload,
            "the last script of {file}: {last}"
        );
    }
    Ok(())
}
