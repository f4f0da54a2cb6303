// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Volumes as a machine assembles them: names by udev, a file that is applied, a mount at boot.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _, Result};
use atom_abi::control::outcome;
use atomctl::node::Node;
use atomctl::report::Mode;

use super::Context;
use crate::composed::{self, Target};
use crate::guest::systemd::{PLACE, VOLUME};
use crate::queue;
use crate::server::{At, Server};
use crate::site::{Site, Spec};
use crate::udev::Udev;
use crate::wait;

const PATIENCE: Duration = Duration::from_secs(60);

fn leads_to(link: &str, device: &str) -> bool {
    fs::canonicalize(link).is_ok_and(|target| target == Path::new(device))
}

fn until_link(link: &str, device: &str) -> Result<()> {
    wait::until(&format!("{link} leads to {device}"), PATIENCE, || Ok(leads_to(link, device)))
}

pub fn a_volume_has_its_name_whatever_its_number_is(context: &mut Context) -> Result<()> {
    ensure!(Path::new("/usr/lib/udev/rules.d/60-atom.rules").exists(), "the rule is not there");
    let udev = Udev::start(context)?;
    let site = Site::on_guest("2.0.0")?;
    let first = site.volume("first", Spec::ram(16))?;
    let second = site.volume("second", Spec::ram(16))?;
    until_link("/dev/atom/first", &first)?;
    until_link("/dev/atom/second", &second)?;

    context.step("another number under the same name");
    site.destroy("first")?;
    wait::until("the name is gone", PATIENCE, || Ok(!Path::new("/dev/atom/first").exists()))?;
    let third = site.volume("third", Spec::ram(16))?;
    ensure!(third == first, "the number {first} was free, and {third} was given");
    until_link("/dev/atom/third", &third)?;
    let again = site.volume("first", Spec::ram(64))?;
    until_link("/dev/atom/first", &again)?;

    context.step("partitions");
    fs::write("/tmp/table", "label: gpt\nsize=16M\n")?;
    context.run(&["sh", "-c", &format!("sfdisk -q {again} < /tmp/table")])?;
    let part = format!("{again}p1");
    wait::until("a partition has a name", PATIENCE, || {
        let names = fs::read_dir("/dev/atom")?.flatten().map(|entry| entry.path());
        Ok(names.into_iter().any(|name| leads_to(&name.to_string_lossy(), &part)))
    })?;

    context.step("upgrades change no name");
    for (version, mode) in [("2.1.0", Mode::Warm), ("2.0.0", Mode::Cold)] {
        site.upgrade(version, mode)?;
        context.run(&["udevadm", "trigger", "--action=change", "--subsystem-match=block"])?;
        udev.settle(context)?;
        ensure!(leads_to("/dev/atom/first", &again), "the name is gone");
        ensure!(leads_to("/dev/atom/second", &second), "the name is gone");
    }

    context.step("an event while I/O is held hangs nobody");
    let live = site.node().status()?.live;
    let report = site.node().abandon(0, Duration::from_secs(5))?;
    ensure!(report.outcome == outcome::DONE, "{}", report.refusal);
    let begun = Instant::now();
    context.run(&["udevadm", "trigger", "--action=change", "--name-match=/dev/atom1"])?;
    let settled = Command::new("udevadm").args(["settle", "--timeout=40"]).status()?;
    context.fact("settled_within_ms", begun.elapsed().as_millis() as u64);
    site.adopt(live)?;
    ensure!(settled.success(), "udev did not settle in {:?}", begun.elapsed());
    context.run(&["udevadm", "trigger", "--action=change", "--subsystem-match=block"])?;
    udev.settle(context)?;
    until_link("/dev/atom/second", &second)?;
    for name in ["first", "second", "third"] {
        site.destroy(name)?;
    }
    udev.stop(context)?;
    site.leave()
}

fn apply(args: &[&str], text: &str) -> Result<Output> {
    fs::write("/tmp/volumes.toml", text)?;
    Ok(Command::new("atomctl").args(["apply", "/tmp/volumes.toml"]).args(args).output()?)
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

pub fn a_file_of_volumes_is_applied_as_a_whole_and_twice_is_once(
    context: &mut Context,
) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let mut server = Server::nbdkit("server", At::free_port()?, &["memory", "64M"])?;
    let port = server.at().port()?;
    let network = format!(
        "[[volume]]\nname = \"net\"\ntargets = [{{ at = \"nbd://127.0.0.1:{port}/\", deadline = \"5s\" }}]\n"
    );
    let local = "[[volume]]\nname = \"fast\"\nlayout = \"stripe\"\nchunk = \"64K\"\n\
                 targets = [\"bdev:/dev/vda\", \"bdev:/dev/vdb\"]\n";
    let both = format!("{network}{local}");
    let names = || -> Result<Vec<String>> {
        let mut names: Vec<String> = atomctl::volume::list(site.node().control())?
            .into_iter()
            .map(|volume| volume.name)
            .collect();
        names.sort_unstable();
        Ok(names)
    };

    context.step("a plan alone changes nothing");
    let output = apply(&["--plan"], &both)?;
    ensure!(output.status.success(), "{}", said(&output));
    ensure!(said(&output).contains("net") && said(&output).contains("fast"), "{}", said(&output));
    ensure!(names()?.is_empty(), "{:?}", names()?);

    context.step("carried out, and then there is nothing to do");
    let output = apply(&[], &both)?;
    ensure!(output.status.success(), "{}", said(&output));
    ensure!(names()? == ["fast", "net"], "{:?}", names()?);
    let connects = server.seen()?.connects;
    let output = apply(&[], &both)?;
    ensure!(output.status.success(), "{}", said(&output));
    ensure!(server.seen()?.connects == connects, "it was made again");

    context.step("mistakes are named, and change nothing");
    for (wrong, named) in [
        (format!("{both}[[volume]]\nname = \"bad\"\ntargets = [\"tape:/dev/st0\"]\n"), "bad"),
        (
            format!("{both}[[volume]]\nname = \"bad\"\ntargets = [\"ram:1M\"]\nnonsense = 1\n"),
            "nonsense",
        ),
        (both.replace("64K", "63K"), "chunk"),
        (both.replace("\"bdev:/dev/vda\", \"bdev:/dev/vdb\"", "\"bdev:/dev/vdb\""), "fast"),
    ] {
        let output = apply(&[], &wrong)?;
        ensure!(!output.status.success(), "{wrong} was applied: {}", said(&output));
        ensure!(said(&output).contains(named), "{named} is not in {}", said(&output));
        ensure!(names()? == ["fast", "net"], "{:?}", names()?);
    }

    context.step("a volume in use is not destroyed");
    let fast = atomctl::volume::list(site.node().control())?;
    let fast = fast.iter().find(|volume| volume.name == "fast").context("no volume")?;
    let holder = crate::spare::exclusive(&fast.device)?;
    let output = apply(&["--prune"], &network)?;
    ensure!(!output.status.success() && said(&output).contains("fast"), "{}", said(&output));
    ensure!(names()? == ["fast", "net"], "{:?}", names()?);
    drop(holder);
    let output = apply(&["--prune"], &network)?;
    ensure!(output.status.success(), "{}", said(&output));
    ensure!(names()? == ["net"], "{:?}", names()?);

    context.step("who only looks at a volume does not keep it");
    let output = apply(&["--prune"], &both)?;
    ensure!(output.status.success(), "{}", said(&output));
    let fast = atomctl::volume::list(site.node().control())?;
    let fast = fast.iter().find(|volume| volume.name == "fast").context("no volume")?;
    let looks = crate::spare::exclusive(&fast.device)?;
    let looks = thread::spawn(move || {
        // As long as udev may take for a probe on a busy machine.
        thread::sleep(Duration::from_millis(700));
        drop(looks);
    });
    site.destroy("fast")?;
    ensure!(looks.join().is_ok(), "the thread that looks has panicked");
    ensure!(names()? == ["net"], "{:?}", names()?);

    context.step("a server that is not there is named");
    server.kill()?;
    site.destroy("net")?;
    let output = apply(&[], &network)?;
    ensure!(!output.status.success(), "{}", said(&output));
    ensure!(said(&output).contains(&port.to_string()), "{}", said(&output));
    ensure!(names()?.is_empty(), "{:?}", names()?);
    site.leave()
}

/// Two boots. In the first one the volume gets a file system and a file; in the second one systemd mounts it.
pub fn systemd_mounts_a_volume_at_boot(context: &mut Context) -> Result<()> {
    let file = format!("{PLACE}/file");
    if context.boot()? == 0 {
        let site = Site::on_guest("2.0.0")?;
        let targets = [Target::bdev("/dev/vda"), Target::bdev("/dev/vdb")];
        let volume = composed::create(&site, VOLUME, composed::stripe(64), &targets)?;
        context.run(&["mkfs.ext4", "-q", &volume.device])?;
        fs::create_dir_all(PLACE)?;
        context.run(&["mount", &volume.device, PLACE])?;
        fs::write(&file, "written in the first boot")?;
        context.run(&["umount", PLACE])?;
        return site.leave();
    }
    let begun = Instant::now();
    let state = |unit: &str| -> Result<String> {
        let output = Command::new("systemctl").args(["is-active", unit]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let mounted = wait::until("it is mounted", Duration::from_secs(100), || {
        Ok(state("srv.mount")? == "active")
    });
    if mounted.is_err() {
        let status =
            Command::new("systemctl").args(["status", "atom.service", "srv.mount"]).output()?;
        mounted.with_context(|| said(&status))?;
    }
    context.fact("mounted_after_ms", begun.elapsed().as_millis() as u64);
    ensure!(fs::read_to_string(&file)? == "written in the first boot", "wrong content");
    let source = context.run(&["findmnt", "-n", "-o", "SOURCE", PLACE])?;
    ensure!(source.contains("atom"), "{source} is mounted");
    context.step("an upgrade under it");
    context.run(&["atomctl", "upgrade", "/lib/atom/payload_2_1_0.ko"])?;
    fs::write(&file, "written in the second boot")?;
    context.run(&["systemctl", "stop", "srv.mount"])?;
    context.run(&["systemctl", "start", "srv.mount"])?;
    ensure!(fs::read_to_string(&file)? == "written in the second boot", "wrong content");
    ensure!(state("srv.mount")? == "active", "{}", state("srv.mount")?);
    context.run(&["systemctl", "stop", "srv.mount"])?;
    context.run(&["atomctl", "volume", "destroy", VOLUME])?;
    for disk in ["/dev/vda", "/dev/vdb"] {
        crate::spare::exclusive(disk).with_context(|| format!("{disk} is still held"))?;
    }
    Ok(())
}

/// The connection of a volume that `atomctl` has made is the operator's to see and to make anew.
pub fn an_operator_creates_shows_grows_and_removes_volumes(context: &mut Context) -> Result<()> {
    let site = Site::on_guest("2.0.0")?;
    let server = Server::nbdkit("server", At::free_port()?, &["memory", "64M"])?;
    let uri = format!("nbd://127.0.0.1:{}/", server.at().port()?);
    context.run(&["atomctl", "volume", "create", "net", "--layout", "linear", "--target", &uri])?;
    context.run(&[
        "atomctl",
        "volume",
        "create",
        "fast",
        "--layout",
        "linear",
        "--target",
        "bdev:/dev/vda",
    ])?;
    let listed = context.run(&["atomctl", "volume", "list"])?;
    ensure!(listed.contains("net") && listed.contains("fast"), "{listed}");
    let port = composed::first_target(&site, "net")?.ports();
    let shown = context.run(&["atomctl", "volume", "show", "net"])?;
    let port = port.first().context("no connection")?.to_string();
    ensure!(shown.contains(&port), "the port {port} is not in {shown}");
    let json = context.run(&["atomctl", "--json", "volume", "show", "net"])?;
    let document: serde_json::Value = serde_json::from_str(&json)?;
    ensure!(document.get("schema").is_some(), "{json}");

    context.step("grow");
    context.run(&["atomctl", "volume", "resize", "fast", "--add-target", "bdev:/dev/vdb"])?;
    let volumes = atomctl::volume::list(site.node().control())?;
    let fast = volumes.iter().find(|volume| volume.name == "fast").context("no volume")?;
    ensure!(fast.bytes == 128 << 20, "{fast:?}");
    queue::write_words(&fast.device, (127 << 20) / 4096, &[7])?;
    ensure!(queue::read_words("/dev/vdb", (63 << 20) / 4096, 1)? == [Some(7)], "wrong place");

    context.step("mistakes");
    for args in [
        &["create", "net", "--layout", "linear", "--target", "bdev:/dev/vdc"][..],
        &["create", "x", "--layout", "linear", "--target", "bdev:/dev/vda"],
        &["create", "x", "--layout", "ring", "--target", "bdev:/dev/vdc"],
        &["create", "x", "--layout", "linear", "--target", "nbd://127.0.0.1:1/"],
        &["create", "x", "--layout", "linear", "--target", "nbd://127.0.0.1/?tls=1"],
        &["destroy", "nobody"],
        &["show", "nobody"],
    ] {
        let output = Command::new("atomctl").arg("volume").args(args).output()?;
        ensure!(!output.status.success(), "{args:?} was done: {}", said(&output));
        let named = args.last().map_or("", |last| last.trim_start_matches("bdev:"));
        let named = if args.contains(&"net") || args.contains(&"ring") { args[1] } else { named };
        let told = said(&output);
        ensure!(told.contains(named) || told.contains("ring"), "{args:?}: {told}");
    }
    let volumes = atomctl::volume::list(site.node().control())?;
    ensure!(volumes.len() == 2, "{volumes:?}");
    context.run(&["atomctl", "volume", "reconnect", "net"])?;
    context.run(&["atomctl", "volume", "destroy", "net"])?;
    context.run(&["atomctl", "volume", "destroy", "fast"])?;
    site.leave()
}
