// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Packages on a node that is in use: what rpm and dpkg do is what the node does, hot, and what cannot be leaves the node as
//! it was.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use atom_abi::request::op;
use atomctl::control::Control;
use atomctl::kmod;
use atomctl::volume;

use super::Context;
use crate::load::rounds::Rounds;
use crate::load::synced;
use crate::packaged::{
    configure, deb, debs_are_whole, fstab, live, make_file_system, over_disks, rpm, rpms_are_whole,
    run, run_failing, run_saying, serves, start, until_up, volumes, Load, DEVICE, PLACE,
    SECOND_BUILD, VOLUME,
};
use crate::power::{self, Marks, Moment, Wish};
use crate::{random, wait};

mod killed;

const PATIENCE: Duration = Duration::from_secs(120);
/// The name of the packages of payloads.
const PAYLOAD: &str = "kmod-atom-payload";
/// The build of most packages.
const FIRST_BUILD: &str = "1";
/// A node that does not wait for long before it commits.
const SHORT_SOAK: &str = "[packages]\nsoak = \"1s\"\n";
/// An upgrade that is taken back before this is one whose payload stalled.
const LONG_SOAK: &str = "[packages]\nsoak = \"120s\"\n";
const SWITCHED_OFF: &str = "[packages]\nsoak = \"1s\"\nhot-upgrade = false\n";

fn payload(version: &str) -> Result<String> {
    rpm(PAYLOAD, version, FIRST_BUILD)
}

/// Installs Atom, the tools and one payload with rpm on a node that has none of it.
fn install(version: &str) -> Result<()> {
    let all = [rpm("kmod-atom", "*", FIRST_BUILD)?, rpm("atom-tools", "*", FIRST_BUILD)?];
    let payload = payload(version)?;
    run_saying("rpm", &["-i", &all[0], &all[1], &payload], "")?;
    ensure!(!Path::new("/sys/module/atom").exists(), "the transaction has loaded Atom");
    configure(SHORT_SOAK)
}

/// Upgrades the file `package`, and the node goes from what serves to `version`.
fn goes_to(version: &str, args: &[&str], load: &mut Load) -> Result<()> {
    let from = live()?;
    run_saying("rpm", args, &format!("payload {version} is live"))
        .with_context(|| format!("from {from} to {version}"))?;
    serves(version)?;
    rpms_are_whole()?;
    load.goes_on()
}

/// A transaction that succeeds and upgrades nothing: `version` serves on, and somebody is told why.
fn stays_at(version: &str, program: &str, args: &[&str], why: &str, load: &mut Load) -> Result<()> {
    run_saying(program, args, why)?;
    serves(version)?;
    rpms_are_whole()?;
    load.goes_on()
}

pub fn rpm_upgrades_a_node_and_goes_back(context: &mut Context) -> Result<()> {
    let (old, new) = (payload("2.0.0")?, payload("2.1.0")?);
    until_up()?;
    context.step("a node without Atom");
    install("2.0.0")?;
    volumes(&over_disks())?;
    start(&["atom.service", "atom-volumes.service"])?;
    serves("2.0.0")?;
    make_file_system(context)?;
    let mut load = Load::start()?;

    context.step("forward");
    let begun = Instant::now();
    goes_to("2.1.0", &["-U", &new], &mut load)?;
    context.fact("transaction_ms", begun.elapsed().as_millis() as u64);

    context.step("what is live is not removed");
    run_failing("rpm", &["-e", PAYLOAD], "live")?;
    run_saying("rpm", &["-q", PAYLOAD], "2.1.0")?;
    serves("2.1.0")?;
    rpms_are_whole()?;

    context.step("back");
    goes_to("2.0.0", &["-U", "--oldpackage", &old], &mut load)?;

    context.step("both beside each other");
    goes_to("2.1.0", &["-i", &new], &mut load)?;
    let both = context.run(&["rpm", "-q", PAYLOAD])?;
    ensure!(both.contains("2.0.0") && both.contains("2.1.0"), "{both}");
    run_saying("rpm", &["-e", &format!("{PAYLOAD}-2.0.0")], "")?;
    run_failing("rpm", &["-e", PAYLOAD], "live")?;
    stays_at("2.1.0", "rpm", &["-i", "--oldpackage", &old], "2.1.0 is live", &mut load)?;
    run_saying("rpm", &["-e", &format!("{PAYLOAD}-2.0.0")], "")?;

    switched_off(context, &old, &mut load)?;

    context.step("all packages at once");
    goes_to("2.0.0", &["-U", "--oldpackage", "--replacepkgs", &old], &mut load)?;
    let all = [
        rpm("kmod-atom", "*", SECOND_BUILD)?,
        rpm("atom-tools", "*", SECOND_BUILD)?,
        rpm(PAYLOAD, "2.1.0", SECOND_BUILD)?,
    ];
    goes_to("2.1.0", &["-U", &all[0], &all[1], &all[2]], &mut load)?;
    run_saying("atomctl", &["status"], "2.1.0")?;
    load.stop(context)
}

/// The ways in which a transaction leaves the running payload alone. Each installs 2.0.0 where 2.1.0 serves.
fn switched_off(context: &Context, old: &str, load: &mut Load) -> Result<()> {
    let back = ["-U", "--oldpackage", "--replacepkgs", old];
    let newer = payload("2.1.0")?;
    let again = || run_saying("rpm", &["-U", &newer], "");

    context.step("switched off by the configuration");
    configure(SWITCHED_OFF)?;
    stays_at("2.1.0", "rpm", &back, "hot-upgrade", load)?;
    configure(SHORT_SOAK)?;
    again()?;

    context.step("by the environment");
    let environment = ["ATOM_PACKAGE_UPGRADE=off", "rpm", "-U", "--oldpackage", old];
    stays_at("2.1.0", "env", &environment, "ATOM_PACKAGE_UPGRADE", load)?;
    again()?;

    context.step("by an argument of the kernel");
    let line = fs::read_to_string("/proc/cmdline")?;
    fs::write("/run/cmdline", format!("{} atom_hot_upgrade=off\n", line.trim()))?;
    context.run(&["mount", "--bind", "/run/cmdline", "/proc/cmdline"])?;
    let stayed = stays_at("2.1.0", "rpm", &back, "atom_hot_upgrade=off", load);
    context.run(&["umount", "/proc/cmdline"])?;
    stayed?;
    again()?;

    context.step("on another running kernel");
    let other = ["--uname-2.6", "rpm", "-U", "--oldpackage", old];
    stays_at("2.1.0", "setarch", &other, "2.6.", load)?;
    again()?;

    context.step("in a chroot that sees the devices of the node");
    let place = "/run/image";
    for folder in ["root", "upper", "work"] {
        fs::create_dir_all(format!("{place}/{folder}"))?;
    }
    let options = format!("lowerdir=/,upperdir={place}/upper,workdir={place}/work");
    let root = format!("{place}/root");
    context.run(&["mount", "-t", "overlay", "overlay", "-o", &options, &root])?;
    for folder in ["/proc", "/sys", "/dev"] {
        let inside = format!("{root}{folder}");
        // Or else what is unmounted inside would be unmounted outside as well, the control groups for one.
        context.run(&["mount", "--rbind", "--make-rslave", folder, &inside])?;
    }
    let inside = [root.as_str(), "rpm", "-U", "--oldpackage", old];
    stays_at("2.1.0", "chroot", &inside, "running system", load)?;
    run_saying("rpm", &["-q", PAYLOAD], "2.1.0")?;
    context.run(&["umount", "-R", &root])?;
    Ok(())
}

/// The old payload is one without targets, because the variants that fail have none. The node serves for a second scenario:
/// tools that are killed, see [`killed`].
pub fn a_package_that_cannot_serve_leaves_the_old_payload(context: &mut Context) -> Result<()> {
    let old = payload("1.1.0")?;
    until_up()?;
    install("1.1.0")?;
    start(&["atom.service"])?;
    serves("1.1.0")?;
    context.run(&["atomctl", "volume", "create", VOLUME, "--kind", "ram", "--size", "96M"])?;
    make_file_system(context)?;
    let mut load = Load::start()?;

    context.step("for another interface: a dependency refuses before anything is done");
    run_failing("rpm", &["-U", &payload("9.0.0~abi")?], "atom-abi(v")?;
    run_saying("rpm", &["-q", PAYLOAD], "1.1.0")?;
    serves("1.1.0")?;
    rpms_are_whole()?;

    context.step("one that refuses to adopt");
    let args = ["-U", &payload("9.0.0~adopt")?];
    stays_at("1.1.0", "rpm", &args, "1.1.0 serves", &mut load)?;
    run_saying("rpm", &["-q", PAYLOAD], "9.0.0~adopt")?;
    let status = run("atomctl", &["status"])?;
    ensure!(status.text.contains("failed") && status.text.contains("9.0.0-adopt"), "{status:?}");
    let json = context.run(&["atomctl", "--json", "status"])?;
    let document: serde_json::Value = serde_json::from_str(&json)?;
    ensure!(document["last_attempt"]["origin"] == "package", "{json}");
    // The live payload's package is gone, and its file is kept: there is a way back to it for a cold upgrade.
    stays_at("1.1.0", "rpm", &["-U", "--oldpackage", &old], "live", &mut load)?;

    context.step("one that stalls in the soak");
    configure(LONG_SOAK)?;
    let stuck = payload("9.0.0~stuck")?;
    let package = stuck.clone();
    let upgrade = std::thread::spawn(move || run("rpm", &["-U", &package]));
    wait::until("it is live", PATIENCE, || {
        ensure!(!upgrade.is_finished(), "the transaction has ended");
        Ok(live()? == "9.0.0-stuck")
    })?;
    volume::hold(&Control::open()?, op::WRITE, 2)?;
    let said = upgrade.join().map_err(|_| anyhow::anyhow!("the thread panicked"))??;
    ensure!(said.passed && said.text.contains("1.1.0 serves"), "{said:?}");
    serves("1.1.0")?;
    rpms_are_whole()?;
    load.goes_on()?;
    ensure!(kmod::find("payload_test_stuck")?.is_none(), "it is still loaded");
    stays_at("1.1.0", "rpm", &["-U", "--oldpackage", &old], "live", &mut load)?;

    killed::in_each_phase(context, &old, &stuck, &mut load)?;
    load.stop(context)
}

/// The same for dpkg, which has no two versions of a package beside each other: `atom-payload` says which one is to run.
pub fn dpkg_upgrades_a_node_and_goes_back(context: &mut Context) -> Result<()> {
    let payload = |version: &str, build: &str| -> Result<[String; 2]> {
        Ok([
            deb(&format!("{PAYLOAD}-{version}"), version, build)?,
            deb("atom-payload", version, build)?,
        ])
    };
    let base = |build: &str| -> Result<[String; 2]> {
        Ok([deb("kmod-atom", "*", build)?, deb("atom-tools", "*", build)?])
    };
    let goes_to = |version: &str, files: &[String], load: &mut Load| -> Result<()> {
        let mut args = vec!["-i"];
        args.extend(files.iter().map(String::as_str));
        run_saying("dpkg", &args, &format!("payload {version} is live"))?;
        serves(version)?;
        debs_are_whole()?;
        load.goes_on()
    };
    let [old, old_meta] = payload("2.0.0", FIRST_BUILD)?;
    let new = payload("2.1.0", FIRST_BUILD)?;
    until_up()?;
    let [atom, tools] = base(FIRST_BUILD)?;
    run_saying("dpkg", &["-i", &atom, &tools, &old, &old_meta], "")?;
    ensure!(!Path::new("/sys/module/atom").exists(), "the transaction has loaded Atom");
    configure(SHORT_SOAK)?;
    volumes(&over_disks())?;
    start(&["atom.service", "atom-volumes.service"])?;
    serves("2.0.0")?;
    make_file_system(context)?;
    let mut load = Load::start()?;

    context.step("forward");
    goes_to("2.1.0", &new, &mut load)?;
    context.step("back: the older version of the package that says what is to run");
    goes_to("2.0.0", std::slice::from_ref(&old_meta), &mut load)?;

    context.step("what is live is not removed, what is not is");
    run_failing("dpkg", &["-r", "atom-payload", &format!("{PAYLOAD}-2.0.0")], "live")?;
    serves("2.0.0")?;
    run_saying("dpkg", &["-r", &format!("{PAYLOAD}-2.1.0")], "")?;
    run_saying("dpkg", &["-i", &old, &old_meta], "")?;
    serves("2.0.0")?;
    debs_are_whole()?;

    context.step("all packages at once");
    let all = [base(SECOND_BUILD)?, payload("2.1.0", SECOND_BUILD)?].concat();
    goes_to("2.1.0", &all, &mut load)?;
    load.stop(context)
}

/// What the writers of the load are noted as.
const SYNCED: &str = "synced";
const WRITERS: u64 = 2;

/// Boots with a transaction over and over, until the power is cut, each of which looks first what the one before has left; and
/// one more.
pub fn a_power_cut_in_a_transaction_leaves_a_node_that_serves(context: &mut Context) -> Result<()> {
    let boot = context.boot()?;
    let folder = |boot: u32| Path::new(PLACE).join(format!("{SYNCED}-{boot}"));
    until_up()?;
    let old = [rpm("kmod-atom", "*", FIRST_BUILD)?, payload("2.0.0")?];
    let new = [rpm("kmod-atom", "*", SECOND_BUILD)?, rpm(PAYLOAD, "2.1.0", SECOND_BUILD)?];
    let transaction = |[atom, payload]: &[String; 2]| {
        run_saying("rpm", &["-U", "--oldpackage", "--replacepkgs", atom, payload], "")
    };
    if let Some(before) = boot.checked_sub(1) {
        context.step("the node serves");
        run_saying("findmnt", &["-n", "-o", "SOURCE", PLACE], "/dev/atom")?;
        let found = live()?;
        context.fact("live_after_the_cut", &found);
        let (seed, last) = noted(&power::notes()?)?;
        let folder = folder(before);
        context.fact("newer_than_that", synced::verify(&folder, seed, &last)?);
        fs::remove_dir_all(&folder)?;

        context.step("rpm finishes what was cut off");
        transaction(&old)?;
        serves("2.0.0")?;
        rpms_are_whole()?;
    }
    if context.is_last_boot() {
        let mut load = Load::start()?;
        for (files, version) in [(&new, "2.1.0"), (&old, "2.0.0")] {
            transaction(files)?;
            serves(version)?;
            rpms_are_whole()?;
        }
        load.goes_on()?;
        return load.stop(context);
    }
    if boot == 0 {
        install("2.0.0")?;
        volumes(&over_disks())?;
        start(&["atom.service", "atom-volumes.service"])?;
        make_file_system(context)?;
        fstab(&format!("{DEVICE} {PLACE} ext4 defaults 0 0"))?;
    }
    // What is there before the transaction is on the disk.
    nix::unistd::sync();
    let seed = random::seed()?;
    context.note(&format!("seed {seed}"));
    let tell = |writer, round| println!("{}{SYNCED} {writer} {round}", power::NOTE);
    let mut load = synced::start(&folder(boot), seed, WRITERS, tell)?;
    wait::until("every writer has ended rounds", PATIENCE, || {
        load.check()?;
        Ok(load.fewest() > 1)
    })?;
    let marks = Marks::open()?;
    let begun = Instant::now();
    transaction(&new)?;
    serves("2.1.0")?;
    let within = begun.elapsed();
    context.step("a cut in a transaction");
    context.note(&Wish { within, during: Moment::Upgrade }.note());
    over_and_over(&marks, &mut load, &[&old, &new], transaction)
}

/// One transaction after the other until the power is cut.
fn over_and_over<'a>(
    marks: &Marks,
    load: &mut Rounds,
    both: &[&'a [String; 2]],
    transaction: impl Fn(&'a [String; 2]) -> Result<()>,
) -> Result<()> {
    let mut next = both.iter().cycle();
    wait::until("the power is cut", PATIENCE, || {
        load.check()?;
        marks.mark(Moment::Upgrade)?;
        transaction(next.next().context("nothing to install")?)?;
        marks.mark(Moment::Load)?;
        Ok(false)
    })
}

/// The seed and the last rounds that the boot before has noted.
fn noted(notes: &[String]) -> Result<(u64, Vec<u64>)> {
    let mut seed = None;
    let mut last = vec![None; WRITERS as usize];
    for note in notes {
        let words: Vec<&str> = note.split(' ').collect();
        match words.as_slice() {
            ["seed", number] => seed = Some(number.parse()?),
            [SYNCED, writer, round] => {
                let place = last.get_mut(writer.parse::<usize>()?).context("another writer")?;
                *place = Some(round.parse()?);
            }
            _ => ensure!(Wish::read(note).is_some(), "nobody understands the note {note:?}"),
        }
    }
    let last: Option<Vec<u64>> = last.into_iter().collect();
    Ok((seed.context("no seed was noted")?, last.context("not all writers have noted")?))
}
